"""What restoration processes ``z_t = a_t x0 + b_t y + s_t eps`` share: they end at y, the degraded image, plus noise.

t counts the forward steps made: 0 is the clean image, ``end`` the start of sampling, and between the
integers, which are what networks were trained at, each process says what it interpolates. The state
everywhere else is ``x = (z_t - b_t y) / a_t``, so every solver and every posterior runs them.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

from torch import Tensor

from ..errors import ConfigError
from ..processes import Process

LIMIT = math.exp(5.0)  # the largest usable sigma: beyond half log-SNR -5 the rounding of x0 + sigma eps shows


class Restoration(Process):
    """What the four share: labels, the model's own start, and what a network's output says of x0.

    ``kinds`` of output: "data" x0; "residual" y - x0; "noise" eps; "pair" (residual, noise). A network's
    label is ``t - 1 + first``.
    """

    first: ClassVar[int] = 0
    kinds: ClassVar[tuple[str, ...]] = ("data", "residual", "noise", "pair")

    @property
    def top(self) -> float:
        """The largest usable sigma."""
        return min(self.sigma(self.end), LIMIT)

    @property
    def reaches_end(self) -> bool:
        """Whether its own start has a usable sigma; where a = 0 it has none."""
        return self.sigma(self.end) <= LIMIT

    @property
    def start_std(self) -> float:
        """Noise of the start ``z_T = (a_T + b_T) y + noise``."""
        return self.std(self.end)

    def label(self, t: float) -> float:
        """The network's label, within those it knows."""
        return min(max(t, 1.0), self.end) - 1 + self.first

    def levels(self, steps: int) -> list[float]:
        """The models' own grid: ``steps`` labels evenly spaced from the end, then 0, as levels of sigma.

        Without those above `top`, which the start passes. Raises `ConfigError` for more steps than labels.
        """
        if not 1 <= steps <= self.end:
            raise ConfigError(
                f"{type(self).__name__} was asked for {steps} steps.",
                f"It has {self.end:g} labels.",
                'Ask for fewer, or use a named grid: grid="exponential".',
            )
        times = [round(self.end * k / steps) for k in range(steps, -1, -1)]
        return [sigma for sigma in map(self.sigma, times) if sigma <= LIMIT]

    def clean(self, said: Any, kind: str, z: Tensor, y: Tensor, t: float) -> Tensor:
        """x0 from what the network ``said`` at ``(z, t)``, a tensor or, for "pair", two."""
        a, b, s = self.scale(t), self.anchor(t), self.std(t)
        if kind == "data":
            return said
        if kind == "residual":
            return y - said
        if kind == "noise":
            return (z - b * y - s * said) / a
        residual, noise = said  # z = (a + b) x0 + b (y - x0) + s eps
        return (z - b * residual - s * noise) / (a + b)

    def increment_noise(self, sigma: float, target: float) -> float:
        """q of a chain that adds independent increments to z: ``q^2 = s'^2 (s^2 - s'^2) / s^2``, over a'."""
        t = self.time(target)
        s, s_next = self.std(self.time(sigma)), self.std(t)
        return s_next * math.sqrt(max(1 - (s_next / s) ** 2, 0.0)) / self.scale(t)


class Tabulated(Restoration):
    """One number u, given at the labels and linear between them, says everything; u rises from 0."""

    @cached_property
    def table(self) -> Sequence[float]:
        """u at t = 0, 1, ..., end."""
        raise NotImplementedError

    @property
    def end(self) -> float:  # type: ignore[override]
        """The last label."""
        return float(len(self.table) - 1)

    def level(self, t: float) -> float:
        """u at t."""
        index = min(max(int(t), 0), len(self.table) - 2)
        low, high = self.table[index], self.table[index + 1]
        return low + (t - index) * (high - low)

    def slope(self, t: float) -> float:
        """du/dt, at a label that of the step before it."""
        index = min(max(math.ceil(t) - 1, 0), len(self.table) - 2)
        return self.table[index + 1] - self.table[index]

    def place(self, level: float) -> float:
        """t at which u is ``level``, at most the end."""
        index = min(max(bisect_left(self.table, level), 1), len(self.table) - 1)
        low, high = self.table[index - 1], self.table[index]
        return min(index - 1 + (level - low) / (high - low), self.end)

    def level_of(self, sigma: float) -> float:
        """u at which ``s / a = sigma``."""
        raise NotImplementedError

    def time(self, sigma: float) -> float:
        """By interpolation of u; raises `ConfigError` beyond the end."""
        if sigma > self.sigma(self.end) * (1 + 1e-9):
            return super().time(sigma)  # refuses
        return self.place(self.level_of(sigma))
