"""The measurements as a potential: ``mu(x) = ||A x - y||^2 / (2 sigma_y^2)``, so that the likelihood is ``exp(-mu)``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from operators.base import Linear
from operators.krylov import inner

from ..problem import Problem, inner64

POWER_STEPS = 30
PROBES = 64
EXACT_TRACE = 1024  # images of as many real numbers or fewer: the trace by a basis


@dataclass(frozen=True)
class Potential:
    """``mu`` of a problem with ``sigma > 0``, a row each, in float64; any operator.

    The inner products are real ones and sigma is that of a real component, so that everything holds for
    complex images as it stands.
    """

    problem: Problem

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
    def norm_squared(self) -> float:
        """``||A||_2^2`` of a linear operator, the largest of its images', by power iteration; 1 for others."""
        A = self.problem.A
        if not A.linear:
            return 1.0
        x = self.probe(0)
        for _ in range(POWER_STEPS):
            x = cast(Linear, A).normal(x / inner(x, x).sqrt().clamp_min(torch.finfo(torch.float32).tiny))
        return float(inner(x, x).sqrt().max())

    @cached_property
    def laplacian(self) -> float:
        """``tr(A^H A) / sigma^2`` over the real coordinates, of a linear operator; an average over its images.

        The same at every x, so that it only enters the evidence. Small images: exact; else by Rademacher probes.
        """
        A = cast(Linear, self.problem.A)
        like = self.probe(0)
        parts = 2 if like.is_complex() else 1
        n = like[0].numel() * parts
        if n <= EXACT_TRACE and A.images == 1:
            basis = torch.eye(n, dtype=like.dtype.to_real(), device=like.device)
            if like.is_complex():
                basis = torch.view_as_complex(basis.reshape(n, *like.shape[1:], 2))
            images = basis.reshape(n, *like.shape[1:])
            trace = inner(images, A.normal(images)).sum()
        else:
            signs = (self.probe(1 + i) for i in range(-(-PROBES // len(like))))
            traces = [inner(x, A.normal(x)).mean() for x in map(rademacher, signs)]
            trace = torch.stack(traces).mean()
        return float(trace) / self.problem.sigma**2

    def probe(self, seed: int) -> Tensor:
        """Unit normal images, as many as the operator tells apart."""
        A, y = self.problem.A, self.problem.y
        zeros = A._zeros(A.images, torch.promote_types(y.dtype, torch.float32), y.device)
        generator = torch.Generator().manual_seed(seed)
        real = torch.view_as_real(zeros) if zeros.is_complex() else zeros
        drawn = torch.randn(real.shape, generator=generator, dtype=real.dtype).to(real)
        return torch.view_as_complex(drawn) if zeros.is_complex() else drawn


def rademacher(x: Tensor) -> Tensor:
    """The signs of every real component."""
    return torch.view_as_complex(torch.view_as_real(x).sign()) if x.is_complex() else x.sign()
