"""The contract of a solver: one step between two noise levels, its memory in and out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from torch import Tensor

from ..noise import Draw
from ..state import Estimate, Past, Step

Denoise = Callable[[Tensor, float], Estimate]


class Solver:
    """``step(denoise, x, sigma, target, past, draw)`` -> the kernel from ``sigma`` down to ``target >= 0``.

    ``order``: global order on a smooth problem (weak order where stochastic), 0 where more steps do
    not converge to it. ``evals``: calls of ``denoise`` a step; ``warmup``: those of the first steps, and
    of the first after a jump, where they differ. ``nodes``: evaluations a multistep method combines.
    ``stochastic``: whether it adds noise. ``kernel``: whether ``N(mean, std^2)`` is all of its
    randomness. A solver object is configuration; its memory is ``past``, newest first, and ``past=()``
    restarts it at order one. Two rules keep every method right under every posterior: the step starts
    at ``est.x0 + sigma * est.eps``, and what is differenced or remembered is ``est.slope`` or ``est.eps``.
    """

    order: int = 1
    evals: int = 1
    warmup: tuple[int, ...] = ()
    nodes: int = 1
    stochastic: bool = False
    kernel: bool = True
    reference: ClassVar[str] = ""

    def step(self, denoise: Denoise, x: Tensor, sigma: float, target: float, past: Past, draw: Draw) -> Step:
        """The first evaluation, and the end: a step to 0 is the denoised image, whatever the method."""
        est = denoise(x, sigma)
        if target == 0:
            return Step(est.x0, 0.0, est)
        return self.advance(denoise, x, est, sigma, target, past, draw)

    def advance(
        self,
        denoise: Denoise,
        x: Tensor,
        est: Estimate,
        sigma: float,
        target: float,
        past: Past,
        draw: Draw,
    ) -> Step:
        """The method's own step to ``target > 0``, from the first evaluation ``est``."""
        raise NotImplementedError

    def calls(self, steps: int) -> int:
        """Evaluations of a walk of ``steps`` steps, the last of them to 0."""
        first = self.warmup[: steps - 1]
        return sum(first) + self.evals * (steps - 1 - len(first)) + 1

    def admit(self, levels: Sequence[float], relative_rounding: float) -> None:
        """Refuse a grid this method cannot walk; ``relative_rounding`` is that of the state's dtype."""


def least_steps(solver) -> int:
    """Steps below which a solver gains nothing from its order: its evaluations where it combines several."""
    nodes = getattr(solver, "nodes", 1)
    return nodes if nodes > 1 else solver.order


def euler(est: Estimate, target: float) -> Tensor:
    """``x0 + t eps``: the step of order one that every method starts from."""
    return est.x0.add(est.eps, alpha=target)


def differences(mean: Tensor, values: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """``mean + sum_j w_j (v_j - v_0)``, j = 1, 2, ..."""
    if not weights:
        return mean
    mean = mean.add(values[0], alpha=-sum(weights))
    for value, weight in zip(values[1:], weights, strict=True):
        mean = mean.add_(value, alpha=weight)
    return mean
