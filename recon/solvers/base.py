"""The contract of a solver: one step between two noise levels, its memory in and out."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol

from torch import Tensor

from ..noise import Draw
from ..state import Estimate, Past, Step

Denoise = Callable[[Tensor, float], Estimate]


class Solver(Protocol):
    """``step(denoise, x, sigma, target, past, draw)`` -> the kernel from ``sigma`` down to ``target >= 0``.

    ``order``: global order on a smooth problem (weak order where stochastic), 0 where more steps do
    not converge to it. ``evals``: calls of ``denoise`` a step (a step to ``target = 0`` may take
    fewer). ``stochastic``: whether it adds noise. ``kernel``: whether ``N(mean, std^2)`` is all of its
    randomness. A solver object is configuration; its memory is ``past``, newest first, and ``past=()``
    restarts it at order one.
    """

    order: int
    evals: ClassVar[int]
    stochastic: bool
    kernel: ClassVar[bool]
    reference: ClassVar[str]

    def step(
        self, denoise: Denoise, x: Tensor, sigma: float, target: float, past: Past, draw: Draw
    ) -> Step: ...
