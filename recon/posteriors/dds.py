"""DDS: conjugate gradients on the denoised image, warm-started from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from operators.base import Linear
from operators.krylov import cg, inner

from ..errors import ConfigError
from ..priors import about
from ..problem import Problem
from ..state import Estimate
from .base import Posterior
from .shared.jacobian import Linearised, per_row, singular_tolerance
from .shared.proximal import Proximal

LENGTHS = (1.0, 0.5, 0.25, 0.0625, 0.015625)  # of a Gauss-Newton step


class DDS(Posterior):
    """``x0 = argmin ||A x - y||^2 + lambda(s) ||x - D||^2`` by ``steps`` CG steps from ``D = prior(x, s)``.

    ``(A^H A + lambda I) x0 = A^H y + lambda D``; in singular coordinates or the operator's closed form
    where it has one. An operator that is not linear is linearised ``newton`` times (Gauss-Newton):
    ``x += t (J^H J + lambda I)^-1 (J^H (y - A(x)) + lambda (D - x))`` from D, J = A'(x) by autograd, by
    ``steps`` CG steps each, and each row with the t of 1, 1/2, 1/4, 1/16, 1/64 that lowers the sum most, or 0.
    ``weight``: lambda as a function of sigma, or a number; default `matched` to the noise of the
    problem (``lambda = 0``, early-stopped CG, where that is 0). ``keep``: "noise" takes the next step
    with the network's noise (the paper), "state" recomputes it from x0, which for a matched weight is
    the exact posterior denoiser of an isotropic Gaussian prior.
    Source: Chung, Lee, Ye, Decomposed Diffusion Sampler, ICLR 2024, algorithm 1.
    """

    needs_problem = True
    knob = "Give the prior more weight (weight), or take fewer CG steps (steps)."

    def __init__(
        self,
        prior=None,
        problem: Problem | None = None,
        *,
        weight: Callable[[float], float] | float | None = None,
        steps: int = 5,
        keep: str = "noise",
        tol: float = 1e-6,
        newton: int = 3,
    ):
        if keep not in ("noise", "state"):
            raise ConfigError(f"keep is {keep!r}.", 'It is "noise" (the paper) or "state".')
        if steps < 1:
            raise ConfigError(f"steps is {steps}.", "DDS takes at least one CG step.", "Use steps=5.")
        if newton < 1:
            raise ConfigError(f"newton is {newton}.", "DDS linearises at least once.", "Use newton=3.")
        self.weight, self.steps, self.keep, self.tol, self.newton = weight, steps, keep, tol, newton
        super().__init__(prior, problem)

    def check_problem(self, problem: Problem) -> None:
        super().check_problem(problem)
        fit = Proximal(problem, self.steps, self.tol) if problem.A.linear else None
        self.direct = fit if fit is not None and (fit.svd is not None or fit.closed_form) else None

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
        return matched(self.problem.sigma, about(self.prior).data_var)(sigma)

    def fit(self, prior: Tensor, lam: float) -> Tensor:
        """The data step, from the prior's image."""
        if not self.problem.A.linear:
            return self.bent(prior, lam)
        A, b = cast(Linear, self.problem.A), self.problem.backprojection
        if lam == 0:
            return cg(A.normal, b, prior, self.steps, singular_tolerance(self.tol, b))
        if self.direct is not None:
            return self.direct(prior, lam)
        return cg(lambda v: A.normal(v).add(v, alpha=lam), b + lam * prior, prior, self.steps, self.tol)

    def bent(self, prior: Tensor, lam: float) -> Tensor:
        """The data step of an operator that is not linear."""
        A, y, x = self.problem.A, self.problem.y, prior

        def loss(x: Tensor) -> Tensor:
            with torch.no_grad():
                r, away = A.forward(x) - y, x - prior
            return inner(r, r).flatten() + lam * inner(away, away).flatten()

        for _ in range(self.newton):
            here = Linearised.at(A, x, y)
            descent = here.pull(here.residual) + lam * (prior - x)
            way = cg(
                lambda v, here=here: here.pull(here.push(v)) + lam * v, descent, None, self.steps, self.tol
            )
            base, least = x, loss(x)
            for length in LENGTHS:
                there = base + length * way
                its = loss(there)
                x = torch.where(per_row(its < least, x), there, x)
                least = torch.minimum(its, least)
        return x


def constant(gamma: float) -> Callable[[float], float]:
    """The paper's weight: ``gamma/2 ||A x - y||^2 + 1/2 ||x - D||^2``, so ``lambda = 1 / gamma``."""
    return lambda sigma: 1.0 / gamma


def matched(sigma_y: float, data_var: float = 1.0) -> Callable[[float], float]:
    """``lambda = sigma_y^2 / r^2``, ``r^2 = s^2 v / (s^2 + v)``: the posterior precision ratio of N(., v I)."""
    return lambda sigma: sigma_y**2 * (1 / sigma**2 + 1 / data_var)
