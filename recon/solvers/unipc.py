"""UniPC: an exponential Adams predictor, corrected when the next evaluation is there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..errors import ConfigError
from ..state import Node, Past, Step
from .adams import ExponentialAdams
from .base import differences

VARIANTS = ("bh2", "bh1", "exact")


@dataclass(frozen=True)
class UniPC(ExponentialAdams):
    """UniP-k then, with the evaluation at the predicted point as a further node, UniC-k. Order k + 1, one call.

    The correction ``sum_j (c_j - p_j) D_j`` depends on evaluations only, so it is *added* to the state
    that is handed in: what a posterior did to the state between two steps is kept (the released code
    recomputes the state and loses it). ``variant``: "bh1" and "bh2" take 1/2 for the weight of UniP-2
    and UniC-1, as the paper does; "exact" integrates there too. From a cold start the asymptotic order
    is 3 at most.
    """

    variant: str = "bh2"
    reference = "Zhao et al. 2023 (UniPC), algorithms 1 to 3"

    def __post_init__(self):
        super().__post_init__()
        if self.variant not in VARIANTS:
            raise ConfigError(f"variant is {self.variant!r}.", f"It is one of {', '.join(VARIANTS)}.")
        if self.eta > 0:
            raise ConfigError("UniPC with eta > 0.", "It solves the ODE.", "Use sde-dpm++2m.")

    @property
    def order(self) -> int:
        """``nodes + 1``."""
        return self.nodes + 1

    @property
    def remembered(self) -> int:
        """The corrector asks for all that the predictor combined."""
        return self.nodes

    def advance(self, denoise, x, est, sigma, target, past, draw) -> Step:
        """The predictor, and the correction of the step before by the new evaluation."""
        step = super().advance(denoise, x, est, sigma, target, past, draw)
        if not past:
            return step
        carried = target / sigma if self.form == "data" else 1.0
        return Step(self.corrected(step.mean, past, step.past[0], carried), 0.0, est, step.past)

    def corrected(self, mean: Tensor, past: Past, new: Node, carried: float = 1.0) -> Tensor:
        """``mean + carried * (UniC - UniP)`` of the step that ended at ``new.sigma``."""
        levels = [node.sigma for node in past]
        predictor = self.weights(levels, levels[0], new.sigma)
        corrector = self.corrector_weights(levels, new.sigma)
        change = [carried * (c - p) for c, p in zip(corrector, [*predictor, 0.0], strict=True)]
        return differences(mean, [*(node.slope for node in past), new.slope], change)

    def corrector_weights(self, levels: Sequence[float], target: float) -> list[float]:
        """Of the differences of the older evaluations, and of the new one, to that of ``levels[0]``."""
        sigma = levels[0]
        if len(levels) == 1 and self.variant != "exact":
            return [self.shortcut(sigma, target)]
        return super().weights([*levels, target], sigma, target)

    def weights(self, levels: Sequence[float], sigma: float, target: float) -> list[float]:
        """The predictor's, by the paper's shortcut where two nodes are combined."""
        if len(levels) == 2 and self.variant != "exact":
            return [self.shortcut(sigma, target) * math.log(sigma / target) / math.log(sigma / levels[1])]
        return super().weights(levels, sigma, target)

    def shortcut(self, sigma: float, target: float) -> float:
        """``-a B(h) / 2``: the weight of ``D1`` where the paper puts 1/2."""
        h = math.log(sigma / target)
        if self.form == "data":
            return h / 2 if self.variant == "bh1" else -math.expm1(-h) / 2
        return -target * (h if self.variant == "bh1" else math.expm1(h)) / 2
