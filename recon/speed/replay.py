"""Records the calls that a sampler makes of network, operators and noise, and makes the same calls again without it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from operators.base import Linear
from operators.spectral import DECOMPOSITIONS, Spectral

from ..noise import Noise

METHODS = ("forward", "adjoint", "normal", "solve_normal")


class Recorded:
    """A prior that keeps its calls: the state and noise level of each, and its vector-Jacobian products."""

    def __init__(self, prior: Any):
        self.prior = prior
        self.calls: list[tuple[Tensor, float]] = []
        self.vjps: list[int] = []  # of each call: how many ``J^T v`` were computed

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        place, clean = len(self.calls), self.prior(x, sigma)
        self.calls.append((x.detach(), sigma))
        self.vjps.append(0)

        def differentiated(_: Tensor) -> None:
            self.vjps[place] += 1

        if clean.requires_grad:
            clean.register_hook(differentiated)
        return clean

    def __getattr__(self, name: str) -> Any:
        if name == "prior":
            raise AttributeError(name)
        return getattr(self.prior, name)

    def replay(self) -> None:
        """Make the same calls of the prior alone, with as many ``J^T v``."""
        for (x, sigma), vjps in zip(self.calls, self.vjps, strict=True):
            with torch.set_grad_enabled(vjps > 0):
                point = x.detach().requires_grad_(vjps > 0)
                clean = self.prior(point, sigma)
            for left in reversed(range(vjps)):
                torch.autograd.grad(clean, point, x, retain_graph=left > 0)


@dataclass
class CallLog:
    """Calls by name and shapes; ``replay`` makes each as often, with the arguments of the first."""

    counts: Counter[tuple] = field(default_factory=Counter)
    calls: dict[tuple, Callable[[], object]] = field(default_factory=dict)
    inside: bool = False

    def counted(self, name: str, function: Callable[..., Any], owner: object) -> Callable[..., Any]:
        """``function``, whose calls are counted unless they are made by another counted call."""

        def call(*arguments: Any) -> Any:
            if self.inside:
                return function(*arguments)
            key = (name, id(owner), *(tuple(a.shape) for a in arguments if isinstance(a, Tensor)))
            self.counts[key] += 1
            self.calls.setdefault(key, lambda: function(*arguments))
            self.inside = True
            try:
                return function(*arguments)
            finally:
                self.inside = False

        return call

    def replay(self) -> None:
        """Make all calls again."""
        for key, count in self.counts.items():
            for _ in range(count):
                self.calls[key]()

    def __str__(self) -> str:
        names: Counter[str] = Counter()
        for (name, *_), count in self.counts.items():
            names[name] += count
        return ", ".join(f"{count} {name}" for name, count in names.items())


@contextmanager
def operators_recorded(kind: type[Linear]) -> Iterator[CallLog]:
    """Inside, calls of every operator of this class are counted, those that a sampler makes and singular bases too."""
    log = CallLog()

    def method(name: str) -> Callable[..., Any]:
        original = getattr(kind, name)

        def call(self: Linear, *arguments: Any) -> Any:
            return log.counted(name, lambda *given: original(self, *given), self)(*arguments)

        return call

    def decomposed(A: Linear) -> Spectral | None:
        found = decompose(A)
        names = ("coordinates", "image", "measured")
        return found and replace(found, **{n: log.counted(n, getattr(found, n), found) for n in names})

    decompose = DECOMPOSITIONS[kind]
    with ExitStack() as stack:
        for name in METHODS:
            stack.enter_context(patch.object(kind, name, method(name)))
        stack.enter_context(patch.dict(DECOMPOSITIONS, {kind: decomposed}))
        yield log


@contextmanager
def noise_recorded() -> Iterator[CallLog]:
    """Inside, every draw of noise is counted."""
    log, original = CallLog(), Noise.__call__

    def draw(self: Noise, *arguments: Any) -> Tensor:
        return log.counted("draw", lambda *given: original(self, *given), None)(*arguments)

    with patch.object(Noise, "__call__", draw):
        yield log
