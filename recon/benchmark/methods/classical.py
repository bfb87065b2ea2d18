"""Reconstructions without a prior network: back-projection, least squares, FBP, total variation, wavelets.

Every method is ``method(scene, calls, samples, seed, **options) -> Answer`` with one image and no network
calls; ``calls``, ``samples`` and ``seed`` are ignored.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from operators.base import Identity, Linear, LinearChain, Operator, Scale
from operators.complexify import Complexified
from operators.differences import Difference
from operators.krylov import cg, inner, operator_norm
from operators.mri import MRI
from operators.per_image import PerImage

from ...errors import ConfigError
from ..answer import Answer
from ..scene import Scene
from .bart import BART_LAMBDAS, bart_maps, bart_wavelets

TV_LAMBDAS = (
    1e-5,
    3e-5,
    1e-4,
    2e-4,
    3e-4,
    5e-4,
    1e-3,
    2e-3,
    3e-3,
    5e-3,
    1e-2,
    2e-2,
    5e-2,
    0.1,
    0.2,
)  # times ||A||^2
Steps = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Weights = Annotated[Sequence[Weight], Field(min_length=1)]
EDGE = 0.1  # of the largest pixel: the shrinkage threshold of TV's ADMM


def adjoint(scene: Scene, calls: int | None, samples: int, seed: int) -> Answer:
    """``s A^H y`` with the scale s that minimises ``||s A A^H y - y||``: zero-filled, or back-projection."""

    def image() -> Tensor:
        back = scene.A.adjoint(scene.problem.y)
        measured = scene.A.forward(back)
        power = inner(measured, measured)
        return back * torch.where(power > 0, inner(measured, scene.problem.y) / power, 0).flatten()

    return timed(image)


def least_squares(
    scene: Scene, calls: int | None, samples: int, seed: int, weight: Weight = 1e-2, steps: Steps = 50
) -> Answer:
    """``argmin ||A x - y||^2 + weight ||A||^2 ||x||^2`` by CG; for coils CG-SENSE.

    A weight of .01, relative to ``||A||^2``, damps the components that the operator passes with less than a
    tenth of its largest gain, in any units. With the maps of MRI ``||A|| <= 1``: CG-SENSE's usual weight.
    """
    A = scene.A

    def image() -> Tensor:
        damping = weight * norm_squared(scene)
        solved = A.solve_normal(scene.problem.backprojection, damping)
        if solved is not None:
            return solved
        return cg(lambda v: A.normal(v) + damping * v, scene.problem.backprojection, steps=steps)

    return timed(image, weight=weight)


def fbp(scene: Scene, calls: int | None, samples: int, seed: int) -> Answer:
    """The operator's filtered back-projection, also of complex images and of an operator times a scale.

    Raises `ConfigError` for operators without one.
    """
    core, factor = unscaled(scene.problem.A)
    plain: Any = core.inner if isinstance(core, Complexified) else core
    if not hasattr(plain, "fbp"):
        raise ConfigError(
            f"{scene.problem.A!r} has no filtered back-projection.",
            "That inverts projections along lines.",
            "Use it with operators.CT.",
        )
    y = scene.problem.y / factor
    return timed(lambda: core.on_both_parts(plain.fbp, y) if isinstance(core, Complexified) else plain.fbp(y))


def tv(
    scene: Scene,
    calls: int | None,
    samples: int,
    seed: int,
    lambdas: Weights = TV_LAMBDAS,
    steps: Steps = 60,
    inner_steps: Steps = 15,
) -> Answer:
    """``argmin 1/2 ||A x - y||^2 + lambda ||A||^2 ||grad x||_{2,1}``, with the best of ``lambdas`` for the reference.

    No user has that reference. The note "lambda" is the chosen one; ``seconds`` are those of one lambda.
    """
    A = scene.A
    started = time.monotonic()
    size = norm_squared(scene)

    def image(value: float) -> Tensor:
        return minimise_tv(A, scene.problem.backprojection, value * size, scene.start, steps, inner_steps)

    best, found, tried = climb(lambdas, image, lambda image: quality(image, scene))
    return point(found, (time.monotonic() - started) / tried, {"lambda": best})


def minimise_tv(
    A: Linear,
    b: Tensor,
    weight: float,
    start: Tensor,
    steps: int = 60,
    inner_steps: int = 15,
    axes: tuple[int, ...] = (-2, -1),
) -> Tensor:
    """``argmin 1/2 x^H A^H A x - Re x^H b + weight sum_pixels |grad x|_2`` (1, *domain), ``b = A^H y``.

    Isotropic, along ``axes``, free boundary; the gradient of a pixel is one vector over directions, channels, real and
    imaginary part. ADMM with ``z = grad x``: the image by warm-started CG, z by shrinking vectors by
    ``weight / rho``, which is `EDGE` times the largest pixel of ``start``.
    Source: Goldstein and Osher, SIAM J. Imaging Sci. 2:323 (2009).
    """
    if weight <= 0:
        raise ConfigError(
            f"lambda is {weight}.", do="Make it positive, or use least-squares, which has no penalty."
        )
    D = Difference(tuple(A.domain), axes, complex_domain=A.complex_domain)
    threshold = EDGE * float(start.abs().max())
    rho = weight / threshold if threshold > 0 else weight
    x = start
    z = D.forward(x)
    u = torch.zeros_like(z)
    for _ in range(steps):
        x = cg(
            lambda v: A.normal(v) + rho * D.normal(v),
            b + rho * D.adjoint(z - u),
            start=x,
            steps=inner_steps,
            tol=1e-6,
        )
        u = u + D.forward(x)
        length = u.abs().square().sum((1, 2), keepdim=True).sqrt()
        z = u * (1 - weight / rho / length.clamp_min(weight / rho))
        u = u - z
    return x


def wavelets(
    scene: Scene, calls: int | None, samples: int, seed: int, lambdas: Weights = BART_LAMBDAS
) -> Answer:
    """BART's ``ecalib`` and ``pics -R W`` of multi-coil MRI, with the best of ``lambdas`` for the reference.

    BART estimates its own maps; its magnitudes are taken as the image of the first set. Raises
    `ConfigError` without the ``bart`` program, and for other operators. ``seconds`` as in `tv`.
    """
    core, factor = unscaled(scene.problem.A)
    if not isinstance(core, MRI) or core.maps is None:
        raise ConfigError(f"BART's wavelets were asked for {scene.problem.A!r}.", "They need multi-coil MRI.")
    if shutil.which("bart") is None:
        raise ConfigError("The program bart was not found.", do="Install BART, or leave wavelets out.")
    y = (scene.problem.y[0] / factor).cpu()
    started = time.monotonic()
    maps = bart_maps(y)
    mapped = time.monotonic()
    best, found, tried = climb(
        lambdas,
        lambda value: as_image(bart_wavelets(y, value, maps), scene.start),
        lambda image: quality(image, scene),
    )
    seconds = mapped - started + (time.monotonic() - mapped) / tried
    return replace(point(found, seconds, {"lambda": best}), phase=False)


def as_image(magnitude: Tensor, like: Tensor) -> Tensor:
    """Magnitudes (H, W) as the first set of images (1, sets, H, W)."""
    image = torch.zeros_like(like)
    image[0, 0] = magnitude.to(image)
    return image


CLASSICAL: dict[str, Callable[..., Answer]] = {
    "adjoint": adjoint,
    "least-squares": least_squares,
    "fbp": fbp,
    "tv": tv,
    "wavelets": wavelets,
}


def unscaled(A: Operator) -> tuple[Any, complex]:
    """``(C, c)`` with ``A = c C`` and no `Scale` around C, so that ``y / c`` are measurements of C."""
    if isinstance(A, PerImage) and len(A.operators) == 1:
        return unscaled(A.operators[0])
    if isinstance(A, LinearChain):
        for scale, other in ((A.inner, A.outer), (A.outer, A.inner)):
            if isinstance(scale, Scale):
                core, factor = unscaled(other)
                return core, factor * scale.factor
    if isinstance(A, Complexified):
        core, factor = unscaled(A.inner)
        return Complexified(core), factor
    if isinstance(A, Scale):
        return Identity(tuple(A.domain), A.complex_domain), A.factor
    return A, 1.0


def climb(
    values: Sequence[float], make: Callable[[float], Tensor], score: Callable[[Tensor], float]
) -> tuple[float, Tensor, int]:
    """(value, image, values tried): of rising ``values`` one whose image scores higher than both neighbours'.

    From the middle uphill: the best of all where the score has one peak, as that of a penalty's weight has.
    """
    values = sorted(values)
    made: dict[int, tuple[float, Tensor]] = {}

    def height(place: int) -> float:
        if not 0 <= place < len(values):
            return -math.inf
        if place not in made:
            image = make(values[place])
            made[place] = score(image), image
        return made[place][0]

    top = len(values) // 2
    while height(higher := max((top - 1, top + 1), key=height)) > height(top):
        top = higher
    return values[top], made[top][1], len(made)


def norm_squared(scene: Scene) -> float:
    """``||A||^2`` of the scene's operator."""
    return float(operator_norm(scene.A)) ** 2


def quality(image: Tensor, scene: Scene) -> float:
    """PSNR in dB of an image (1, *domain)."""
    return scene.scores(image[0])["psnr"]


def timed(image: Callable[[], Tensor], **notes: float | str) -> Answer:
    """The answer of a method that computes one image, with the seconds that it takes."""
    started = time.monotonic()
    with torch.no_grad():
        x = image()
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
    return point(x, time.monotonic() - started, notes)


def point(image: Tensor, seconds: float, notes: dict[str, float | str]) -> Answer:
    """The answer of a method that gives one image (1, *domain)."""
    return Answer(image, image[0], 0, seconds, notes=notes)
