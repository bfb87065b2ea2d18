"""DPM-Solver++(2M): an exponential integrator with one remembered evaluation."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..state import Node, Step


@dataclass(frozen=True)
class DPMpp2M:
    """``x' = (t/s) x + (1 - t/s) (D + (D - D_prev) / (2 r))``, ``r = ln(s_prev/s) / ln(s/t)``.

    Lu et al. 2022 (DPM-Solver++), algorithm 2, midpoint form. The first step, a step after a jump
    (``past=()``) and the step to t = 0 are of order one.
    """

    order, evals, stochastic, kernel = 2, 1, False, True
    reference = "Lu et al. 2022 (DPM-Solver++), algorithm 2"

    def step(self, denoise, x, sigma, target, past, draw) -> Step:
        est = denoise(x, sigma)
        memory = (Node(est.slope, sigma),)
        mean = est.x0 + target * est.eps
        if past and target > 0:
            (previous,) = past
            ratio = math.log(previous.sigma / sigma) / math.log(sigma / target)
            mean = mean + (1 - target / sigma) / (2 * ratio) * (est.slope - previous.slope)
        return Step(mean, 0.0, est, memory)
