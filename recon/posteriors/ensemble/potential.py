"""The measurements as a potential: ``mu(x) = ||A x - y||^2 / (2 sigma_y^2)``, the likelihood being ``exp(-mu)``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from operators.base import Linear

from ...problem import Problem, inner64
from ..shared.jacobian import per_row
from ..shared.norms import squared_sizes

TRACE_PROBES = 64
EXACT_TRACE = 1024  # images of as many real numbers or fewer: the trace by a basis

Each = float | Tensor
"""One number for all rows, or one a row, (rows,)."""


@dataclass(frozen=True)
class Potential:
    """``mu`` of a problem with ``sigma > 0``, a row each, in float64; any operator.

    The inner products are real ones and sigma is per real component, so that every formula holds for complex
    images as it stands.
    """

    problem: Problem

    def given(self, problem: Problem) -> Potential:
        """That of other measurements; ``||A||`` is not computed again where the operator is the same."""
        other = Potential(problem)
        known = vars(self).get("norm_squared")
        if problem.A is self.problem.A and isinstance(known, float):
            vars(other)["norm_squared"] = known
        return other

    def __call__(self, x: Tensor) -> Tensor:
        """``mu(x)`` (rows,)."""
        return self.of_residual(self.problem.A.forward(x) - self.problem.y)

    def of_residual(self, residual: Tensor) -> Tensor:
        """``||r||^2 / (2 sigma^2)`` (rows,)."""
        return inner64(residual, residual) / (2 * self.problem.sigma**2)

    def gradient(self, x: Tensor) -> Tensor:
        """``A^H (A x - y) / sigma^2``; by autograd where A is not linear."""
        return self.with_gradient(x)[1]

    def with_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``mu(x)`` and its gradient, from one residual."""
        A, y, precision = self.problem.A, self.problem.y, 1 / self.problem.sigma**2
        if A.linear:
            residual = A.forward(x) - y
            return self.of_residual(residual), precision * cast(Linear, A).adjoint(residual)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            residual = A.forward(x) - y
            (gradient,) = torch.autograd.grad(residual, x, residual.detach())
        return self.of_residual(residual.detach()), precision * gradient

    @cached_property
    def norm_squared(self) -> Each:
        """``||A||_2^2`` of a linear operator, of each row's own, by power iteration; ``lipschitz^2`` of others, or 1."""
        found = squared_sizes(self.problem)
        return self.each(found) if isinstance(found, Tensor) else found

    @cached_property
    def largest_norm_squared(self) -> float:
        """The largest of all rows."""
        return float(torch.as_tensor(self.norm_squared).max())

    @cached_property
    def laplacian(self) -> Each:
        """``tr(A^H A) / sigma^2`` over the real coordinates, of a linear operator, of each row's own.

        The same at every x, so that it only enters the evidence. Small images: exact; else by Rademacher probes.
        """
        A = cast(Linear, self.problem.A)
        n = math.prod(A.domain) * (2 if A.complex_domain else 1)
        if n <= EXACT_TRACE:
            trace = self.squares(torch.eye(n, dtype=torch.float64)).sum(1)
        else:
            generator = torch.Generator().manual_seed(1)
            probes = (torch.randn(1, n, generator=generator).sign() for _ in range(TRACE_PROBES))
            trace = torch.cat([self.squares(probe) for probe in probes], 1).mean(1)
        return self.each(trace.repeat_interleave(len(self.problem.y) // A.images) / self.problem.sigma**2)

    def squares(self, probes: Tensor) -> Tensor:
        """``||A v||^2`` (images, k) of images v, given as real numbers (k, n)."""
        A, b = cast(Linear, self.problem.A), self.problem.backprojection
        v = probes.view(-1, *A.domain, 2) if A.complex_domain else probes.view(-1, *A.domain)
        v = (torch.view_as_complex(v) if A.complex_domain else v).to(b)
        seen = A.forward(v.repeat(A.images, *[1] * len(A.domain)))
        return inner64(seen, seen).view(A.images, -1)

    def each(self, rows: Tensor) -> Each:
        """A number where all rows have one operator, else one a row, (rows,) float64."""
        return float(rows.flatten()[0]) if self.problem.A.images == 1 else rows.flatten().double()


def times(factor: Each, x: Tensor) -> Tensor:
    """``factor x``, with a factor for each row or one for all."""
    return (per_row(factor, x).to(x.real.dtype) if isinstance(factor, Tensor) else factor) * x
