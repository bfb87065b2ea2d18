"""One slice of k-space to its posterior: coils, noise, scale, start, samples. Units of the file in and out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from operators.base import Linear
from operators.coils import noise_level, rss
from operators.fourier import ifft2c
from operators.krylov import cg
from operators.maps.accuracy import error_noise, map_error
from operators.maps.espirit import espirit
from operators.mri import MRI
from operators.per_image import PerImage

from .errors import InputError
from .intervals import magnitude_interval
from .priors import Prior, about
from .problem import Problem
from .registry.objects import make_grid
from .registry.recipe import RECIPE_STARTS, Recipe
from .result import Result
from .runtime.runtime import Runtime
from .sampling import sample_by

TRUSTED = 0.005  # relative error of maps that the user gives: what those of 16 to 24 central lines have
UNWEIGHED = (
    0.006  # relative to the image, the least that a latent prior is given: decoded images have errors too
)


@dataclass(frozen=True)
class SliceResult:
    """A reconstructed slice, full size, in the file's units. H, W are the k-space's.

    ``mean`` (H, W) complex is the mean of the samples, for several map sets the root of their sum of
    squares (real); ``std`` (H, W) of the magnitudes and ``interval`` (2, H, W), low and high end of their
    90 % interval (`intervals.magnitude_interval`), None for one sample; ``samples`` (S, H, W), of an
    ensemble with ``weights`` (S,); ``zero_filled`` (H, W) root sum of squares over the coils; ``sigma_y``
    as used; ``scale`` the value that was 1 in the normalised image; ``residual`` the median over the samples of
    ``||A x - y|| / (sigma_y sqrt(m))``, m real measurements: 1 for samples of the true posterior.
    """

    mean: Tensor
    std: Tensor | None
    interval: Tensor | None
    samples: Tensor
    weights: Tensor | None
    zero_filled: Tensor
    maps: Tensor | None
    sigma_y: float
    scale: float
    residual: float
    network_calls: int
    trace: list[dict[str, float]]
    seconds: float

    @property
    def support(self) -> Tensor:
        """(H, W) bool: where a coil receives anything."""
        if self.maps is None:
            return torch.ones_like(self.zero_filled, dtype=torch.bool)
        return self.maps.abs().amax((0, 1)) > 0


@dataclass(frozen=True, eq=False)
class Normalised:
    """A slice in the prior's units: the image over ``scale``, measurements in units of their noise.

    ``A`` holds ``1 / noise`` in its maps, and its weights what the error of the maps adds to the noise, so that
    slices of different noise make one problem.
    ``start`` (sets, H, W) is the image the sampler starts from; ``noise`` per real component, relative to
    ``scale``.
    """

    index: int
    A: Linear
    y: Tensor
    start: Tensor
    scale: float
    noise: float
    maps: Tensor | None
    zero_filled: Tensor


def reconstruct_slice(
    kspace: Tensor,
    mask: Tensor,
    recipe: Recipe,
    prior,
    runtime: Runtime | None = None,
    *,
    slice_index: int = 0,
    maps: Tensor | None = None,
    watch: Callable | None = None,
) -> SliceResult:
    """One slice from k-space to its posterior, on the runtime's device: `normalise`, then `reconstruct_slices`.

    kspace (coils, H, W) complex; mask (W,) or (H, W), true where sampled; ``maps`` (sets, coils, H, W), None to
    estimate them. ``slice_index`` identifies the slice to the noise. ``watch``: as in `recon.sample`.
    """
    device = (runtime or Runtime(device="cpu")).torch_device()
    one = normalise(kspace.to(device), mask, recipe, index=slice_index, maps=maps)
    return reconstruct_slices([one], recipe, prior, watch)[0]


def normalise(
    kspace: Tensor,
    mask: Tensor,
    recipe: Recipe,
    *,
    index: int = 0,
    maps: Tensor | None = None,
    calibration: Tensor | None = None,
) -> Normalised:
    """``y = M kspace``; maps by ESPIRiT from its centre unless given, noise from its periphery, scale from CG-SENSE.

    The error of the maps counts as noise of its own std in each sample, see `error_noise`: estimated ones are as
    exact as they explain the calibration area, given ones are trusted to `TRUSTED`.

    kspace (coils, H, W) complex; mask (W,) or (H, W), true where sampled; maps (sets, coils, H, W). ``calibration``
    (coils, H, W) is k-space of another scan, zero where not measured, that the maps are estimated from instead. Raises
    `InputError` where the maps see no object.
    """
    mask = torch.as_tensor(mask, device=kspace.device).expand(kspace.shape[-2:])
    y = kspace * mask
    sigma_y = recipe.sigma_y if recipe.sigma_y is not None else float(noise_level(y, mask))
    explained = None
    if maps is None and len(kspace) > 1:
        own = calibration is None
        maps, explained = estimated_maps(
            y if own else calibration,
            mask if own else (calibration != 0).any(0),
            recipe,
            sigma_y if own else None,
        )
    if maps is not None:
        maps = maps.to(kspace)
        A = MRI(mask, maps)
    else:
        A = MRI(mask.to(kspace.real.dtype))
    sense = cg_sense(A, y[None])
    scale = scale_of(sense, index)
    noise = max(sigma_y / scale, recipe.sigma_floor)
    weights = mask.new_ones(mask.shape, dtype=y.real.dtype)
    if maps is not None:
        error = TRUSTED if explained is None else map_error(explained, sense[0])
        weights = (1 + (error_noise(y / scale, mask, error) / noise).square()).rsqrt()
    recipe.refuse_start(RECIPE_STARTS)
    start = {"noise": torch.zeros_like, "cg-sense": torch.clone, "zero-filled": lambda _: A.adjoint(y[None])}
    return Normalised(
        index,
        (1 / noise) * A if maps is None else MRI(mask, maps / noise, weights=weights),
        weights * y / (scale * noise),
        start[recipe.start](sense)[0] / scale,
        scale,
        noise,
        maps,
        rss(ifft2c(y)),
    )


def scale_of(image: Tensor, index: int) -> float:
    """The 99.5th percentile of the magnitudes of an image (1, sets, H, W), of slice ``index``; raises `InputError` for 0."""
    scale = float(torch.quantile(rss(image)[0].flatten().float(), 0.995))
    if not 0 < scale < math.inf:
        raise InputError(
            f"Slice {index} shows no object.",
            "Its image is zero wherever the sensitivity maps see anything: its centre of k-space is noise, or one coil's "
            "noise drowns the others.",
            "Leave the slice out; or weigh the coils by their noise with --whiten, or give maps with --maps.",
        )
    return scale


def estimated_maps(
    kspace: Tensor, mask: Tensor, recipe: Recipe, noise: float | None
) -> tuple[Tensor, Tensor]:
    """Maps (sets, coils, H, W) and eigenvalues (sets, H, W) by `espirit`, as the recipe says.

    k-space (coils, H, W) with ``noise`` per real component.
    """
    maps, values = espirit(
        kspace,
        mask,
        recipe.calibration,
        recipe.kernel,
        noise=noise,
        crop=recipe.crop,
        sets=recipe.sets or 2,
        soft=recipe.soft,
        phase="image",  # the image nearly real, as the prior knows it; no phase vortex from a coil
    )
    sets = recipe.sets or needed_sets(maps)
    return maps[:sets], values[:sets]


def needed_sets(maps: Tensor) -> int:
    """2 where a second map (2, coils, H, W) fits in at least 1 % of the support of the first, else 1.

    An object wider than the field of view folds over itself; there no single map is right.
    """
    first, second = maps.abs().amax(1) > 0
    return 2 if (first & second).sum() >= 0.01 * first.sum() else 1


def cg_sense(A: Linear, y: Tensor, weight: float = 1e-3, steps: int = 30) -> Tensor:
    """``argmin_x ||A x - y||^2 + weight ||x||^2`` (B, sets, H, W) for y (B, *codomain), by ``steps`` CG steps."""
    b = A.adjoint(y)
    return cg(lambda v: A.normal(v) + weight * v, b, steps=steps)


def reconstruct_slices(
    slices: Sequence[Normalised], recipe: Recipe, prior, watch: Callable | None = None
) -> list[SliceResult]:
    """Samples of p(image | k-space) of slices, those of a kind through the network together; see `recon.sample`.

    Of a kind are one size, one number of map sets and one last level (`Recipe.last_level`). A slice's samples do not
    depend on the others: its noise is its index's, its CG steps its own.
    """
    kinds = [(tuple(s.A.domain), recipe.last_level(prior, s.noise)) for s in slices]
    results: dict[int, SliceResult] = {}
    for kind in dict.fromkeys(kinds):
        places = [place for place, other in enumerate(kinds) if other == kind]
        alike = reconstruct_together([slices[place] for place in places], recipe, prior, kind[1], watch)
        results |= zip(places, alike, strict=True)
    return [results[place] for place in range(len(slices))]


def reconstruct_together(
    slices: Sequence[Normalised], recipe: Recipe, prior, end: float, watch: Callable | None
) -> list[SliceResult]:
    """`reconstruct_slices` of slices of a kind, with the last noise level ``end``."""
    started = time.monotonic()
    outside = None if slices[0].maps is None else torch.stack([s.maps.abs().amax(1) == 0 for s in slices])
    latent = about(prior).space.latent
    if outside is not None and not latent:
        prior = empty_outside(prior, slices, recipe.samples)
    unit = UNWEIGHED if latent else 1.0  # gradient steps have units: the image's, |A| at most about 1
    if latent:
        slices = [replace(s, A=min(unit, s.noise) * s.A, y=min(unit, s.noise) * s.y) for s in slices]
    A = slices[0].A if len(slices) == 1 else PerImage(tuple(s.A for s in slices))
    y = torch.stack([s.y for s in slices])
    top = about(prior).usual[1] if recipe.start == "noise" else recipe.sigma_start
    problem = Problem(A, y, sigma=unit)
    result = sample_by(
        recipe,
        problem,
        prior,
        grid=make_grid(recipe.grid, recipe.steps, top, min(end, top / 2)),
        init=torch.stack([s.start for s in slices]),
        images=tuple(s.index for s in slices),
        watch=watch,
    )
    if outside is not None and latent:  # decoded there, and seen by no coil
        result = replace(result, samples=result.samples.masked_fill(outside[:, None], 0))
    seconds = (time.monotonic() - started) / len(slices)
    residuals = problem.repeated(recipe.samples).residual(result.samples.flatten(0, 1))
    means, weights = result.mean, result.weights
    spreads = result.spread(rss(result.samples))  # as the sampler weighs its samples
    return [
        in_file_units(
            s,
            samples,
            mean,
            None if spreads is None else spreads[place],
            None if weights is None else weights[place],
            float(residuals.view(len(slices), -1)[place].median()),
            result,
            seconds,
        )
        for place, (s, samples, mean) in enumerate(zip(slices, result.samples, means, strict=True))
    ]


def empty_outside(prior, slices: Sequence[Normalised], samples: int) -> Prior:
    """The prior where a map reaches; elsewhere the exact denoiser of ``N(0, noise^2)``: there is no object.

    The coils receive nothing from there, so nothing would keep a sample from inventing something.
    """
    reach = torch.stack([s.maps.abs().amax(1) > 0 for s in slices]).repeat_interleave(samples, 0)
    variance = torch.tensor([s.noise**2 for s in slices], device=reach.device)
    variance = variance.repeat_interleave(samples).view(-1, 1, 1, 1)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return torch.where(reach, prior(x, sigma), variance / (variance + sigma**2) * x)

    return Prior(denoise, of=prior)


def in_file_units(
    s: Normalised,
    samples: Tensor,
    mean: Tensor,
    spread: Tensor | None,
    weights: Tensor | None,
    residual: float,
    result: Result,
    seconds: float,
) -> SliceResult:
    """One slice's samples, and what is computed from them, times its scale."""
    samples, mean = s.scale * samples, s.scale * mean
    several = samples.shape[1] > 1
    magnitudes = rss(samples)  # over the map sets
    bounds = magnitude_interval(magnitudes, weights=weights)
    return SliceResult(
        mean=rss(mean) if several else mean[0],
        std=None if spread is None else s.scale * spread,
        interval=None if bounds is None else torch.stack(bounds),
        weights=weights,
        samples=magnitudes.to(samples.dtype) if several else samples[:, 0],
        zero_filled=s.zero_filled,
        maps=s.maps,
        sigma_y=s.noise * s.scale,
        scale=s.scale,
        residual=residual,
        network_calls=result.network_calls,
        trace=result.trace,
        seconds=seconds,
    )
