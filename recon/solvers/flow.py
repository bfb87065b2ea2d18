"""Runge-Kutta on the velocity of a flow, in its own time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ..errors import ConfigError
from ..processes import Flow, Process
from ..state import Estimate, Step
from .base import Solver, differences, euler

Tableau = tuple[tuple[float, ...], ...]
TABLEAUX: dict[str, Tableau] = {  # the rows of the stages after the first, then the weights
    "euler": ((1.0,),),
    "midpoint": ((0.5,), (0.0, 1.0)),
    "heun": ((1.0,), (0.5, 0.5)),
    "rk4": ((0.5,), (0.0, 0.5), (0.0, 0.0, 1.0), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
}
ORDERS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}


@dataclass(frozen=True)
class FlowRK(Solver):
    """``z' = z + dt sum_j b_j u_j``, ``u(z, t) = a_dot x0 + s_dot eps``, for ``z = a x`` in the time of ``process``.

    ``method``: "euler", "midpoint", "heun" or "rk4". Since ``u = (a_dot / a) z + a sigma_dot eps``, a
    stage is ``x + push x + sum_j w_j eps_j`` with numbers that only the levels decide; push is 0 on the
    rectified flow (a is linear in t), where "euler" is Euler in sigma. The step starts at
    ``x0 + s eps``; stages give their eps only.

    The SDEs with the marginals of the flow, ``dz = [u - (w/2) score] dt + sqrt(w) dW``, have no solver
    of their own: for ``w = eta g^2``, unbounded towards t = 1, `SDEDPMpp1` (with eta = 1 `DDIM(1)`) is
    their exact integral over a step with x0 held.
    """

    method: str = "euler"
    process: Process = field(default_factory=Flow)
    reference = "Lipman et al. 2023; Liu, Gong, Liu 2023; Albergo et al. 2023"

    def __post_init__(self):
        if self.method not in TABLEAUX:
            raise ConfigError(f"method is {self.method!r}.", f"It is one of {', '.join(TABLEAUX)}.")

    @property
    def order(self) -> int:  # type: ignore[override]
        """That of the method's tableau."""
        return ORDERS[self.method]

    @property
    def evals(self) -> int:  # type: ignore[override]
        """The stages of the method's tableau."""
        return len(TABLEAUX[self.method])

    def check_levels(self, levels, eps) -> None:
        """The process refuses levels beyond its end."""
        for level in levels:
            self.process.time(level)

    def advance(self, denoise, x, est, sigma, target, past, draw) -> Step:
        """One Runge-Kutta step on ``dz/dt``, in units of x."""
        noises = [est.eps]
        *stages, (push, weights, _) = self.combinations(sigma, target)
        for stage_push, stage_weights, level in stages:
            place = moved(x, est, noises, sigma, stage_push, stage_weights)
            noises.append(denoise(place, level).eps)
        return Step(moved(x, est, noises, sigma, push, weights), 0.0, est)

    def combinations(self, sigma: float, target: float) -> list[tuple[float, list[float], float]]:
        """``(push, weights of the eps so far, level)`` of the later stages, and last of the step itself."""
        process, start = self.process, self.process.time(sigma)
        dt, a = process.time(target) - start, process.scale(start)
        time, place = start, [a]  # of the newest stage: z as a combination of (x, eps_1, eps_2, ...)
        found, velocities = [], []
        for row in TABLEAUX[self.method]:
            drift = process.drift(time)
            own = process.scale(time) * process.sigma_rate(time)
            velocities.append([*(drift * c for c in place), own])
            time = start + sum(row) * dt
            place = [a] + [0.0] * len(velocities)
            for share, velocity in zip(row, velocities, strict=True):
                for j, c in enumerate(velocity):
                    place[j] += dt * share * c
            here = process.scale(time)
            last = abs(sum(row) - 1) < 1e-12
            level = target if last else process.sigma(time)
            push = 0.0 if isinstance(process, Flow) else place[0] / here - 1  # 0 but for rounding
            found.append((push, [c / here for c in place[1:]], level))
        return found


def moved(
    x: Tensor, est: Estimate, noises: Sequence[Tensor], sigma: float, push: float, weights: Sequence[float]
) -> Tensor:
    """``x0 + s eps + push x + sum_j w_j eps_j``, as Euler's point and differences to the first eps."""
    mean = differences(euler(est, sigma + sum(weights)), noises, weights[1:])
    return mean.add_(x, alpha=push) if push else mean
