"""Measured k-space in memory: what a file holds, and one slice of it at a time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .cropping import center_crop
from .stores import ArrayInfo, Geometry, Header, Store


@dataclass(frozen=True, eq=False)
class KSpaceSlice:
    """One slice: ``kspace`` (coils, H, W) complex64 in the file's own units, centred.

    ``reference`` (h, w) float32, already of the cropped size; ``mask`` (W,) or (H, W) bool, true
    where sampled; ``maps`` (sets, coils, H, W) complex64; ``calibration`` (coils, H, W) k-space of a scan of its own that
    maps are estimated from, zero where not measured. Each is None where the file has none.
    """

    index: int
    kspace: Tensor
    reference: Tensor | None = None
    mask: Tensor | None = None
    maps: Tensor | None = None
    calibration: Tensor | None = None


@dataclass(frozen=True, eq=False)
class KSpaceFile:
    """What a k-space file holds; no large array is read before `read_slice`.

    ``shape`` is (slices, coils, H, W), H along the readout; ``crop`` (h, w) the size of the image
    that the header asks for, cut from the centre; ``acquired`` the range [first, last) of the phase lines
    that were measured, the rest is zero padding; ``name``, ``reference`` and ``maps`` name arrays of ``store``;
    ``notes`` are sentences about what is unusual; ``geometry`` says where the image's pixels lie.
    """

    path: Path
    format: str
    shape: tuple[int, int, int, int]
    dtype: str
    crop: tuple[int, int]
    acquired: tuple[int, int]
    mask: Tensor | None
    reference: str | None
    maps: str | None
    attrs: Mapping[str, Any]
    notes: tuple[str, ...]
    geometry: Geometry | None
    name: str = field(repr=False)
    store: Store = field(repr=False)

    @property
    def slices(self) -> int:
        """Number of slices."""
        return self.shape[0]

    @property
    def coils(self) -> int:
        """Number of receive coils."""
        return self.shape[1]

    @property
    def height(self) -> int:
        """Samples along the readout."""
        return self.shape[2]

    @property
    def width(self) -> int:
        """Phase lines, zero padding included."""
        return self.shape[3]

    @property
    def counts(self) -> str:
        """Slices and coils in words: "1 slice, 8 coils"."""
        several = {"slice": self.slices, "coil": self.coils}
        return ", ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in several.items())

    @property
    def oversampling(self) -> float:
        """Readout samples per row of the image: 2 for most scanners."""
        return self.height / self.crop[0]

    def read_slice(self, index: int) -> KSpaceSlice:
        """Slice ``index``, from 0; raises `InputError` if there is none, or the file is damaged there."""
        if not 0 <= index < self.slices:
            raise InputError(
                f"{self.path} has no slice {index}.",
                f"It has {self.slices}, counted from 0.",
                f"Choose one of 0 to {self.slices - 1}.",
            )
        found = self.store.calibration(index)
        return KSpaceSlice(
            index,
            self._kspace(index),
            self._reference(index),
            self.mask,
            self._maps(index),
            None if found is None else as_tensor(found, np.complex64),
        )

    def _kspace(self, index: int) -> Tensor:
        whole = len(self.store.entries()[self.name].shape) == 3 and self.store.axes == "coils"
        part = self.store.fetch(self.name, None if whole else index)
        with np.errstate(over="ignore"):  # what overflows is found, and refused, by `survey`
            return as_tensor(part.reshape(self.shape[1:]), np.complex64)

    def _reference(self, index: int) -> Tensor | None:
        if self.reference is None:
            return None
        return center_crop(as_tensor(np.abs(self.store.fetch(self.reference, index)), np.float32), self.crop)

    def _maps(self, index: int) -> Tensor | None:
        return None if self.maps is None else maps_of_slice(self.store, self.maps, self, index)


@dataclass(frozen=True, eq=False)
class Survey:
    """What `survey` found: the ``peak`` of |k|, ``sampled`` (H, W) bool, true where any slice or coil is not
    zero, ``always`` (H, W), true where every slice is not zero, ``alive`` (coils,), true where a coil is not zero in
    some slice, and a ``fingerprint`` of the data."""

    peak: float
    sampled: Tensor
    always: Tensor
    alive: Tensor
    fingerprint: str


def survey(file: KSpaceFile, progress: Callable[[int], object] | None = None) -> Survey:
    """Look at every sample, one slice at a time, before any work is done with the file.

    Raises `InputError` for a NaN or infinite sample and for a slice of zeros. ``progress`` is called with
    the number of slices done.
    """
    peak, digest = 0.0, hashlib.blake2b(digest_size=16)
    sampled = torch.zeros(file.height, file.width, dtype=torch.bool)
    always, alive = ~sampled, torch.zeros(file.coils, dtype=torch.bool)
    for index in range(file.slices):
        kspace = file._kspace(index)
        size = kspace.abs().amax(0)
        top = float(size.max())
        if not np.isfinite(top):
            bad = int((~torch.isfinite(kspace.abs())).sum())
            raise InputError(
                f"{file.path}: slice {index} of k-space has {bad} samples that are NaN or infinite.",
                "One such sample spoils the whole image.",
                "Write the file again from the raw data, or leave this slice out.",
            )
        if top == 0:
            raise InputError(
                f"{file.path}: slice {index} of k-space is all zeros.",
                "Nothing was measured in it, so there is nothing to reconstruct.",
                "Write the file again from the raw data, or leave this slice out.",
            )
        peak = max(peak, top)
        sampled |= size > 0
        always &= size > 0
        alive |= kspace.abs().amax((1, 2)) > 0
        digest.update(kspace.numpy().data)
        if progress is not None:
            progress(index + 1)
    return Survey(peak, sampled, always, alive, digest.hexdigest())


def kspace_file(store: Store) -> KSpaceFile:
    """The k-space file in ``store``: names, shapes, header and mask, checked to fit together.

    Raises `InputError` for k-space that is missing, empty, real, or without a coil axis, for a mask or
    maps that do not fit it, and for arrays that lie in another file.
    """
    entries = store.entries()
    name = store.find("kspace")
    if name is None:
        raise InputError(
            f'{store.path} has no "kspace".',
            f"It holds: {store.contents()}.",
            'Store the samples under the name "kspace", shape (slices, coils, H, W), complex.',
        )
    shape = kspace_shape(store, entries[name])
    header = store.header()
    crop = header.crop(shape[2:])
    reference, notes = find_reference(store, entries, shape, crop, header)
    if not header.present and reference is not None:
        height, width = entries[reference].shape[-2:]
        crop = (min(height, crop[0]), min(width, crop[1]))
    return KSpaceFile(
        path=store.path,
        format=store.format,
        shape=shape,
        dtype=str(entries[name].dtype),
        crop=crop,
        acquired=header.acquired(shape[3]),
        mask=find_mask(store, shape),
        reference=reference,
        maps=find_maps(store, entries, shape),
        attrs=dict(store.attributes()),
        notes=(*header.notes(shape[2:]), *store.notes(), *notes),
        geometry=store.geometry(shape[2:]),
        name=name,
        store=store,
    )


def kspace_shape(store: Store, entry: ArrayInfo) -> tuple[int, int, int, int]:
    """(slices, coils, H, W) of a stored k-space; raises `InputError` for what cannot be one."""
    shape = entry.shape
    wanted = "(slices, coils, H, W), or " + (
        "(slices, H, W) for a single coil" if store.axes == "slices" else "(coils, H, W) for a single slice"
    )
    if 0 in shape or not shape:
        raise InputError(
            f"{store.path}: k-space is empty, its shape is {shape}.",
            "It has no samples.",
            f"Write the file again with samples of shape {wanted}.",
        )
    if entry.dtype.kind != "c":
        pairs = entry.dtype.kind == "f" and shape[-1] == 2
        raise InputError(
            f"{store.path}: k-space is {entry.dtype}, not complex.",
            "Its last axis of 2 looks like real and imaginary parts."
            if pairs
            else "Samples of k-space have a real and an imaginary part.",
            "Store k[..., 0] + 1j * k[..., 1] as complex64." if pairs else "Store them as complex64.",
        )
    if len(shape) not in (3, 4):
        raise InputError(
            f"{store.path}: k-space of shape {shape} has {len(shape)} axes.",
            "The axis of the coils is missing." if len(shape) == 2 else f"It should be {wanted}.",
            f"Store it as {wanted}" + (": k[None] adds the axis." if len(shape) == 2 else "."),
        )
    if len(shape) == 3:
        shape = (shape[0], 1, *shape[1:]) if store.axes == "slices" else (1, *shape)
    return shape  # type: ignore[return-value]


def find_reference(
    store: Store,
    entries: Mapping[str, ArrayInfo],
    shape: tuple[int, ...],
    crop: tuple[int, int],
    header: Header,
) -> tuple[str | None, list[str]]:
    """The name of the fully sampled image in the file, and a note if it is not used: ESC of a single coil, else RSS."""
    names = ["reconstruction_rss", "reconstruction_esc"]
    if shape[1] == 1:
        names.reverse()
    name = store.locate(names)
    if name is None:
        return None, []
    found, dtype = entries[name].shape, entries[name].dtype
    cut = crop if header.present else (1, 1)
    if dtype.kind not in "fiuc":
        return None, [f"{name} is not used: it is {dtype}, not numbers."]
    if len(found) == 3 and found[0] == shape[0] and found[1] >= cut[0] and found[2] >= cut[1]:
        return name, []
    return None, [f"{name} of shape {found} is not used: the image is {shape[0]} x {crop[0]} x {crop[1]}."]


def find_mask(store: Store, shape: tuple[int, ...]) -> Tensor | None:
    """The mask beside the k-space in a file, as `as_mask` checks it; None if there is none."""
    name = store.find("mask")
    return None if name is None else fetch_mask(store, name, shape)


def fetch_mask(store: Store, name: str, shape: tuple[int, ...]) -> Tensor:
    """The mask ``name`` of a file for k-space (slices, coils, H, W), not read before its size is known to fit."""
    stored = store.entries()[name].shape
    if math.prod(stored) > math.prod(shape[2:]):
        raise wrong_mask(store.path, stored, shape[2:])
    return as_mask(store.fetch(name), shape[2:], store.path)


def wrong_mask(path: Path, found: tuple[int, ...], size: tuple[int, ...]) -> InputError:
    """The error for a mask of a shape that does not fit k-space of ``size`` (H, W)."""
    height, width = size
    return InputError(
        f"{path}: the mask has shape {found}, which does not fit k-space of {height} x {width}.",
        "A mask says for each phase line (W,), or for each sample (H, W), whether it was measured.",
        f"Give a mask of shape ({width},) or ({height}, {width}).",
    )


def as_mask(array: np.ndarray, size: tuple[int, ...], path: Path) -> Tensor:
    """A bool mask (W,) or (H, W), true where sampled.

    Raises `InputError` for another size, for values other than 0 and 1, and for a mask of zeros.
    """
    height, width = size
    lean = array.reshape([n for n in array.shape if n != 1] or [1])
    if lean.shape not in ((width,), (height, width)):
        raise wrong_mask(path, array.shape, size)
    if lean.dtype.kind not in "buif" or not np.isfinite(lean).all():
        raise InputError(
            f"{path}: the mask holds {lean.dtype} values that are not yes or no.",
            "A mask is true (1) where k-space was measured and false (0) elsewhere.",
            "Store it as bool.",
        )
    between = lean[(lean != 0) & (lean != 1)]
    if between.size:
        raise InputError(
            f"{path}: the mask holds other values than 0 and 1: {between[0]:.4g}, {between.size} in all.",
            "A sample was measured (1) or it was not (0); a density, or a blurred picture, does not say which.",
            "Decide where it was, and store that: np.save(path, mask > 0.5).",
        )
    mask = torch.from_numpy(np.ascontiguousarray(lean != 0))
    if not mask.any():
        raise InputError(
            f"{path}: the mask keeps nothing.",
            "It is zero everywhere, so no sample is left.",
            "Give a mask that is true where k-space was measured.",
        )
    return mask


def find_maps(store: Store, entries: Mapping[str, ArrayInfo], shape: tuple[int, ...]) -> str | None:
    """The name of the sensitivity maps beside the k-space, checked to fit ``shape``; None if there are none."""
    name = store.find("maps")
    if name is not None:
        check_maps(store, entries[name], shape)
    return name


def check_maps(store: Store, entry: ArrayInfo, shape: tuple[int, ...]) -> None:
    """Raises `InputError` for maps that do not fit k-space of ``shape`` (slices, coils, H, W), or are not complex."""
    found, slices = entry.shape, shape[0]
    fits = found[-3:] == shape[1:] and (len(found) in (3, 4) or (len(found) == 5 and found[0] == slices))
    if not fits or entry.dtype.kind != "c":
        _, coils, height, width = shape
        raise InputError(
            f"{store.path}: sensitivity maps of shape {found} ({entry.dtype}) do not fit this k-space.",
            f"It has {slices} slices and {coils} coils of {height} x {width}: these are another file's maps.",
            f"Give complex maps ([sets,] {coils}, {height}, {width}), or none to have them estimated.",
        )


def maps_of_slice(store: Store, name: str, file: KSpaceFile, index: int) -> Tensor:
    """Maps (sets, coils, H, W) complex64 of one slice; raises `InputError` for NaN and infinity.

    Four axes are (slices, coils, H, W) if the file has several slices and the first axis is as long, else
    (sets, coils, H, W), shared by all slices.
    """
    shape = store.entries()[name].shape
    each = len(shape) == 5 or (len(shape) == 4 and file.slices > 1 and shape[0] == file.slices)
    maps = as_tensor(store.fetch(name, index if each else None), np.complex64)
    maps = maps.reshape(-1, *file.shape[1:])
    if not torch.isfinite(torch.view_as_real(maps)).all():
        raise InputError(
            f"{store.path}: the sensitivity maps of slice {index} have NaN or infinite values.",
            "One such value spoils the whole image.",
            "Compute the maps again, or leave them out to have them estimated.",
        )
    return maps


def as_tensor(array: np.ndarray, dtype: Any) -> Tensor:
    """A contiguous tensor of that dtype; always a copy."""
    return torch.from_numpy(np.array(array, dtype=dtype, order="C"))
