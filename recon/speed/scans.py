"""Products of computed tomography beside deepinv's, ASTRA's where it is installed, and the two backends."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from operators import CT

from .timing import Comparison, Timed, interleaved, versus

SIZE, VIEWS = 256, 180


def ct_products(repetitions: int) -> list[Comparison]:
    """A and its adjoint of CT, a fit and its gradient, and the backends: 256 x 256, 180 views of a parallel beam."""
    from deepinv.physics import Tomography

    angles = [180.0 * view / VIEWS for view in range(VIEWS)]
    ours, free = CT(SIZE, angles, backend="stored"), CT(SIZE, angles, backend="gathered")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = Tomography(angles=VIEWS, img_width=SIZE, normalize=False)
    x = torch.rand(1, 1, SIZE, SIZE)
    y, z = ours.forward(x), theirs.A(x)
    repetitions = max(3, repetitions // 4)
    what = f"{SIZE} x {SIZE}, {VIEWS} views"

    def fit(project: Callable[[Tensor], Tensor], measured: Tensor) -> Timed:
        def value_and_gradient() -> tuple[Tensor, ...]:
            image = x.clone().requires_grad_()
            value = (project(image) - measured).square().sum()
            return value, *torch.autograd.grad(value, image)

        return value_and_gradient

    found = [
        versus(f"CT A, {what}", lambda: ours.forward(x), lambda: theirs.A(x), "at least 10", repetitions),
        versus(
            f"CT A^T, {what}",
            lambda: ours.adjoint(y),
            lambda: theirs.A_adjoint(z),
            "at least 10",
            repetitions,
        ),
        versus(
            f"CT fit and gradient, {what}",
            fit(ours.forward, 0.9 * y),
            fit(theirs.A, 0.9 * z),
            "at least 20",
            repetitions,
        ),
    ]
    for name, stored, gathered in (
        ("A", lambda: ours.forward(x), lambda: free.forward(x)),
        ("A^T", lambda: ours.adjoint(y), lambda: free.adjoint(y)),
    ):
        a, b = interleaved(stored, gathered, repetitions=repetitions)
        found.append(Comparison(f"CT {name}, {what}", a, b, b / a, "gathered over stored", "at most 4"))
    return found + against_astra(ours, x, repetitions, what)


def against_astra(ours: CT, x: Tensor, repetitions: int, what: str) -> list[Comparison]:
    """The same products beside ASTRA's projector on the processor, of linear interpolation like ours; none without it."""
    try:
        import astra  # pyright: ignore[reportMissingImports]
    except ImportError:
        return []
    turns = [math.radians(angle) for angle in ours.angles]
    plane = astra.create_vol_geom(ours.size, ours.size)
    projector = astra.create_projector(
        "linear", astra.create_proj_geom("parallel", 1.0, ours.detectors, turns), plane
    )
    image, y = x[0, 0].numpy(), ours.forward(x)
    rays = y[0, 0].numpy()

    def release(made: tuple[int, Any]) -> None:
        astra.data2d.delete(made[0])

    pairs = [
        ("A", lambda: ours.forward(x), lambda: release(astra.create_sino(image, projector))),
        ("A^T", lambda: ours.adjoint(y), lambda: release(astra.create_backprojection(rays, projector))),
    ]
    found = [
        versus(f"CT {name}, {what}", mine, its, "at least 1", repetitions, "ASTRA")
        for name, mine, its in pairs
    ]
    astra.projector.delete(projector)
    return found
