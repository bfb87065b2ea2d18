"""Heun's method in sigma: the trapezoidal rule on the noise estimate."""

from __future__ import annotations

from dataclasses import dataclass

from ..state import Step


@dataclass(frozen=True)
class Heun:
    """``x' = b + (t - s) (eps + eps') / 2`` with ``b = x0 + s eps``, ``eps'`` found at ``x0 + t eps``.

    Karras et al. 2022, algorithm 1. The step to t = 0 is Euler's.
    """

    order, evals, stochastic, kernel = 2, 2, False, True
    reference = "Karras et al. 2022, algorithm 1"

    def step(self, denoise, x, sigma, target, past, draw) -> Step:
        est = denoise(x, sigma)
        euler = est.x0 + target * est.eps
        if target == 0:
            return Step(euler, 0.0, est)
        second = denoise(euler, target)
        mean = est.x0 + sigma * est.eps + (target - sigma) * 0.5 * (est.eps + second.eps)
        return Step(mean, 0.0, est)
