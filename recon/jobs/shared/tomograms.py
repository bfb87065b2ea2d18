"""Sinograms to their posterior: the operator of a scan, the scale of its images, samples in the units of the file."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.ct import CT
from operators.stacked import Stacked

from ...errors import InputError
from ...intervals import interval
from ...io.tomography.sinogram import Beam, Sinogram
from ...priors import slicewise
from ...problem import Problem
from ...registry.recipe import Recipe
from ...sampling import sample_by

FULL = 150.0  # degrees: views over less are not enough for filtered back-projection to tell attenuation
FEW_VIEWS = 20
STEPS_OF_FIT = 50  # of the fit in its place, and of that which DDS starts at
BLURRED = 1.5  # pixels, before attenuation is told from air


@dataclass(frozen=True)
class Tomogram:
    """Reconstructed slices (slices, H, W) of one sinogram, or of a volume seen together; attenuation per unit of length.

    ``samples`` (slices, S, H, W), ``interval`` (slices, 2, H, W) and ``std`` None for one sample; ``fbp`` by filtered
    back-projection. ``residual``: the median over the samples of ``||A x - y||`` in units of the noise and of
    the number of rays, 1 for samples of the true posterior.
    """

    mean: Tensor
    std: Tensor | None
    interval: Tensor | None
    samples: Tensor
    fbp: Tensor
    residual: float
    network_calls: int
    seconds: float


def operator_of(
    beam: Beam, axis: float, angles: np.ndarray, shape: Sequence[int], size: int, pixel: float
) -> CT:
    """The `CT` of a scan with rays ``shape`` (angles, detectors), of a cone beam (angles, rows, detectors).

    A cone beam sees as many slices, of the thickness of ``pixel``, as its rows show at the axis.
    """
    more: dict[str, Any] = {}
    if beam.kind != "parallel":
        more |= {"source": beam.source, "detector": beam.detector}
    if beam.kind == "cone":
        rows = shape[-2]
        more |= {"rows": rows, "slices": max(1, round(rows * beam.pitch / beam.magnification / pixel))}
    turns = torch.from_numpy(np.ascontiguousarray(angles))
    return CT(size, turns, beam.kind, shape[-1], pitch=beam.pitch, axis=axis, pixel=pixel, **more)


def rays_of(sinogram: Sinogram, indices: Sequence[int]) -> Tensor:
    """Measurements (slices, 1, angles, detectors) of slices; of a cone beam (1, 1, angles, rows, detectors), of all."""
    return as_measured(sinogram.data, sinogram, indices)


def as_measured(array: np.ndarray, sinogram: Sinogram, indices: Sequence[int]) -> Tensor:
    """An array of a sinogram's shape as `rays_of`."""
    taken = array[None, None] if sinogram.volume else array[list(indices)][:, None]
    return torch.from_numpy(np.ascontiguousarray(taken, np.float32))


def bulk_attenuation(A: CT, y: Tensor, covered: float) -> float:
    """The attenuation of what most of an object is made of: the median of its image where Otsu's threshold says object.

    The image is the filtered back-projection, slightly blurred; of few views, or over less than 150 degrees,
    `nonnegative_fit`. y (1, *codomain). Raises `InputError` where the image shows nothing.
    """
    from scipy.ndimage import gaussian_filter
    from skimage.filters import threshold_otsu

    with torch.no_grad():
        if covered >= FULL and len(A.angles) >= FEW_VIEWS:
            image = A.fbp(y)
        else:
            image = nonnegative_fit(A, y, STEPS_OF_FIT)
    found = image[0, 0].double().cpu().numpy()
    found = gaussian_filter(found, (*[0] * (found.ndim - 2), BLURRED, BLURRED))
    if not np.isfinite(found).all() or not found.max() > 0:
        raise InputError(
            "The sinogram shows no object.", "Its back-projection is nowhere above 0.", "Check it."
        )
    return float(np.median(found[found > threshold_otsu(found)]))


def nonnegative_fit(A: CT, y: Tensor, steps: int) -> Tensor:
    """``argmin_{x >= 0} ||A x - y||^2`` by ``steps`` of SIRT, ``x += C A^T R (y - A x)``, with Nesterov's momentum.

    R and C are one over the sums of the rows and of the columns of A; y (B, *codomain). Source: Gregor and Benson, IEEE TMI
    27 (2008); momentum as in Beck and Teboulle, SIAM Journal on Imaging Sciences 2 (2009).
    """
    rows = A.forward(torch.ones_like(A.adjoint(y[:1]))).clamp_min(1e-3 * A.pixel)
    columns = A.adjoint(torch.ones_like(y[:1])).clamp_min(1e-3 * A.pixel)
    x = ahead = torch.zeros_like(columns).expand(len(y), *columns.shape[1:])
    pace = 1.0
    for _ in range(steps):
        found = (ahead + A.adjoint((y - A.forward(ahead)) / rows) / columns).clamp_min(0)
        following = (1 + math.sqrt(1 + 4 * pace**2)) / 2
        x, ahead, pace = found, found + (pace - 1) / following * (found - x), following
    return x


def reconstruct_tomograms(
    A: CT,
    y: Tensor,
    std: Tensor,
    water: float,
    recipe: Recipe,
    prior: Any,
    levels: Sequence[float],
    indices: Sequence[int] = (0,),
    watch: Callable | None = None,
    joined: bool = False,
) -> list[Tomogram]:
    """Samples of p(image | rays) by weighted least squares, the prior's images being attenuation over ``water``.

    y and std (slices, *A.codomain), as `rays_of`; a volume of a cone beam is one of them, whose slices go through the prior
    one by one. ``levels``: of the walk, for images in units of water; ``indices`` identify slices to the noise.
    ``watch``: as in `recon.sample`. ``joined``: the slices are neighbours and one volume, the only tomogram; a sampler of volumes
    then lets them help each other, and the first index stands for all.
    """
    started = time.monotonic()
    volume = joined or len(A.domain) == 4
    with torch.no_grad():
        fbp = A.fbp(y)
    fbp = fbp[:, 0][None] if joined else fbp[:, 0]
    if joined:
        problem = Problem(water * Stacked(A, len(y)), y[None], sigma=std[None])
        indices = indices[:1]
    else:
        problem = Problem(water * A, y, sigma=std)
    init = None
    if recipe.start == "fit":
        with torch.no_grad():
            init = nonnegative_fit(A, y, STEPS_OF_FIT) / water
        init = init.movedim(0, 1)[None] if joined else init
    result = sample_by(
        recipe,
        problem,
        slicewise(prior) if volume else prior,
        grid=list(levels),
        init=init,
        images=tuple(indices),
        watch=watch,
    )
    seconds = (time.monotonic() - started) / len(y)
    residuals = problem.repeated(recipe.samples).residual(result.samples.flatten(0, 1))
    residuals = residuals.view(len(problem.y), -1)
    found = []
    for place in range(len(problem.y)):
        samples = water * result.samples[place][:, 0]
        weights = None if result.weights is None else result.weights[place]
        bounds = interval(samples, weights=weights)
        mean = water * result.mean[place][0]
        spread = None if result.std is None else water * result.std[place][0]
        low_high = None if bounds is None else torch.stack(bounds)
        found.append(
            Tomogram(
                mean if volume else mean[None],
                spread if volume or spread is None else spread[None],
                low_high if low_high is None else low_high.movedim(0, 1) if volume else low_high[None],
                samples.movedim(0, 1) if volume else samples[None],
                fbp[place] if volume else fbp[place][None],
                float(residuals[place].median()),
                result.network_calls,
                seconds,
            )
        )
    return found
