"""Slices of a planned file: read, normalised, and sampled together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from torch import Tensor

from operators.coils import mix, rss
from operators.fourier import ifft2c

from ...io import center_crop, crop_readout, read_maps
from ...io.acquisition import sampled_in
from ...io.checks.maps import unit_maps
from ...mri import Normalised, SliceResult, normalise, reconstruct_slices
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
    for _, group in groupby(slices, key=lambda one: one.A.domain):  # one set of maps, or two
        alike = list(group)

        def watch(step: int, state: Any, residual: float, count: int = len(alike)) -> None:
            bar.set_postfix(residual=f"{residual:.3g}", refresh=False)
            bar.update(count)

        results = reconstruct_slices(alike, settings.recipe, prior, watch)
        for one, result in zip(alike, results, strict=True):
            yield one.index, references[one.index], result


def read_normalised(plan: PlannedFile, settings: Settings, index: int) -> tuple[Normalised, Tensor | None]:
    """A slice on the device, as the prior takes it, and its reference if there is one."""
    piece = plan.file.read_slice(index)
    kspace, maps = piece.kspace, piece.maps
    mask = sampled_in(kspace, plan.acquisition.mask)
    if plan.maps is not None:
        maps = read_maps(plan.maps, plan.file, index)
    if maps is not None:
        maps = unit_maps(maps)[0]
        maps = maps.conj().resolve_conj() if plan.conjugated else maps
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


def reference_of(plan: PlannedFile, kspace: Tensor, stored: Tensor | None) -> Tensor | None:
    """The file's own reference, else the root sum of squares of k-space of which samples are left out; (h, w).

    Whitened coils weigh the image in another way than the file's: its own reference is then none.
    """
    if (stored is not None and not plan.whitened) or not plan.acquisition.simulated:
        return None if plan.whitened else stored
    return center_crop(rss(ifft2c(mix(plan.mixing.whitening.to(kspace), kspace))), plan.file.crop)
