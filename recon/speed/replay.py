"""What a sampler asks of the network, the operators and the noise while it runs, so that the same can be asked bare."""

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
from operators.spectral import KINDS, Spectral

from ..noise import Noise

METHODS = ("forward", "adjoint", "normal", "solve_normal")


class Recorded:
    """A prior that keeps its calls: each with its state and level, and how often it was differentiated."""

    def __init__(self, prior: Any):
        self.prior = prior
        self.calls: list[tuple[Tensor, float]] = []
        self.pulls: list[int] = []  # of each call: ``J^T v`` that were asked for

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        place, clean = len(self.calls), self.prior(x, sigma)
        self.calls.append((x.detach(), sigma))
        self.pulls.append(0)

        def pulled(_: Tensor) -> None:
            self.pulls[place] += 1

        if clean.requires_grad:
            clean.register_hook(pulled)
        return clean

    def __getattr__(self, name: str) -> Any:
        if name == "prior":
            raise AttributeError(name)
        return getattr(self.prior, name)

    def again(self) -> None:
        """The same calls of the prior alone, and ``J^T v`` as often."""
        for (x, sigma), pulls in zip(self.calls, self.pulls, strict=True):
            with torch.set_grad_enabled(pulls > 0):
                point = x.detach().requires_grad_(pulls > 0)
                clean = self.prior(point, sigma)
            for left in reversed(range(pulls)):
                torch.autograd.grad(clean, point, x, retain_graph=left > 0)


@dataclass
class Asked:
    """Calls of operators by name; ``again`` makes each as often, with what it was given first."""

    counts: Counter[tuple] = field(default_factory=Counter)
    calls: dict[tuple, Callable[[], object]] = field(default_factory=dict)
    inside: bool = False

    def counted(self, name: str, function: Callable[..., Any], owner: object) -> Callable[..., Any]:
        """``function``, counted where no other counted call is under way."""

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

    def again(self) -> None:
        for key, count in self.counts.items():
            for _ in range(count):
                self.calls[key]()

    def __str__(self) -> str:
        names: Counter[str] = Counter()
        for (name, *_), count in self.counts.items():
            names[name] += count
        return ", ".join(f"{count} {name}" for name, count in names.items())


@contextmanager
def operators_recorded(kind: type[Linear]) -> Iterator[Asked]:
    """Inside, every operator of this kind is counted, also those a sampler makes, and its singular coordinates."""
    asked = Asked()

    def method(name: str) -> Callable[..., Any]:
        original = getattr(kind, name)

        def call(self: Linear, *arguments: Any) -> Any:
            return asked.counted(name, lambda *given: original(self, *given), self)(*arguments)

        return call

    def decomposed(A: Linear) -> Spectral | None:
        found = decompose(A)
        names = ("coordinates", "image", "measured")
        return found and replace(found, **{n: asked.counted(n, getattr(found, n), found) for n in names})

    decompose = KINDS[kind]
    with ExitStack() as stack:
        for name in METHODS:
            stack.enter_context(patch.object(kind, name, method(name)))
        stack.enter_context(patch.dict(KINDS, {kind: decomposed}))
        yield asked


@contextmanager
def noise_recorded() -> Iterator[Asked]:
    """Inside, every draw of noise is counted."""
    asked, original = Asked(), Noise.__call__

    def draw(self: Noise, *arguments: Any) -> Tensor:
        return asked.counted("draw", lambda *given: original(self, *given), None)(*arguments)

    with patch.object(Noise, "__call__", draw):
        yield asked
