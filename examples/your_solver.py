"""A solver of your own: one step between two noise levels. The midpoint rule, and its order measured."""

import math
from dataclasses import dataclass

import torch

from recon import SOLVERS, Step
from recon.priors import Gaussian, flow


@dataclass(frozen=True)
class Midpoint:
    """``x' = x + (t - s) eps(x_m, m)``, ``m = sqrt(s t)``, ``x_m`` by Euler."""

    order, evals = 2, 2  # only step is needed: whatever else a solver says of itself has a default

    def step(self, denoise, x, sigma, target, past, draw):
        est = denoise(x, sigma)
        if target == 0:
            return Step(est.x0, 0.0, est)
        middle = math.sqrt(sigma * target)
        half = denoise(est.x0 + middle * est.eps, middle)
        return Step(est.x0 + sigma * est.eps + (target - sigma) * half.eps, 0.0, est)


def geometric(steps, top, bottom=1e-3):
    return [top * (bottom / top) ** (i / (steps - 1)) for i in range(steps)] + [0.0]


if __name__ == "__main__":  # not as a plugin: recon reconstruct FILE --plugin FILE.py --solver Midpoint
    x = torch.full((1, 1), 10.0, dtype=torch.float64)
    prior = Gaussian(torch.zeros(1, dtype=torch.float64), covariance=1.0)
    exact = x / math.sqrt(1 + 10**2)  # the flow of N(0, 1) from sigma 10 to 0
    for steps in (20, 40, 80):
        baseline, error = (
            (flow(prior, solver, steps, geometric)(x, 10.0) - exact).abs().item()
            for solver in (SOLVERS["euler"](), Midpoint())
        )
        print(f"{steps:3d} steps: Euler {baseline:.1e}, midpoint {error:.1e}")
