"""PNDM: Adams-Bashforth weights of equal steps on the noise, moved by DDIM. The members differ in their start.

    x' = x + (t - s) sum_j w_j e_j,     e_0 newest

Order 2 on a smooth grid, since the steps in sigma are not equal; the order of the weights where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ..errors import ConfigError
from ..processes import VP, Process
from ..state import Estimate, Node, Step
from .base import Denoise, Solver, differences, euler
from .singlestep import along

ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
    (1901 / 720, -2774 / 720, 2616 / 720, -1274 / 720, 251 / 720),
)
"""Weights of 1 to 5 evaluations, newest first: the integral over the next step of the polynomial through them."""


class PLMS(Solver):
    """The shared step. A member gives the noises of a step and their weights, which add to one."""

    order = 2

    def advance(self, denoise, x, est, sigma, target, past, draw) -> Step:
        """Adams-Bashforth on the noises of the history, or the start of `begin`."""
        history = (Node(est.eps, sigma), *past)[: self.nodes]
        if len(history) < self.nodes:
            values, weights = self.begin(denoise, est, sigma, target, history)
        else:
            values, weights = adams_bashforth(history)
        moves = [(target - sigma) * weight for weight in weights[1:]]
        mean = differences(euler(est, target), values, moves)
        return Step(mean, 0.0, est, history[: self.nodes - 1])

    def begin(
        self, denoise: Denoise, est: Estimate, sigma: float, target: float, history: tuple[Node, ...]
    ) -> tuple[list[Tensor], Sequence[float]]:
        """Noises and weights while the history is short."""
        raise NotImplementedError


@dataclass(frozen=True)
class IPNDM(PLMS):
    """iPNDM: lower orders while the history grows, one call a step. ``nodes`` 1 to 5."""

    nodes: int = 4
    reference = "Zhang, Chen 2023 (DEIS), which names iPNDM; Liu et al. 2022 (PNDM)"

    def __post_init__(self):
        check_nodes(self.nodes)

    @property
    def order(self) -> int:  # type: ignore[override]
        """``nodes``, at most 2."""
        return min(self.nodes, 2)

    def begin(self, denoise, est, sigma, target, history):
        """Adams-Bashforth of as many noises as there are."""
        return adams_bashforth(history)


@dataclass(frozen=True)
class PNDM(PLMS):
    """S-PNDM: a step of the pseudo improved Euler method, then ``(3 e_0 - e_1) / 2``.

    The first step is Heun's: ``(e + e') / 2`` with e' found at ``x0 + t eps``.
    """

    nodes, warmup = 2, (2,)
    reference = "Liu et al. 2022 (PNDM, there S-PNDM)"

    def begin(self, denoise, est, sigma, target, history):
        """Heun's method."""
        second = denoise(along(est, target), target)
        return [est.eps, second.eps], (1 / 2, 1 / 2)


@dataclass(frozen=True)
class FPNDM(PLMS):
    """F-PNDM: three steps of the pseudo Runge-Kutta method of four calls, then Adams-Bashforth on four noises.

    ``(e1 + 2 e2 + 2 e3 + e4) / 6`` with e2, e3 halfway in the time of ``process``; e1 is remembered.
    Raises `ConfigError` for a level that the process does not have.
    """

    process: Process = field(default_factory=VP)
    nodes, warmup = 4, (4, 4, 4)
    reference = "Liu et al. 2022 (PNDM, there F-PNDM), section 3"

    def check_levels(self, levels, eps):
        """Raises `ConfigError` for a level that the process does not have."""
        self.process.time(levels[0])

    def begin(self, denoise, est, sigma, target, history):
        """The pseudo Runge-Kutta method of four evaluations."""
        middle = self.process.sigma((self.process.time(sigma) + self.process.time(target)) / 2)
        values = [est.eps]
        for level in (middle, middle, target):
            point = along(est, level)
            if len(values) > 1:
                point = differences(point, [est.eps, values[-1]], [level - sigma])
            values.append(denoise(point, level).eps)
        return values, (1 / 6, 1 / 3, 1 / 3, 1 / 6)


def adams_bashforth(history: Sequence[Node]) -> tuple[list[Tensor], Sequence[float]]:
    """The noises of ``history`` (newest first) and their weights."""
    return [node.slope for node in history], ADAMS_BASHFORTH[len(history) - 1]


def check_nodes(nodes: int) -> None:
    """Raise `ConfigError` for numbers of evaluations without weights."""
    if not 1 <= nodes <= len(ADAMS_BASHFORTH):
        raise ConfigError(
            f"nodes is {nodes}.", f"Weights are known for 1 to {len(ADAMS_BASHFORTH)}.", "Use nodes=4."
        )
