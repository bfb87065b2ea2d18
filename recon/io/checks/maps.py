"""Sensitivity maps from a file: their shape, their scale, and whether they are those of the k-space."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from operators.errors import OperatorError
from operators.fourier import ifft2c
from operators.masks import calibration_region

from ...errors import InputError
from ..cropping import as_tensor
from ..stores import ArrayInfo, Store

NORMALISED = 0.98  # of the largest root sum of squares, that half the pixels of normalised or soft maps have
SLIGHT = 0.02  # a difference from 1 that is not worth a word
LEAST = 1e-4  # of the largest root sum of squares: less is no sensitivity
NEAREST = 12  # samples on each side of the zero frequency, where the signal is far above the noise
MISFIT = 0.7  # share of the centre's energy that maps of another scan explain at most


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
            f"Coils come first: store np.moveaxis(maps, -1, {max(len(found) - 3, 0)})."
            if found[-3:] == (height, width, coils)
            else f"Give complex maps ([sets,] {coils}, {height}, {width}), or none to have them estimated.",
        )


def maps_of_slice(store: Store, name: str, size: tuple[int, ...], index: int) -> Tensor:
    """Maps (sets, coils, H, W) complex64 of one slice of k-space of ``size`` (slices, coils, H, W); raises `InputError` for NaN and infinity.

    Four axes are (slices, coils, H, W) if the file has several slices and the first axis is as long, else
    (sets, coils, H, W), shared by all slices.
    """
    shape = store.entries()[name].shape
    each = len(shape) == 5 or (len(shape) == 4 and size[0] > 1 and shape[0] == size[0])
    maps = as_tensor(store.fetch(name, index if each else None), np.complex64)
    maps = maps.reshape(-1, *size[1:])
    if not torch.isfinite(torch.view_as_real(maps)).all():
        raise InputError(
            f"{store.path}: the sensitivity maps of slice {index} have NaN or infinite values.",
            "One such value spoils the whole image.",
            "Compute the maps again, or leave them out to have them estimated.",
        )
    return maps


def unit_maps(maps: Tensor) -> tuple[Tensor, str]:
    """Maps (sets, coils, H, W) whose largest root sum of squares over the coils is 1, and what was done, in words.

    Weights of soft-SENSE, and several sets, keep their shape. A single set whose root sum of squares varies over all of
    the image, as a sensitivity does that nobody normalised, is divided by it. Raises `InputError` for maps of zeros.
    """
    top = float(maps.abs().max())
    if top == 0:
        raise InputError(
            "The sensitivity maps are zero everywhere.",
            "No coil would receive anything.",
            "Give other maps, or none to have them estimated.",
        )
    strength = torch.linalg.vector_norm(maps / top, dim=1)
    largest = float(strength.max())
    scaled, strength = maps / top / largest, strength / largest
    inside = strength > LEAST
    if len(maps) == 1 and float(strength[inside].median()) < NORMALISED:
        even = torch.where(inside[:, None], scaled / strength[:, None].clamp_min(LEAST), 0)
        return even, "The root sum of squares of the maps varied over the image: it is set to 1."
    if abs(top * largest - 1) > SLIGHT:
        return scaled, f"The largest root sum of squares of the maps was {top * largest:.3g}: it is set to 1."
    return scaled, ""


def explained_energy(maps: Tensor, kspace: Tensor, mask: Tensor) -> tuple[float, float]:
    """The share of the energy of the central k-space that maps explain, as they are and conjugated.

    ``sum_r |sum_c conj(s_c) m_c|^2 / sum_c |s_c|^2`` over ``sum_r sum_c |m_c|^2``, m the coil images of the fully sampled
    centre, r the pixels where a map reaches; several sets are taken as orthogonal. kspace (coils, H, W), mask (H, W) bool.
    (1, 1) where the centre was not sampled.
    """
    try:
        rows, columns = calibration_region(mask)
    except OperatorError:
        return 1.0, 1.0
    height, width = mask.shape
    near = [(torch.arange(n) - n // 2).abs() <= NEAREST for n in (height, width)]
    block = torch.zeros_like(mask)
    block[rows, columns] = True
    centre = kspace * (block & near[0][:, None] & near[1])
    images = ifft2c(centre / kspace.abs().max())
    power = maps.abs().square().sum(1).clamp_min(torch.finfo(torch.float32).tiny)
    reached = maps.abs().amax((0, 1)) > 0
    total = float((images.abs().square().sum(0) * reached).sum())
    shares = [
        float(((one * images).sum(1).abs().square() / power).sum()) / max(total, 1e-30)
        for one in (maps.conj(), maps)
    ]
    return shares[0], shares[1]


def are_conjugated(maps: Tensor, kspace: Tensor, mask: Tensor) -> tuple[bool, str]:
    """Whether maps are those of the k-space with the sign of their phase turned, and what is to be said of their fit."""
    plain, turned = explained_energy(maps, kspace, mask)
    if turned > MISFIT and 1 - turned < (1 - plain) / 2:
        said = f"The maps are conjugated: turned they explain {turned:.0%} of the centre's energy, as they are {plain:.0%}"
        return True, f"{said}. They are turned.".replace("%", " %")
    if plain < MISFIT:
        said = f"The maps explain {plain:.0%} of the energy of the centre of k-space".replace("%", " %")
        return (
            False,
            f"{said}: they are another scan's, or flipped, shifted, or of other coils (or the noise drowns it).",
        )
    return False, ""
