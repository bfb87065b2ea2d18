"""Noising processes ``z_t = a_t x0 + b_t y + s_t eps`` in their own time t: only for those who need a clock.

The state everywhere else is ``x = (z_t - b_t y) / a_t = x0 + sigma eps``, ``sigma = s_t / a_t``, so most
solvers never ask. Reverse-diffusion steps, Adams weights in t, DDPM's larger variance, Runge-Kutta on a flow
and grids uniform in t do. All in float64 Python numbers.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import ClassVar

from .errors import ConfigError


class Process:
    """``scale`` a, ``std`` s and ``anchor`` b as functions of t, and t as a function of sigma.

    ``sigma`` rises with t. A member gives ``scale``, ``std``, ``rates``; ``time`` is a bisection in
    those without a closed form.
    """

    end: float = 1.0  # the largest time
    preserving: ClassVar[bool] = False  # whether a^2 + s^2 = 1

    def scale(self, t: float) -> float:
        """a_t."""
        raise NotImplementedError

    def std(self, t: float) -> float:
        """s_t."""
        raise NotImplementedError

    def rates(self, t: float) -> tuple[float, float]:
        """``(da/dt, ds/dt)``."""
        raise NotImplementedError

    def anchor(self, t: float) -> float:
        """b_t, the share of the known image y; 0 for a plain diffusion."""
        return 0.0

    def sigma(self, t: float) -> float:
        """``s_t / a_t``; infinite where nothing is left of the image."""
        a = self.scale(t)
        return self.std(t) / a if a > 0 else math.inf

    def time(self, sigma: float) -> float:
        """t at which the process has this sigma (0 at 0)."""
        low, high = 0.0, self.end
        if sigma > self.sigma(high):
            raise ConfigError(
                f"{type(self).__name__} was asked for sigma {sigma:.4g}.",
                f"Its largest is {self.sigma(high):.4g}, at t = {high:g}.",
                "Start lower (sigma_start), or choose a process that goes that far.",
            )
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if self.sigma(middle) < sigma else (low, middle)
        return high

    def sigma_rate(self, t: float) -> float:
        """d sigma / dt."""
        a, (a_rate, s_rate) = self.scale(t), self.rates(t)
        return (s_rate - self.std(t) * a_rate / a) / a

    def drift(self, t: float) -> float:
        """``f = d ln a / dt`` of ``dz = f z dt + g dw``."""
        return self.rates(t)[0] / self.scale(t)

    def diffusion(self, t: float) -> float:
        """``g^2 = d s^2 / dt - 2 f s^2``; ``-2 f`` where ``a^2 + s^2 = 1`` (there ds/dt has no limit at 0)."""
        if self.preserving:
            return -2 * self.drift(t)
        s, (_, rate) = self.std(t), self.rates(t)
        return max(2 * s * rate - 2 * self.drift(t) * s * s, 0.0)

    def reverse_noise(self, sigma: float, target: float) -> float:
        """q, in units of x, of the process's own one-step reverse kernel ``q(z_t' | z_t, x0)``.

        ``q^2 = t^2 (1 - t^2 / s^2)`` in terms of sigma, whatever the time: the posterior of a Markov chain.
        """
        return target * math.sqrt(max(1 - (target / sigma) ** 2, 0.0))


@dataclass(frozen=True)
class VE(Process):
    """Variance exploding: ``a = 1``, ``s = low (high/low)^t``. Song et al. 2021; .01 to 50 for CIFAR-10."""

    low: float = 0.01
    high: float = 50.0

    def scale(self, t: float) -> float:
        """1."""
        return 1.0

    def std(self, t: float) -> float:
        """``low (high / low)^t``."""
        return self.low * (self.high / self.low) ** t

    def rates(self, t: float) -> tuple[float, float]:
        """``(0, s ln(high / low))``."""
        return 0.0, self.std(t) * math.log(self.high / self.low)

    def time(self, sigma: float) -> float:
        """``ln(sigma / low) / ln(high / low)``; minus infinity at 0."""
        return math.log(sigma / self.low) / math.log(self.high / self.low) if sigma > 0 else -math.inf


@dataclass(frozen=True)
class VP(Process):
    """Variance preserving, linear beta: ``a = exp(-t^2 (B1 - B0)/4 - t B0/2)``, ``s = sqrt(1 - a^2)``.

    Song et al. 2021; t in [1e-3, 1]. Any sigma has a time, beyond 1 if need be.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    preserving = True

    def log_scale(self, t: float) -> float:
        """``ln a = -t^2 (B1 - B0) / 4 - t B0 / 2``."""
        return -(t**2) * (self.beta_max - self.beta_min) / 4 - t * self.beta_min / 2

    def scale(self, t: float) -> float:
        """``exp(ln a)``."""
        return math.exp(self.log_scale(t))

    def std(self, t: float) -> float:
        """``sqrt(1 - a^2)``, exact to rounding at small t."""
        return math.sqrt(-math.expm1(2 * self.log_scale(t)))

    def sigma(self, t: float) -> float:
        """``sqrt(a^-2 - 1)``, exact to rounding at small t."""
        return math.sqrt(math.expm1(-2 * self.log_scale(t)))

    def rates(self, t: float) -> tuple[float, float]:
        """``(-beta a / 2, beta a^2 / (2 s))``, ``beta = B0 + t (B1 - B0)``."""
        a, beta = self.scale(t), self.beta_min + t * (self.beta_max - self.beta_min)
        return -beta / 2 * a, beta / 2 * a * a / self.std(t) if t > 0 else math.inf

    def time(self, sigma: float) -> float:
        """By the closed form of `time_of`, for any sigma."""
        return self.time_of(math.log1p(sigma * sigma))

    def time_of(self, minus_two_log_scale: float) -> float:
        """Root of ``t^2 (B1 - B0)/2 + t B0 = L`` in the form that keeps its digits for small L."""
        if minus_two_log_scale == 0:
            return 0.0
        slope, linear = (self.beta_max - self.beta_min) / 2, self.beta_min
        return 2 * minus_two_log_scale / (linear + math.sqrt(linear**2 + 4 * slope * minus_two_log_scale))


@dataclass(frozen=True)
class SubVP(VP):
    """As VP with ``s = 1 - a^2`` (not its root). Song et al. 2021, eq. 13."""

    preserving = False

    def std(self, t: float) -> float:
        """``1 - a^2``."""
        return -math.expm1(2 * self.log_scale(t))

    def sigma(self, t: float) -> float:
        """``(1 - a^2) / a = -2 sinh(ln a)``."""
        return -2 * math.sinh(self.log_scale(t))

    def rates(self, t: float) -> tuple[float, float]:
        """``(-beta a / 2, beta a^2)``."""
        a, beta = self.scale(t), self.beta_min + t * (self.beta_max - self.beta_min)
        return -beta / 2 * a, beta * a * a

    def time(self, sigma: float) -> float:
        """By `time_of` with ``-2 ln a = 2 asinh(sigma / 2)``."""
        return self.time_of(2 * math.asinh(sigma / 2))


@dataclass(frozen=True)
class Cosine(Process):
    """``a = cos((t + c)/(1 + c) pi/2) / cos(c/(1 + c) pi/2)``, c = .008. Nichol, Dhariwal 2021.

    It ends where ln(a/s) = -5.1, as in Lu et al.'s code: beyond, a falls to 0.
    """

    offset: float = 0.008
    preserving = True

    @property
    def end(self) -> float:  # type: ignore[override]
        """Where ``ln(a / s) = -5.1``."""
        return self.time_of(math.exp(5.1))

    def angle(self, t: float) -> float:
        """``(t + c) / (1 + c) pi / 2``."""
        return (t + self.offset) / (1 + self.offset) * math.pi / 2

    def scale(self, t: float) -> float:
        """``cos(angle(t)) / cos(angle(0))``."""
        return min(math.cos(self.angle(t)) / math.cos(self.angle(0.0)), 1.0)

    def std(self, t: float) -> float:
        """``cos^2 p - cos^2 q = sin(q - p) sin(q + p)``: keeps its digits at small t."""
        start, turned = self.angle(0.0), t / (1 + self.offset) * math.pi / 2
        return math.sqrt(max(math.sin(turned) * math.sin(turned + 2 * start), 0.0)) / math.cos(start)

    def rates(self, t: float) -> tuple[float, float]:
        """``(a', -a a' / s)``, since ``a^2 + s^2 = 1``."""
        slope = -math.sin(self.angle(t)) * math.pi / 2 / (1 + self.offset) / math.cos(self.angle(0.0))
        s = self.std(t)
        return slope, -self.scale(t) * slope / s if s > 0 else math.inf

    def time(self, sigma: float) -> float:
        """By `time_of`; raises `ConfigError` beyond the end."""
        if sigma > math.exp(5.1) * (1 + 1e-9):
            return super().time(sigma)  # refuses
        return self.time_of(sigma)

    def time_of(self, sigma: float) -> float:
        """``tan^2 q = (sigma^2 + sin^2 p) / cos^2 p`` from angle p at t = 0 to q; their difference by its tangent."""
        sine, cosine = math.sin(self.angle(0.0)), math.cos(self.angle(0.0))
        root = math.hypot(sigma, sine)
        turned = math.atan2(sigma * sigma * cosine, (root + sine) * (cosine * cosine + root * sine))
        return turned * 2 / math.pi * (1 + self.offset)


@dataclass(frozen=True)
class Flow(Process):
    """Rectified flow: ``a = 1 - t``, ``s = t``. Liu et al. 2023; Lipman et al. 2023."""

    def scale(self, t: float) -> float:
        """1 - t."""
        return 1.0 - t

    def std(self, t: float) -> float:
        """t."""
        return t

    def rates(self, t: float) -> tuple[float, float]:
        """(-1, 1)."""
        return -1.0, 1.0

    def time(self, sigma: float) -> float:
        """``sigma / (1 + sigma)``."""
        return sigma / (1 + sigma)


@dataclass(frozen=True)
class Discrete(Process):
    """VP of a DDPM table: ``ln a`` linear between ``t_n = (n + 1) / N``, and 0 at t = 0.

    ``alphas_cumprod`` (N,) falling; a model's label is ``N t - 1``. Lu et al. 2022.
    """

    alphas_cumprod: tuple[float, ...]
    preserving = True

    def __post_init__(self):
        table = (1.0, *self.alphas_cumprod)
        if len(table) < 2 or not all(a > b > 0 for a, b in pairwise(table)):
            raise ConfigError(
                f"A table of {len(table) - 1} alphas_cumprod that does not fall strictly from below 1 to above 0.",
                "Its levels would not be finite and distinct.",
                "Give cumulative products of 1 - beta; a last entry of 0 (zero terminal SNR) is left out.",
            )

    @classmethod
    def linear(cls, steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Discrete:
        """The table of Ho et al. 2020: beta linear from 1e-4 to .02 in 1000 steps."""
        betas = (beta_start + i / (steps - 1) * (beta_end - beta_start) for i in range(steps))
        return cls(tuple(accumulate((1 - beta for beta in betas), lambda a, b: a * b)))

    @cached_property
    def log_scales(self) -> Sequence[float]:
        """``ln a`` at t = 0, 1/N, ..., 1."""
        return [0.0, *(0.5 * math.log(a) for a in self.alphas_cumprod)]

    def log_scale(self, t: float) -> float:
        """Linear between the nodes."""
        place = min(max(t, 0.0), 1.0) * len(self.alphas_cumprod)
        index = min(int(place), len(self.alphas_cumprod) - 1)
        low, high = self.log_scales[index], self.log_scales[index + 1]
        return low + (place - index) * (high - low)

    def scale(self, t: float) -> float:
        """``exp(ln a)``."""
        return math.exp(self.log_scale(t))

    def std(self, t: float) -> float:
        """``sqrt(1 - a^2)``."""
        return math.sqrt(-math.expm1(2 * self.log_scale(t)))

    def rates(self, t: float) -> tuple[float, float]:
        """By the slope of ``ln a`` between its nodes, at a node that of the interval before it."""
        count = len(self.alphas_cumprod)
        index = min(max(math.ceil(t * count) - 1, 0), count - 1)
        a = self.scale(t)
        slope = (self.log_scales[index + 1] - self.log_scales[index]) * count * a
        return slope, -a * slope / self.std(t) if t > 0 else math.inf

    def time(self, sigma: float) -> float:
        """By interpolation of ``ln a``; raises `ConfigError` beyond the table."""
        if sigma > self.sigma(1.0) * (1 + 1e-9):
            return super().time(sigma)  # refuses
        wanted = -0.5 * math.log1p(sigma * sigma)
        falling = [-value for value in self.log_scales]
        index = min(max(bisect_left(falling, -wanted), 1), len(falling) - 1)
        low, high = falling[index - 1], falling[index]
        return (index - 1 + (-wanted - low) / (high - low)) / len(self.alphas_cumprod)
