"""HDF5 in fastMRI's layout: ``kspace`` (slices, coils, H, W), header, reference and mask beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import h5py
import numpy as np

from .stores import Entry, Store

PARTS = ({"r", "i"}, {"real", "imag"})


@dataclass(frozen=True)
class HDF5Store(Store):
    """fastMRI's files; a ``kspace`` of three axes is single-coil (slices, H, W).

    Complex numbers may be stored as pairs named (r, i) or (real, imag). Layout: Zbontar et al.,
    fastMRI (2018), and the ISMRMRD header in ``ismrmrd_header``.
    """

    format: ClassVar[str] = "HDF5"
    axes: ClassVar[str] = "slices"

    def entries(self) -> dict[str, Entry]:
        with self.reading(), h5py.File(self.path, "r") as file:
            return {
                name: Entry(tuple(data.shape), complex_of(data.dtype))
                for name, data in file.items()
                if isinstance(data, h5py.Dataset) and data.shape is not None
            }

    def fetch(self, name: str, index: int | None = None) -> np.ndarray:
        with self.reading(), h5py.File(self.path, "r") as file:
            array = file[name][() if index is None else index]
        kind = complex_of(array.dtype)
        return array if kind == array.dtype else np.ascontiguousarray(array).view(kind)

    def header(self) -> bytes | None:
        with self.reading(), h5py.File(self.path, "r") as file:
            if not isinstance(file.get("ismrmrd_header"), h5py.Dataset):
                return None
            value = file["ismrmrd_header"][()]
        value = value.flat[0] if isinstance(value, np.ndarray) and value.size else value
        return value.encode() if isinstance(value, str) else bytes(value)

    def attributes(self) -> Mapping[str, Any]:
        with self.reading(), h5py.File(self.path, "r") as file:
            return {key: plain(value) for key, value in file.attrs.items()}


def complex_of(dtype: np.dtype) -> np.dtype:
    """The complex dtype of a pair (real, imag) of floats; any other dtype as it is."""
    names = dtype.names or ()
    if len(names) == 2 and set(names) in PARTS and names[0][0] == "r":
        real, imag = (dtype[name] for name in names)
        if real == imag and real.str in ("<f4", "<f8") and dtype.itemsize == 2 * real.itemsize:
            return np.dtype(f"<c{2 * real.itemsize}")
    return dtype


def plain(value: Any) -> Any:
    """An HDF5 attribute as Python's own number or text."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.item() if isinstance(value, np.generic) else value
