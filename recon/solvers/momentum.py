"""Multistep methods with momentum: a moving average of the noise damps what a strong correction would excite.

    m = (1 - b) m + b e,     x' = x + (t - s) * (a combination of m)

The velocity m starts as the first e; ``b = 1`` is PLMS.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..errors import ConfigError
from ..state import Node, Step
from .base import Solver, differences, euler
from .pndm import adams_bashforth, check_nodes


class Momentum(Solver):
    """The average that both share."""

    beta: float = 0.8

    def __post_init__(self):
        check_nodes(self.nodes)
        if not 0 < self.beta <= 1:
            raise ConfigError(
                f"beta is {self.beta:g}.", "It is the share of the new noise, in (0, 1].", "Use beta=0.8."
            )

    def averaged(self, velocity: Tensor, new: Tensor) -> Tensor:
        """``(1 - b) m + b e``."""
        return velocity.mul(1 - self.beta).add(new, alpha=self.beta)


@dataclass(frozen=True)
class GHVB(Momentum):
    """``m = (1 - b) m + b e``, ``x' = x + (t - s) sum_j w_j m_j``: momentum that keeps the order.

    "GHVB 3.8" is ``nodes=4, beta=.8``. Where sigma falls in equal steps the order is ``nodes`` once the
    velocity is that of a long past; from its start, and on other grids, 2.
    """

    nodes: int = 4
    beta: float = 0.8
    reference = "Wizadwongsa et al. 2024 (Diffusion Sampling with Momentum), arXiv 2307.11118"

    @property
    def order(self) -> int:  # type: ignore[override]
        """``nodes``, at most 2."""
        return min(self.nodes, 2)

    def advance(self, denoise, x, est, sigma, target, past, draw) -> Step:
        """Adams-Bashforth on velocities; remembers them, newest first."""
        velocity = self.averaged(past[0], est.eps) if past else est.eps
        velocities = (velocity, *past)[: self.nodes]
        moves = [(target - sigma) * weight for weight in ghvb_weights(len(velocities), self.beta)]
        mean = differences(euler(est, target), [est.eps, *velocities], moves)
        return Step(mean, 0.0, est, velocities[: max(self.nodes - 1, 1)])


@dataclass(frozen=True)
class HB(Momentum):
    """``m = (1 - b) m + b p``, p the Adams-Bashforth noise; ``x' = x + (t - s) m``: Polyak's heavy ball.

    Order 1 for b < 1: the average lags behind p.
    """

    nodes: int = 4
    beta: float = 0.8
    reference = "Wizadwongsa et al. 2024 (Diffusion Sampling with Momentum), arXiv 2307.11118"

    @property
    def order(self) -> int:  # type: ignore[override]
        """1 for beta < 1, else as PLMS."""
        return 1 if self.beta < 1 else min(self.nodes, 2)

    def advance(self, denoise, x, est, sigma, target, past, draw) -> Step:
        """Adams-Bashforth on the noise, then the average; remembers the velocity and the noises."""
        velocity, older = past if past else (est.eps, ())
        history = (Node(est.eps, sigma), *older)[: self.nodes]
        values, weights = adams_bashforth(history)
        velocity = self.averaged(velocity, differences(est.eps, values, weights[1:]))
        mean = differences(euler(est, target), [est.eps, velocity], [target - sigma])
        return Step(mean, 0.0, est, (velocity, history[: self.nodes - 1]))


def ghvb_weights(count: int, b: float) -> tuple[float, ...]:
    """Of ``count`` velocities, newest first; they add to one.

    With m in its steady state, polynomials e of degree count - 1 are integrated exactly. The stored
    text of the paper has a plus before the second velocity; it is a minus.
    """
    weights = (
        (b,),
        ((2 + b) / 2, -(2 - b) / 2),
        ((18 + 5 * b) / 12, -(24 - 8 * b) / 12, (6 - b) / 12),
        ((46 + 9 * b) / 24, -(78 - 19 * b) / 24, (42 - 5 * b) / 24, -(10 - b) / 24),
        (
            (1650 + 251 * b) / 720,
            -(3420 - 646 * b) / 720,
            (2880 - 264 * b) / 720,
            -(1380 - 106 * b) / 720,
            (270 - 19 * b) / 720,
        ),
    )
    return tuple(weight / b for weight in weights[count - 1])
