"""What reconstructs the scans of the benchmark: classical methods with their best setting, and our samplers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from operators.krylov import cg, operator_norm

from ...intervals import LEVEL
from ...jobs.shared.scans import tomography_recipe
from ...jobs.shared.tomograms import STEPS_OF_FIT, nonnegative_fit
from ...metrics import coverage
from ...posteriors import POSTERIORS
from ...sampling import sample
from ..methods.classical import TV_LAMBDAS, climb, minimise_tv
from .scans import XrayScan

CGLS_STEPS, SIRT_STEPS = (3, 5, 10, 20, 40, 80), (20, 50, 100, 200, 400)


@dataclass(frozen=True)
class Tomographed:
    """An image (slices, H, W), and of ours the share of the body in its 90 % intervals; network calls a sample, seconds."""

    image: Tensor
    seconds: float
    coverage: float | None = None
    network_calls: int = 0
    note: str = ""


@dataclass(frozen=True)
class Budget:
    """The prior, and how many levels and samples our methods take; None for those of ``recon reconstruct``."""

    prior: Any
    steps: int | None = None
    samples: int | None = None


def best_of(scan: XrayScan, settings: tuple, image: Callable[[Any], Tensor], name: str) -> Tomographed:
    """The image with the setting that is best for the reference, which no user has; seconds of one setting."""
    started = time.monotonic()

    def quality(found: Tensor) -> float:
        return next(iter(scan.score(found).values()))

    best, found, tried = climb(settings, image, quality)
    return Tomographed(found, (time.monotonic() - started) / tried, note=f"{name} {best:g}")


def fbp(scan: XrayScan, budget: Budget) -> Tomographed:
    """Filtered back-projection, without what is below air."""
    started = time.monotonic()
    image = (scan.plane.fbp(scan.y)[:, 0] / scan.water).clamp_min(0)
    return Tomographed(image, time.monotonic() - started)


def cgls(scan: XrayScan, budget: Budget) -> Tomographed:
    """Conjugate gradients on the weighted normal equations, stopped early."""
    problem = scan.problem

    def image(steps: int) -> Tensor:
        return planes(cg(problem.A.normal, problem.backprojection, steps=steps, tol=0), scan)  # type: ignore[attr-defined]

    return best_of(scan, CGLS_STEPS, image, "steps")


def sirt(scan: XrayScan, budget: Budget) -> Tomographed:
    """SIRT with momentum and without negative values (`nonnegative_fit`), stopped early."""

    def image(steps: int) -> Tensor:
        return nonnegative_fit(scan.plane, scan.y, steps)[:, 0] / scan.water

    return best_of(scan, SIRT_STEPS, image, "steps")


def weighted_tv(scan: XrayScan, axes: tuple[int, ...]) -> Tomographed:
    """Weighted least squares with total variation along the axes."""
    problem = scan.problem
    size = float(operator_norm(problem.A)) ** 2  # type: ignore[arg-type]
    start = fbp(scan, Budget(None)).image
    start = start[None, None] if scan.volume else start[None]

    def image(value: float) -> Tensor:
        found = minimise_tv(problem.A, problem.backprojection, value * size, start, axes=axes)  # type: ignore[arg-type]
        return planes(found, scan)

    return best_of(scan, TV_LAMBDAS, image, "lambda")


def plane_tv(scan: XrayScan, budget: Budget) -> Tomographed:
    """Total variation in the plane."""
    return weighted_tv(scan, (-2, -1))


def space_tv(scan: XrayScan, budget: Budget) -> Tomographed:
    """Total variation in the plane and across slices."""
    return weighted_tv(scan, (-3, -2, -1))


def planes(image: Tensor, scan: XrayScan) -> Tensor:
    """(1, *domain) as slices (slices, H, W), without negative values."""
    return (image[0, 0] if scan.volume else image[0]).clamp_min(0)


def sampled(name: str) -> Callable[[XrayScan, Budget], Tomographed]:
    """A sampler by its name alone, with the levels and samples of ``recon reconstruct``."""

    def run(scan: XrayScan, budget: Budget) -> Tomographed:
        recipe = tomography_recipe({"sampler": name})
        started = time.monotonic()
        steps = budget.steps or recipe.steps
        init, highest = None, None
        if recipe.start == "fit":
            init, highest = nonnegative_fit(scan.plane, scan.y, STEPS_OF_FIT) / scan.water, recipe.sigma_start
            init = init.movedim(0, 1)[None] if scan.volume else init
        result = sample(
            scan.problem,
            budget.prior,
            name,
            steps=steps,
            samples=budget.samples or recipe.samples,
            init=init,
            sigma_start=highest,
        )
        seconds = time.monotonic() - started
        samples = result.samples[0, :, 0].reshape(len(result.samples[0]), -1, *scan.plane.domain[1:])
        image = (result.mean[0, 0] if scan.volume else result.mean[0]).clamp_min(0)
        held = None
        if scan.reference is not None and len(samples) > 1:
            body = torch.ones_like(scan.reference, dtype=torch.bool) if scan.body is None else scan.body
            held = coverage(scan.reference[body], samples[:, body], level=LEVEL).value
        return Tomographed(image, seconds, held, result.network_calls)

    return run


XRAY_METHODS: dict[str, Callable[[XrayScan, Budget], Tomographed]] = {
    "fbp": fbp,
    "sirt": sirt,
    "cgls": cgls,
    "tv": plane_tv,
    "tv-3d": space_tv,
    **{name: sampled(name) for name in POSTERIORS if name != "prior"},
}
OF_VOLUMES = ("tv-3d", *(name for name, kind in POSTERIORS.items() if kind.of_volumes))
USUAL_METHODS = ("fbp", "sirt", "cgls", "tv", "tv-3d", "dds", "dds-3d", "pigdm", "diffpir")
