"""One slice of non-Cartesian k-space in the prior's units; `mri.reconstruct_slices` samples it as any other."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.coils import rss
from operators.noncartesian import (
    NonCartesianMRI,
    density_compensation,
    gridded_centre,
    trajectory_noise_level,
)

from .mri import UNWEIGHED, Normalised, cg_sense, estimated_maps, scale_of
from .registry.recipe import RECIPE_STARTS, Recipe


def normalise_trajectory(
    kspace: Tensor,
    trajectory: Tensor,
    shape: tuple[int, int],
    recipe: Recipe,
    *,
    index: int = 0,
    maps: Tensor | None = None,
) -> Normalised:
    """As `mri.normalise` for samples along a trajectory: maps from the gridded centre, noise from the periphery.

    kspace (coils, readouts, samples) complex; trajectory (readouts, samples, 2) in cycles per pixel, the image of
    ``shape`` (H, W); maps (sets, coils, H, W). `operators.density_compensation` weighs the data for the start, the
    scale and the adjoint (``zero_filled``), not for the samples of the posterior: their likelihood is that of white noise.
    """
    y, density = kspace.flatten(1), density_compensation(trajectory, shape).to(kspace.real)
    sigma_y = recipe.sigma_y if recipe.sigma_y is not None else trajectory_noise_level(kspace, trajectory)
    if maps is None and len(kspace) > 1:
        centre, mask = gridded_centre(y, trajectory, density, shape)
        # The noise of a gridded cell is at most that of a sample: several are averaged.
        maps, _ = estimated_maps(centre, mask, recipe, sigma_y)
    points = trajectory.to(kspace.real)
    maps = None if maps is None else maps.to(kspace)
    weighted = NonCartesianMRI(points, maps, density, shape)
    sense = cg_sense(weighted, density.sqrt() * y[None], weight=1e-2, steps=10)
    scale = scale_of(sense, index)
    noise = max(sigma_y / scale, recipe.sigma_floor, 0 if maps is None else UNWEIGHED)
    alone = NonCartesianMRI(points, density=density, shape=shape)
    adjoint = alone.adjoint((density.sqrt() * y)[:, None])[:, 0]
    recipe.refuse_start(RECIPE_STARTS)
    start = {
        "noise": torch.zeros_like,
        "cg-sense": torch.clone,
        "zero-filled": lambda _: weighted.adjoint(density.sqrt() * y[None]),
    }
    A = NonCartesianMRI(points, None if maps is None else maps / noise, shape=shape)
    return Normalised(
        index,
        (1 / noise) * A if maps is None else A,
        y / (scale * noise),
        start[recipe.start](sense)[0] / scale,
        scale,
        noise,
        maps,
        rss(adjoint),
    )
