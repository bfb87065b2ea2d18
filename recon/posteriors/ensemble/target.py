"""What an ensemble's particles are weighed for: the prior at every level, times a share of the likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from torch import Tensor

from operators.base import Linear
from operators.krylov import cg

from ...noise import Draw
from .potential import Each, Potential, times

ANNEALINGS = ("matched", "linear")
LANGEVIN_SIZE = 0.3  # of the largest stable step, about


@dataclass(frozen=True)
class Target:
    """``p_s(x) exp(-alpha(s) mu(x))`` at level s, ``mu(x) = ||A x - y||^2 / (2 sigma_y^2)``, ``alpha(0) = 1``.

    ``annealing``: "matched", ``alpha = sigma_y^2 / (sigma_y^2 + c s^2)``, c by default ``||A||^2``; "linear",
    ``1 - s / top``, with ``top`` the walk's first level; or alpha(s) itself.
    """

    potential: Potential
    annealing: str | Callable[[float], float] = "matched"
    c: float | None = None
    top: float = math.nan

    @property
    def sigma_y(self) -> float:
        """Noise of the measurements, per real component."""
        return self.potential.problem.sigma

    @property
    def scale(self) -> Each:
        """c."""
        return self.potential.norm_squared if self.c is None else self.c

    @property
    def precision(self) -> Each:
        """``||A||^2 / sigma_y^2``: the largest curvature of mu."""
        return self.potential.norm_squared / self.sigma_y**2

    def alpha(self, sigma: float) -> Each:
        """The share of the likelihood that counts at this level."""
        if callable(self.annealing):
            return float(self.annealing(sigma))
        if self.annealing == "linear":
            return 1 - sigma / self.top
        return self.sigma_y**2 / (self.sigma_y**2 + self.scale * sigma**2)

    def energy(self, x: Tensor, sigma: float) -> Tensor:
        """``alpha(s) mu(x)`` (rows,), float64."""
        return self.alpha(sigma) * self.potential(x)

    def tilted(self, x: Tensor, alpha: Each, sigma: float, draw: Draw) -> Tensor:
        """From ``x ~ N(m, s^2)`` to a draw of ``N(m, s^2) exp(-alpha mu)``, exactly, by perturbed measurements.

        ``(A^H A + l I) x' = A^H (y + sigma_y / sqrt(alpha) z) + l x``, ``l = sigma_y^2 / (alpha s^2)``; linear A.
        """
        A, y, lam = cast(Linear, self.potential.problem.A), self.potential.problem.y, self.sigma_y**2
        lam = lam / (alpha * sigma**2)
        y = y + times(self.sigma_y / alpha**0.5, draw(y, "tilt"))
        pull = A.adjoint(y - A.forward(x))  # of the change: a small right side loses less to rounding
        change = None if isinstance(lam, Tensor) else A.solve_normal(pull, lam)
        if change is None:  # well conditioned: the number is 1 + ||A||^2 / c at most under matched annealing
            condition = 2.0 if isinstance(lam, Tensor) else 1 + self.potential.largest_norm_squared / lam
            steps = min(math.ceil(14 * math.sqrt(condition)), 4 * x[0].numel())
            change = cg(lambda v: A.normal(v) + times(lam, v), pull, steps=steps, tol=1e-12)
        return x + change

    def explored(self, prior, x: Tensor, sigma: float, steps: int, draw: Draw) -> Tensor:
        """``x`` after unadjusted Langevin steps at this level, ``x += e (score - alpha grad mu) + sqrt(2 e) z``.

        ``e = .3 / (1 / s^2 + alpha ||A||^2 / sigma_y^2)``. They keep the target, but for widening it by a share of
        e. A network call each.
        """
        alpha = self.alpha(sigma)
        size = LANGEVIN_SIZE / (1 / sigma**2 + alpha * self.potential.norm_squared / self.sigma_y**2)
        for index in range(steps):
            score = (prior(x, sigma) - x) * (1 / sigma**2) - times(alpha, self.potential.gradient(x))
            x = x + times(size, score) + times((2 * size) ** 0.5, draw(x, f"langevin{index}"))
        return x
