"""DDS: conjugate gradients on the denoised image, warm-started from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from operators.base import Linear
from operators.krylov import cg

from ..errors import ConfigError
from ..problem import Problem
from ..state import Estimate
from .base import Posterior


class DDS(Posterior):
    """``x0 = argmin ||A x - y||^2 + lambda(s) ||x - D||^2`` by ``steps`` CG steps from ``D = prior(x, s)``.

    ``(A^H A + lambda I) x0 = A^H y + lambda D``; the operator's closed form where it has one.
    ``weight``: lambda as a function of sigma, or a number; default `matched` to the noise of the
    problem (``lambda = 0``, early-stopped CG, where that is 0). ``keep``: "noise" takes the next step
    with the network's noise (the paper), "state" recomputes it from x0, which for a matched weight is
    the exact posterior denoiser of an isotropic Gaussian prior.
    Source: Chung, Lee, Ye, Decomposed Diffusion Sampler, ICLR 2024, algorithm 1.
    """

    needs_problem = True
    linear_only = True

    def __init__(
        self,
        prior,
        problem: Problem | None = None,
        *,
        weight: Callable[[float], float] | float | None = None,
        steps: int = 5,
        keep: str = "noise",
        tol: float = 1e-6,
    ):
        if keep not in ("noise", "state"):
            raise ConfigError(f"keep is {keep!r}.", 'It is "noise" (the paper) or "state".')
        if steps < 1:
            raise ConfigError(f"steps is {steps}.", "DDS takes at least one CG step.", "Use steps=5.")
        self.weight, self.steps, self.keep, self.tol = weight, steps, keep, tol
        super().__init__(prior, problem)

    def admit(self, problem: Problem) -> None:
        super().admit(problem)
        self.closed_form = (
            cast(Linear, problem.A).solve_normal(torch.zeros_like(problem.backprojection), 1.0) is not None
        )

    def denoise(self, x: Tensor, sigma: float, memo=None) -> Estimate:
        prior = self.prior(x, sigma)
        x0 = self.fit(prior, self.lam(sigma))
        if self.keep == "state":
            return Estimate.keep_state(x, sigma, x0, prior)
        return Estimate.keep_noise(x, sigma, x0, prior)

    def lam(self, sigma: float) -> float:
        """lambda at this level."""
        if callable(self.weight):
            return float(self.weight(sigma))
        if self.weight is not None:
            return float(self.weight)
        return matched(self.problem.sigma, getattr(self.prior, "data_var", 1.0))(sigma)

    def fit(self, prior: Tensor, lam: float) -> Tensor:
        """The data step, from the prior's image."""
        A, b = cast(Linear, self.problem.A), self.problem.backprojection
        if lam == 0:
            return cg(A.normal, b, prior, self.steps, self.tol)
        if self.closed_form:  # for the misfit, a small right side: less is lost to rounding
            return prior + cast(Tensor, A.solve_normal(b - A.normal(prior), lam))
        return cg(lambda v: A.normal(v) + lam * v, b + lam * prior, prior, self.steps, self.tol)


def constant(gamma: float) -> Callable[[float], float]:
    """The paper's weight: ``gamma/2 ||A x - y||^2 + 1/2 ||x - D||^2``, so ``lambda = 1 / gamma``."""
    return lambda sigma: 1.0 / gamma


def matched(sigma_y: float, data_var: float = 1.0) -> Callable[[float], float]:
    """``lambda = sigma_y^2 / r^2``, ``r^2 = s^2 v / (s^2 + v)``: the posterior precision ratio of N(., v I)."""
    return lambda sigma: sigma_y**2 * (1 / sigma**2 + 1 / data_var)
