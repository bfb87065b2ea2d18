"""Slices of a planned file: read, normalised, and sampled together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from operators.coils import mix, rss
from operators.fourier import ifft2c
from operators.noncartesian import density_compensation, gridded_coils

from ...io import center_crop, crop_readout, read_maps
from ...io.acquisition import sampled_in
from ...io.checks.maps import unit_maps
from ...mri import Normalised, SliceResult, normalise, reconstruct_slices
from ...noncartesian import normalise_trajectory
from .memory import slices_at_once
from .planning import PlannedFile
from .settings import Settings


def batches(plan: PlannedFile, indices: Sequence[int], settings: Settings, prior: Any) -> list[Sequence[int]]:
    """``indices`` in pieces of as many slices as are sampled together."""
    size = slices_at_once(plan.size, plan.coils, settings, prior)
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def reconstruct_some(
    plan: PlannedFile, settings: Settings, prior: Any, indices: Sequence[int], bar: Any
) -> Iterator[tuple[int, Tensor | None, SliceResult]]:
    """Read the slices ``indices`` and sample them together; yields (index, `reference_of`, result) of each.

    ``bar`` is a tqdm bar that advances by one for each noise level of each slice.
    """
    references, slices = {}, []
    for index in indices:
        one, references[index] = read_normalised(plan, settings, index)
        slices.append(one)

    def watch(step: int, state: Any, residual: float) -> None:
        bar.set_postfix(residual=f"{residual:.3g}", refresh=False)
        bar.update(len(state.x) // settings.recipe.samples)

    results = reconstruct_slices(slices, settings.recipe, prior, watch)
    for one, result in zip(slices, results, strict=True):
        yield one.index, references[one.index], result


def read_normalised(plan: PlannedFile, settings: Settings, index: int) -> tuple[Normalised, Tensor | None]:
    """A slice on the device, as the prior takes it, and its reference if there is one."""
    if plan.file.trajectory is not None:
        return read_along_trajectory(plan, settings, index)
    piece = plan.file.read_slice(index)
    kspace, maps = piece.kspace, piece.maps
    mask = sampled_in(kspace, plan.acquisition.mask)
    maps = given_maps(plan, index, maps)
    if plan.cropped_readout:
        kspace, mask = crop_readout(kspace, plan.size[0]), mask.all(0).expand(plan.size)
        maps = None if maps is None else center_crop(maps, plan.size)
    mixed = (None if array is None else plan.mixing(array) for array in (kspace, maps, piece.calibration))
    kspace, maps, calibration = mixed
    device = settings.runtime.torch_device()
    one = normalise(
        kspace.to(device),
        mask,
        settings.recipe,
        index=index,
        maps=maps,
        calibration=None if calibration is None else calibration.to(device),
    )
    return one, reference_of(plan, piece.kspace, piece.reference)


def given_maps(plan: PlannedFile, index: int, maps: Tensor | None) -> Tensor | None:
    """The maps of a slice, those of the plan before the file's own ``maps``, normalised; None where none are given."""
    if plan.maps is not None:
        maps = read_maps(plan.maps, plan.file, index)
    if maps is None:
        return None
    maps = unit_maps(maps)[0]
    return maps.conj().resolve_conj() if plan.conjugated else maps


def read_along_trajectory(
    plan: PlannedFile, settings: Settings, index: int
) -> tuple[Normalised, Tensor | None]:
    """`read_normalised` of non-Cartesian k-space: the readouts that are used, and those of the slice that are not zero."""
    piece, size, device = plan.file.read_slice(index), plan.size, settings.runtime.torch_device()
    assert piece.trajectory is not None
    measured = (piece.kspace != 0).any(0).any(1)
    used = plan.acquisition.mask.any(1) & measured
    maps = given_maps(plan, index, piece.maps)
    one = normalise_trajectory(
        plan.mixing(piece.kspace)[:, used].to(device),
        piece.trajectory[used].to(device),
        size,
        settings.recipe,
        index=index,
        maps=None if maps is None else plan.mixing(maps),
    )
    if plan.whitened or (piece.reference is None and not plan.acquisition.simulated):
        return one, None
    if piece.reference is not None:
        return one, piece.reference
    points = piece.trajectory[measured].to(device)
    every = piece.kspace[:, measured].to(device).flatten(1)
    return one, rss(gridded_coils(every, points, density_compensation(points, size), size)).cpu()


def reference_of(plan: PlannedFile, kspace: Tensor, stored: Tensor | None) -> Tensor | None:
    """The file's own reference, else the root sum of squares of k-space of which samples are left out; (h, w).

    Whitened coils weigh the image in another way than the file's: its own reference is then none.
    """
    if (stored is not None and not plan.whitened) or not plan.acquisition.simulated:
        return None if plan.whitened else stored
    return center_crop(rss(ifft2c(mix(plan.mixing.whitening.to(kspace), kspace))), plan.file.crop)
