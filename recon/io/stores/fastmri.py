"""HDF5 in fastMRI's layout: ``kspace`` (slices, coils, H, W), header, reference and mask beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np

from .base import ArrayInfo, Store, native, native_dtype, outside, refuse_more_than_memory
from .geometry import Geometry
from .header import Header

HEADER = "ismrmrd_header"
LONGEST_XML = 2**26  # bytes; a real one has some thousand
HOPS = 16  # soft links in a row


@dataclass(frozen=True)
class HDF5Store(Store):
    """fastMRI's files; a ``kspace`` of three axes is single-coil (slices, H, W).

    Complex numbers may be stored as pairs named (r, i) or (real, imag). Arrays may lie in a group if only one
    group has k-space. Nothing outside the file is ever opened: external links, external storage and
    virtual datasets over other files are listed, and refused where they are needed. Layout: Zbontar et al.,
    fastMRI (2018), and the ISMRMRD header in ``ismrmrd_header``.
    """

    format: ClassVar[str] = "HDF5"
    axes: ClassVar[str] = "slices"

    def entries(self) -> dict[str, ArrayInfo]:
        with self.reading(), h5py.File(self.path, "r") as file:
            return dict(datasets(file))

    def fetch(self, name: str, index: int | None = None) -> np.ndarray:
        with self.reading(), h5py.File(self.path, "r") as file:
            data = dataset_in(file, name, self.path)
            refuse_more_than_memory(data.shape if index is None else data.shape[1:], native_dtype(data.dtype))
            return native(np.asarray(data[() if index is None else index]))

    def header(self) -> Header:
        return Header.parse(self._xml(), self.path)

    def geometry(self, size: tuple[int, int]) -> Geometry | None:
        return Geometry.of_grid(self.header().encoded, size)

    def _xml(self) -> bytes | None:
        name = self.locate((HEADER,))
        if name is None:
            return None
        with self.reading(), h5py.File(self.path, "r") as file:
            return xml_in(file, name, self.path)

    def attributes(self) -> Mapping[str, Any]:
        with self.reading(), h5py.File(self.path, "r") as file:
            return {key: plain_value(value) for key, value in file.attrs.items()}


def dataset_in(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """The dataset ``name``, if it is in this file with all its numbers; raises `InputError` if it is not."""
    found = follow(file, name)
    where = found if isinstance(found, str) else stored_outside(found) if found is not None else ""
    if where:
        raise outside(path, name, where)
    if not isinstance(found, h5py.Dataset):
        raise KeyError(f"there is no array {name}")
    return found


def xml_in(file: h5py.File, name: str, path: Path) -> bytes:
    """The text of a header; raises as `dataset_in`, and `ValueError` for one that is none."""
    data = dataset_in(file, name, path)
    if data.size == 0 or data.dtype.itemsize > LONGEST_XML:
        raise ValueError(f"{name} is {data.dtype} of shape {data.shape}")
    value = data[(0,) * data.ndim]
    value = value.encode() if isinstance(value, str) else value
    return bytes(value) if isinstance(value, bytes) else b""


def datasets(file: h5py.File) -> Iterator[tuple[str, ArrayInfo]]:
    """Every dataset of a file with its path, groups expanded once each; links out of the file are not followed."""
    waiting, seen = [("", file["/"])], set()
    while waiting:
        prefix, group = waiting.pop(0)
        if (address := h5py.h5o.get_info(group.id).addr) in seen:
            continue
        seen.add(address)
        for name in group:
            found = follow(group, name)
            if isinstance(found, str):
                yield prefix + name, ArrayInfo((), np.dtype("V"), found)
            elif isinstance(found, h5py.Group):
                waiting.append((f"{prefix}{name}/", found))
            elif isinstance(found, h5py.Dataset) and found.shape is not None:
                info = ArrayInfo(tuple(found.shape), native_dtype(found.dtype), stored_outside(found))
                yield prefix + name, info


def follow(group: h5py.Group, path: str, hops: int = 0) -> Any:
    """The object that ``path`` leads to by links within the file, None if there is none.

    If it leads out of the file: where to, as the end of a sentence. Each link is looked at before it is
    followed, so that no other file is opened.
    """
    found: Any = group.file["/"] if path.startswith("/") else group
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if not isinstance(found, h5py.Group):
            return None
        try:
            link = found.get(part, getlink=True)
        except TypeError:  # a kind of link that only its author's program can follow
            return "a link of an unknown kind"
        if isinstance(link, h5py.ExternalLink):
            return f"an external link to {link.filename}"
        if isinstance(link, h5py.SoftLink):
            found = follow(found, link.path, hops + 1) if hops < HOPS else None
        else:
            found = None if link is None else found[part]
        if found is None or isinstance(found, str):
            return found
    return found


def stored_outside(found: Any, hops: int = 0) -> str:
    """Which other file holds the numbers of a dataset, as the end of a sentence; empty if they are in its own."""
    if not isinstance(found, h5py.Dataset):
        return ""
    if found.external:
        return f"stored in another file, {found.external[0][0]}"
    for source in found.virtual_sources() if found.is_virtual else ():
        if source.file_name != "." or "%" in source.dset_name or hops > HOPS:
            return f"a virtual dataset over another file, {source.file_name}"
        inner = follow(found.file["/"], source.dset_name)
        if where := inner if isinstance(inner, str) else stored_outside(inner, hops + 1):
            return where
    return ""


def plain_value(value: Any) -> Any:
    """An HDF5 attribute as Python's own number or text."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.item() if isinstance(value, np.generic) else value
