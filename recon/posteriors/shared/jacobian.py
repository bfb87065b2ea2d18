"""Jacobians' transposes, of the network and of the operator, for samplers that take gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from operators.base import Linear, Operator

from ...errors import ConfigError
from ...problem import Problem

Pullback = Callable[..., Tensor]
"""``pull(v, again=False)``: ``J^T v``; ``again=True`` keeps the graph for one more call."""


def with_pullback(prior, x: Tensor, sigma: float) -> tuple[Tensor, Pullback]:
    """``D = prior(x, sigma)``, detached, and ``v -> J^T v`` with ``J = dD/dx``; all of the shape of x.

    Complex tensors count as pairs of real numbers: ``J^T`` is that of the real view, so that
    ``Re <v, J w> = Re <J^T v, w>``. The graph lives as long as the pullback, or until the first call
    without ``again``. Raises `ConfigError` for a prior that leaves no graph.
    """
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        clean = prior(point, sigma)
    if not clean.requires_grad:
        raise ConfigError(
            "The prior gave an image without a gradient.",
            "This sampler differentiates through the prior, which ran under no_grad or detached its input.",
            'Remove that from the prior, or take a sampler that needs no gradient: "dds".',
        )

    def pull(v: Tensor, again: bool = False) -> Tensor:
        return torch.autograd.grad(clean, point, v, retain_graph=again)[0]

    return clean.detach(), pull


def residual_and_pull(A: Operator, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """``r = y - A(x)`` and ``A'(x)^H r``, which is ``A^H r`` for a linear A; any differentiable A."""
    if A.linear:
        r = y - A.forward(x)
        return r, cast(Linear, A).adjoint(r)
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        image = A.forward(point)
    r = y - image.detach()
    return r, torch.autograd.grad(image, point, r)[0]


def misfit_descent(problem: Problem, x: Tensor) -> Tensor:
    """``A'(x)^H (y - A(x))``, the descent of ``||A(x) - y||^2 / 2``; by the normal operator where A is linear."""
    if problem.A.linear:
        return problem.backprojection - cast(Linear, problem.A).normal(x)
    return residual_and_pull(problem.A, x, problem.y)[1]


@dataclass(frozen=True)
class Linearised:
    """A at a point x: its ``residual = y - A(x)``, ``push(v) = A'(x) v`` and ``pull(w) = A'(x)^H w``.

    A has to be differentiable twice: the push is the derivative of the pull, which is linear in w.
    """

    residual: Tensor
    push: Callable[[Tensor], Tensor]
    pull: Callable[[Tensor], Tensor]

    @classmethod
    def at(cls, A: Operator, x: Tensor, y: Tensor) -> Linearised:
        """A linearised at ``x`` (rows, *domain), for measurements ``y``; its graph lives as long as the result."""
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            image = A.forward(point)
            w = torch.zeros_like(image).requires_grad_()
            (pulled,) = torch.autograd.grad(image, point, w, create_graph=True)

        def push(v: Tensor) -> Tensor:
            return torch.autograd.grad(pulled, w, v, retain_graph=True)[0]

        def pull(w: Tensor) -> Tensor:
            return torch.autograd.grad(image, point, w, retain_graph=True)[0]

        return cls(y - image.detach(), push, pull)


def per_row(factor: Tensor, like: Tensor) -> Tensor:
    """One number for each row, (rows,), shaped to multiply images like ``like``."""
    return factor.view(-1, *[1] * (like.ndim - 1))


def tolerance(tol: float | None, x: Tensor) -> float:
    """The relative residual at which CG stops; by default 100 roundings of x's dtype: below, it amplifies rounding."""
    return 100 * torch.finfo(x.dtype).eps if tol is None else tol


def singular_tolerance(tol: float | None, x: Tensor) -> float:
    """The same for a singular system, never below the default: CG would divide by the rounding of the null space."""
    return max(tolerance(None, x), tol or 0.0)
