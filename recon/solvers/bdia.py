"""BDIA: bidirectional integration, a DDIM step that can be taken back exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from ..errors import ConfigError
from ..processes import VP, Process
from ..state import Estimate, Past, Step
from .base import Solver, euler


@dataclass(frozen=True)
class BDIA(Solver):
    """``z_{i+1} = g (z_{i-1} - T_{i->i-1} z_i) + T_{i->i+1} z_i``: T is DDIM, ``z = a x`` the process's own state.

    In x, with ``c = g a_{i-1} / a_{i+1}``, from p over s to t, and d the last move of x (from p to s):

        x' = x + (t - s) eps + c ((s - p) eps - d),     memory: (x' - x, s)

    Remembering the move instead of the state before lets a posterior move the state: the whole chain moves
    with it. Order 2 for ``gamma = 1`` (the leapfrog method, which damps nothing), else 1; the first
    step is Euler's. `recon.inversion` inverts it; a rounding error grows there by 1 / gamma a step.
    Raises `ConfigError` for a level that the process does not have.
    """

    gamma: float = 1.0
    process: Process = field(default_factory=VP)
    nodes = 2
    reference = "Zhang, Lewis, Kleijn 2023 (BDIA), arXiv 2307.10829"

    def __post_init__(self):
        if not 0 < self.gamma <= 1:
            raise ConfigError(
                f"gamma is {self.gamma:g}.",
                "It lies in (0, 1]; backwards, a rounding error grows by 1 / gamma a step.",
                "Use gamma=1, or ddim.",
            )

    @property
    def order(self) -> int:  # type: ignore[override]
        """2 for gamma = 1, else 1."""
        return 2 if self.gamma == 1 else 1

    def check_levels(self, levels, eps):
        """Raises `ConfigError` for a level that the process does not have."""
        self.process.time(levels[0])

    def advance(self, denoise, x, est, sigma, target, past, draw) -> Step:
        """The step of the class's formula; the first is Euler's."""
        move = est.eps * (target - sigma)
        if past:
            last, before = past
            move = move.add(est.eps * (sigma - before) - last, alpha=self.share(before, target))
        # x itself, not x0 + s eps, which is x rounded: in the inversion that would count
        base = x if est.consistent else euler(est, sigma)
        return Step(base + move, 0.0, est, (move, sigma))

    def reverse(
        self,
        denoise: Callable[[Tensor, float], Estimate],
        x: Tensor,
        target: float,
        past: Past,
        before: float | None,
    ) -> tuple[Tensor, Past]:
        """Undo the step that ended in ``x`` at ``target`` with memory ``past``: the state it came from, and its memory.

        ``d = (s - p) eps + ((t - s) eps - d') / c`` at ``x - d'``. ``before`` is p, None where the step was the first
        (then nothing is asked of ``denoise``). Raises `ConfigError` where the estimate moves the point.
        """
        move, sigma = past
        x = x - move
        if before is None:
            return x, ()
        est = denoise(x, sigma)
        if not est.consistent:
            raise ConfigError(
                "BDIA was asked to go back through a sampler that replaces the image and keeps the noise.",
                "The state before such a correction cannot be found from the state after it.",
                'Use keep="state", or the prior itself.',
            )
        last = est.eps * (sigma - before) + (est.eps * (target - sigma) - move) / self.share(before, target)
        return x, (last, before)

    def share(self, before: float, target: float) -> float:
        """``g a_{i-1} / a_{i+1}``."""
        a, a_next = (self.process.scale(self.process.time(level)) for level in (before, target))
        return self.gamma * a / a_next
