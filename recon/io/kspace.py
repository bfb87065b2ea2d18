"""Measured k-space in memory: what a file holds, and one slice of it at a time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .checks.maps import find_maps, maps_of_slice
from .checks.masks import find_mask
from .cropping import as_tensor, center_crop
from .stores import ArrayInfo, Geometry, Header, Store
from .stores.energy import is_encoded
from .trajectory import Trajectory, find_trajectory


@dataclass(frozen=True, eq=False)
class KSpaceSlice:
    """One slice: ``kspace`` (coils, H, W) complex64 in the file's own units, centred.

    ``reference`` (h, w) float32, already of the cropped size; ``mask`` (W,) or (H, W) bool, true
    where sampled; ``maps`` (sets, coils, H, W) complex64; ``calibration`` (coils, H, W) k-space of a scan of its own that
    maps are estimated from, zero where not measured; ``trajectory`` (H, W, 2) where the samples lie, if they are H
    readouts of W samples along one. Each is None where the file has none.
    """

    index: int
    kspace: Tensor
    reference: Tensor | None = None
    mask: Tensor | None = None
    maps: Tensor | None = None
    calibration: Tensor | None = None
    trajectory: Tensor | None = None


@dataclass(frozen=True, eq=False)
class KSpaceFile:
    """What a k-space file holds; no large array is read before `read_slice`.

    ``shape`` is (slices, coils, H, W), H along the readout; ``crop`` (h, w) the size of the image
    that the header asks for, cut from the centre; ``acquired`` the range [first, last) of the phase lines
    that were measured, the rest is zero padding; ``name``, ``reference`` and ``maps`` name arrays of ``store``;
    ``notes`` are sentences about what is unusual; ``geometry`` says where the image's pixels lie. As stored, k-space
    has its centre in the corner along the axes -2 and -1 where ``shifted``, and its image where ``rolled``: a slice
    that is read has both in the middle. Of k-space along a ``trajectory`` H are readouts and W the samples of each,
    and ``crop`` is the size of the image.
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
    shifted: tuple[int, ...] = ()
    rolled: tuple[int, ...] = ()
    trajectory: Trajectory | None = None

    @property
    def image_shape(self) -> tuple[int, int, int, int]:
        """(slices, coils, H, W) of coil images, and so of maps: ``shape`` where k-space is Cartesian."""
        return self.shape if self.trajectory is None else (*self.shape[:2], *self.trajectory.size)

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
            None if self.trajectory is None else self.trajectory.of(index),
        )

    def _kspace(self, index: int) -> Tensor:
        rank = len(self.store.entries()[self.name].shape)
        whole = (rank == 3 and self.store.axes == "coils") if self.trajectory is None else self.slices == 1
        part = self.store.fetch(self.name, None if whole else index)
        with np.errstate(over="ignore"):  # what overflows is found, and refused, by `survey`
            kspace = as_tensor(part.reshape(self.shape[1:]), np.complex64)
        return with_rolled_image(fftshift(kspace, self.shifted), self.rolled)

    def _reference(self, index: int) -> Tensor | None:
        if self.reference is None:
            return None
        return center_crop(as_tensor(np.abs(self.store.fetch(self.reference, index)), np.float32), self.crop)

    def _maps(self, index: int) -> Tensor | None:
        return None if self.maps is None else maps_of_slice(self.store, self.maps, self.image_shape, index)


@dataclass(frozen=True, eq=False)
class Survey:
    """What `survey` found: the ``peak`` of |k|, ``sampled`` (H, W) bool, true where any slice or coil is not
    zero, ``always`` (H, W), true where every slice is not zero, a ``fingerprint`` of the data, and sums of |k|^2:
    ``by_slice`` (slices,), ``by_coil`` (coils,) and ``power`` (H, W), float64."""

    peak: float
    sampled: Tensor
    always: Tensor
    fingerprint: str
    by_slice: np.ndarray
    by_coil: np.ndarray
    power: np.ndarray

    @property
    def alive(self) -> Tensor:
        """(coils,) bool, true where a coil is not zero in some slice."""
        return torch.from_numpy(self.by_coil > 0)

    @property
    def profiles(self) -> tuple[np.ndarray, ...]:
        """The energy at each place along the axes of slices, coils, H and W."""
        return self.by_slice, self.by_coil, self.power.sum(1), self.power.sum(0)

    def moved(self, axes: tuple[int, ...]) -> Survey:
        """That of the same k-space after `fftshift` along ``axes`` of -2 and -1."""
        return replace(
            self,
            sampled=fftshift(self.sampled, axes),
            always=fftshift(self.always, axes),
            power=np.fft.fftshift(self.power, axes),
        )


def survey(file: KSpaceFile, progress: Callable[[int], object] | None = None) -> Survey:
    """Look at every sample, one slice at a time, before any work is done with the file.

    Raises `InputError` for a NaN or infinite sample, also of the reference, and for a slice of zeros, unless the slices
    are partitions of a volume. ``progress`` is called with the number of slices done.
    """
    peak, digest = 0.0, hashlib.blake2b(digest_size=16)
    if file.trajectory is not None:
        digest.update(file.trajectory.points.numpy().data)
    sampled = torch.zeros(file.height, file.width, dtype=torch.bool)
    always = ~sampled
    by_slice, by_coil, power = (np.zeros(size) for size in (*file.shape[:2], file.shape[2:]))
    for index in range(file.slices):
        kspace = file._kspace(index)
        magnitude = kspace.abs()
        size = magnitude.amax(0)
        top = float(size.max())
        if not np.isfinite(top):
            bad = int((~torch.isfinite(magnitude)).sum())
            raise InputError(
                f"{file.path}: slice {index} of k-space has {bad} samples that are NaN or infinite.",
                "One such sample spoils the whole image.",
                "Write the file again from the raw data, or leave this slice out.",
            )
        peak = max(peak, top)
        sampled |= size > 0
        always &= size > 0
        square = magnitude.double().square_()
        by_coil += square.sum((1, 2)).numpy()
        power += square.sum(0).numpy()
        by_slice[index] = float(square.sum())
        refuse_bad_reference(file, index)
        digest.update(kspace.numpy().data)
        if progress is not None:
            progress(index + 1)
    empty = np.flatnonzero(by_slice == 0)
    if empty.size and not is_encoded(by_slice):
        raise InputError(
            f"{file.path}: slice {empty[0]} of k-space is all zeros.",
            "Nothing was measured in it, so there is nothing to reconstruct.",
            "Write the file again from the raw data, or leave this slice out.",
        )
    return Survey(peak, sampled, always, digest.hexdigest(), by_slice, by_coil, power)


def refuse_bad_reference(file: KSpaceFile, index: int) -> None:
    """Raises `InputError` where the reference of a slice has a NaN or infinite value."""
    reference = file._reference(index)
    if reference is not None and not torch.isfinite(reference).all():
        raise InputError(
            f"{file.path}: slice {index} of {file.reference} has NaN or infinite values.",
            "Nothing can be compared with it.",
            f"Compute {file.reference} again, or remove it from the file.",
        )


def fftshift(kspace: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The zero frequency from index 0 to n // 2 along ``axes``."""
    return torch.fft.fftshift(kspace, dim=axes) if axes else kspace


def with_rolled_image(kspace: Tensor, axes: tuple[int, ...]) -> Tensor:
    """k-space, its centre in the middle, of the image moved by m = n - n // 2 along ``axes``, as `torch.fft.ifftshift` does.

    ``k_j exp(-2 pi i (j - n // 2) m / n)``: it undoes what a plain fft2 leaves out.
    """
    for axis in axes:
        n = kspace.shape[axis]
        places = (torch.arange(n, dtype=torch.float64) - n // 2) * (n - n // 2) / n
        ramp = torch.polar(torch.ones_like(places), -2 * math.pi * places).to(kspace.dtype)
        kspace = kspace * ramp.view(n, *(1,) * (-1 - axis))
    return kspace


def kspace_file(store: Store, matrix: Sequence[int] | None = None) -> KSpaceFile:
    """The k-space file in ``store``: names, shapes, header and mask, checked to fit together.

    ``matrix`` (H, W): the size of the image where k-space lies along a trajectory, None for that which the file says.

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
    along = find_trajectory(store, entries[name], matrix)
    header = store.header()
    if along is None:
        shape = kspace_shape(store, entries[name])
        size, crop, said = shape[2:], header.crop(shape[2:]), header.notes(shape[2:])
    else:
        shape, size, crop, said = along.shape, along.size, along.size, []
    reference, notes = find_reference(store, entries, shape, crop, header)
    if along is None and not header.present and reference is not None:
        height, width = entries[reference].shape[-2:]
        crop = (min(height, crop[0]), min(width, crop[1]))
    return KSpaceFile(
        path=store.path,
        format=store.format,
        shape=shape,
        dtype=str(entries[name].dtype),
        crop=crop,
        acquired=header.acquired(shape[3]) if along is None else (0, shape[3]),
        mask=find_mask(store, shape) if along is None else None,
        reference=reference,
        maps=find_maps(store, entries, (*shape[:2], *size)),
        attrs=dict(store.attributes()),
        notes=(*said, *store.notes(), *notes),
        geometry=store.geometry(size),
        name=name,
        store=store,
        trajectory=along,
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
