"""Heun's method in sigma: the trapezoidal rule on the noise estimate; with churn, EDM's stochastic sampler."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import ConfigError
from ..state import Step
from .base import Solver, euler


@dataclass(frozen=True)
class Heun(Solver):
    """``x' = b + (t - s) (eps + eps') / 2`` with ``b = x0 + s eps``, ``eps'`` found at ``x0 + t eps``.

    Karras et al. 2022, algorithm 1. The step to t = 0 is Euler's.
    """

    order, evals = 2, 2
    reference = "Karras et al. 2022, algorithm 1"

    def advance(self, denoise, x, est, sigma, target, past, draw) -> Step:
        """Euler's step, and half the change of the noise from one end to the other."""
        predicted = euler(est, target)
        second = denoise(predicted, target)
        mean = predicted.add(second.eps - est.eps, alpha=(target - sigma) / 2)
        return Step(mean, 0.0, est)


@dataclass(frozen=True)
class EDM(Solver):
    """Churn, then Euler (``second=False``) or Heun: noise is raised to ``s^ = (1 + churn) s`` before the step.

    ``x^ = x + sqrt(s^^2 - s^2) s_noise z`` for ``s_min <= s <= s_max``. ``churn`` is the paper's gamma,
    S_churn over the number of steps, at most sqrt(2) - 1. Marginals are kept for s_noise = 1 only.
    """

    churn: float = 0.0
    s_min: float = 0.0
    s_max: float = math.inf
    s_noise: float = 1.0
    second: bool = True
    reference = "Karras et al. 2022, algorithm 2"

    def __post_init__(self):
        if not 0 <= self.churn <= math.sqrt(2) - 1 + 1e-12:
            raise ConfigError(
                f"churn is {self.churn}.",
                "It is S_churn over the number of steps, at most sqrt(2) - 1 = .414.",
                "Use churn=min(40 / steps, 0.414) for the paper's S_churn = 40.",
            )

    @property
    def order(self) -> int:
        """0 with churn, else that of Heun or Euler."""
        if self.churn > 0:  # a fixed share a step is not a rate: only churn ~ 1 / steps has a limit
            return 0
        return 2 if self.second else 1

    @property
    def evals(self) -> int:  # type: ignore[override]
        """Two with the second stage, else one."""
        return 2 if self.second else 1

    @property
    def stochastic(self) -> bool:
        """Whether there is churn."""
        return self.churn > 0

    @property
    def kernel(self) -> bool:
        """Whether there is none: churn is noise inside the step."""
        return self.churn == 0

    def raised(self, sigma: float) -> float:
        """The level it asks the denoiser at."""
        return sigma * (1 + self.churn) if self.s_min <= sigma <= self.s_max else sigma

    def step(self, denoise, x, sigma, target, past, draw) -> Step:
        """Noise up to `raised`, then the step from there."""
        level = self.raised(sigma)
        if level > sigma:
            x = x.add(draw(x, "churn"), alpha=self.s_noise * math.sqrt(level**2 - sigma**2))
        return super().step(denoise, x, level, target, past, draw)

    def advance(self, denoise, x, est, sigma, target, past, draw) -> Step:
        """Heun's step, or Euler's."""
        if not self.second:
            return Step(euler(est, target), 0.0, est)
        return Heun().advance(denoise, x, est, sigma, target, past, draw)
