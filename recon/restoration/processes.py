"""IR-SDE, ResShift, RDDM and Resfusion: their tables, their one-step kernels, what their networks predict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, ClassVar

from torch import Tensor

from ..errors import ConfigError
from .base import Restoration, Tabulated


def ramp(start: float, end: float, count: int) -> list[float]:
    """``count`` numbers, evenly spaced from ``start`` to ``end``."""
    return [start + i / (count - 1) * (end - start) for i in range(count)]


@dataclass(frozen=True)
class MeanReverting(Tabulated):
    """IR-SDE, ``dz = theta (y - z) dt + g dw``, ``g^2 = 2 theta sigma_inf^2``: u is the integral of theta.

    ``a = e^-u``, ``b = 1 - a``, ``s = sigma_inf sqrt(1 - a^2)``; scaled so that ``a = eps`` at the end.
    ``schedule`` of theta: "cosine", "linear", "constant". ``sigma_inf`` in units of the image (released
    configurations give 255 times it: 10 for deblurring, else 50). Labels 1 to ``timesteps``; a network
    may also predict "velocity", ``v = a sigma_inf eps - s (x0 - y) / sigma_inf``.
    Luo et al. 2023 (IR-SDE) and its code; velocity: Li et al. 2025 (MR Sampler).
    """

    schedule: str = "cosine"
    timesteps: int = 100
    eps: float = 0.005
    sigma_inf: float = 50 / 255
    first: ClassVar[int] = 1
    kinds: ClassVar[tuple[str, ...]] = (*Restoration.kinds, "velocity")

    def __post_init__(self):
        if self.schedule not in ("cosine", "linear", "constant"):
            raise ConfigError(f"schedule is {self.schedule!r}.", "It is one of cosine, linear, constant.")
        if self.timesteps < 1 or not 0 < self.eps < 1 or not self.sigma_inf > 0:
            raise ConfigError(f"{self!r}.", "It has labels, eps between 0 and 1, and noise at its end.")

    @cached_property
    def table(self) -> Sequence[float]:
        """The integral of theta, scaled to ``-ln eps`` at the end."""
        summed = list(accumulate(self.thetas))
        rising = [value - summed[0] for value in summed]  # theta is not 0 at t = 0, the clean image
        return [-math.log(self.eps) * value / rising[-1] for value in rising]

    @property
    def thetas(self) -> list[float]:
        """theta at t = 0, ..., timesteps, up to a factor."""
        count, offset = self.timesteps + 1, 0.008
        if self.schedule == "constant":
            return [1.0] * count
        if self.schedule == "linear":
            return ramp(1e-4, 2e-2, count)
        kept = [
            math.cos((i / (count + 1) + offset) / (1 + offset) * math.pi / 2) ** 2 for i in range(count + 1)
        ]
        return [1 - value / kept[0] for value in kept[1:]]

    def scale(self, t: float) -> float:
        """``e^-u``."""
        return math.exp(-self.level(t))

    def std(self, t: float) -> float:
        """``sigma_inf sqrt(1 - e^-2u)``."""
        return self.sigma_inf * math.sqrt(-math.expm1(-2 * self.level(t)))

    def anchor(self, t: float) -> float:
        """``1 - e^-u``."""
        return -math.expm1(-self.level(t))

    def sigma(self, t: float) -> float:
        """``sigma_inf sqrt(e^2u - 1)``."""
        return self.sigma_inf * math.sqrt(math.expm1(2 * self.level(t)))

    def rates(self, t: float) -> tuple[float, float]:
        """``(-a u', sigma_inf^2 a^2 u' / s)``."""
        a, s, slope = self.scale(t), self.std(t), self.slope(t)
        return -a * slope, (self.sigma_inf * a) ** 2 * slope / s if s > 0 else math.inf

    def level_of(self, sigma: float) -> float:
        """``ln(1 + (sigma / sigma_inf)^2) / 2``."""
        return math.log1p((sigma / self.sigma_inf) ** 2) / 2

    @property
    def start_std(self) -> float:
        """The released samplers start with all of ``sigma_inf``."""
        return self.sigma_inf

    def clean(self, said: Any, kind: str, z: Tensor, y: Tensor, t: float) -> Tensor:
        """Also from "velocity"."""
        if kind != "velocity":
            return super().clean(said, kind, z, y, t)
        a, b, s = self.scale(t), self.anchor(t), self.std(t)
        return a * z + b * y - s / self.sigma_inf * said


@dataclass(frozen=True)
class ResShift(Tabulated):
    """``a = 1 - eta``, ``b = eta``, ``s = kappa sqrt(eta)``; u is sqrt(eta).

    ``sqrt(eta)`` grows from ``min(low / kappa, low)`` at label 0 to ``high`` geometrically in
    ``((k - 1) / (T - 1))^power``: T = 15 with low = .04, or T = 4 with low = .2. Released networks take
    ``z / sqrt(kappa^2 eta + 1)`` for an input and do so themselves.
    Yue et al. 2023 (ResShift) and its code.
    """

    timesteps: int = 15
    kappa: float = 2.0
    power: float = 0.3
    low: float = 0.04
    high: float = 0.99

    def __post_init__(self):
        if self.timesteps < 2 or not self.kappa > 0 or not 0 < self.bottom < self.high < 1:
            raise ConfigError(f"{self!r}.", "sqrt(eta) rises from low to high < 1, in two labels or more.")

    @property
    def bottom(self) -> float:
        """``sqrt(eta)`` at label 0."""
        return min(self.low / self.kappa, self.low)

    @cached_property
    def table(self) -> Sequence[float]:
        """``sqrt(eta)`` at the labels, after 0 for the clean image."""
        growth = math.log(self.high / self.bottom)
        shares = (k / (self.timesteps - 1) for k in range(self.timesteps))
        return [0.0, *(self.bottom * math.exp(growth * share**self.power) for share in shares)]

    def scale(self, t: float) -> float:
        """``1 - eta``."""
        return 1 - self.level(t) ** 2

    def std(self, t: float) -> float:
        """``kappa sqrt(eta)``."""
        return self.kappa * self.level(t)

    def anchor(self, t: float) -> float:
        """eta."""
        return self.level(t) ** 2

    def rates(self, t: float) -> tuple[float, float]:
        """``(-2 u u', kappa u')``."""
        return -2 * self.level(t) * self.slope(t), self.kappa * self.slope(t)

    def level_of(self, sigma: float) -> float:
        """Root of ``sigma u^2 + kappa u = sigma`` in the form that keeps its digits for small sigma."""
        return 2 * sigma / (self.kappa + math.sqrt(self.kappa**2 + 4 * sigma**2))

    def reverse_noise(self, sigma: float, target: float) -> float:
        """That of independent increments."""
        return self.increment_noise(sigma, target)


@dataclass(frozen=True)
class RDDM(Restoration):
    """``a = 1 - abar``, ``b = abar``, ``s = bbar``: the residual falls off as noise of variance ``total`` comes in.

    Steps of abar fall linearly in the label and sum to 1, those of bbar^2 rise and sum to ``total``: .01
    for restoration, 1 for generation (y = 0). Between labels the sums' own quadratics. At the end a = 0.
    The released sampler's eta multiplies the variance: it is the square of `recon.solvers.Ancestral`'s.
    Its networks predict a "pair" or one of the two; of a pair that does not agree with y, x0 is kept.
    Liu et al. 2024 (RDDM) and its code.
    """

    timesteps: int = 1000
    total: float = 0.01

    def __post_init__(self):
        if self.timesteps < 2 or not self.total > 0:
            raise ConfigError(f"{self!r}.", "It has two labels or more, and noise at its end.")

    @property
    def end(self) -> float:  # type: ignore[override]
        """``timesteps``."""
        return float(self.timesteps)

    @property
    def area(self) -> float:
        """``T (T + 1)``, twice the sum of the labels."""
        return self.timesteps * (self.timesteps + 1.0)

    def scale(self, t: float) -> float:
        """``1 - abar``."""
        return (self.timesteps - t) * (self.timesteps - t + 1) / self.area

    def anchor(self, t: float) -> float:
        """abar."""
        return t * (2 * self.timesteps - t + 1) / self.area

    def std(self, t: float) -> float:
        """bbar."""
        return math.sqrt(self.total * t * (t + 1) / self.area)

    def rates(self, t: float) -> tuple[float, float]:
        """Derivatives of the quadratics between the labels."""
        s = self.std(t)
        slope = self.total * (2 * t + 1) / (2 * s * self.area) if s > 0 else math.inf
        return -(2 * (self.timesteps - t) + 1) / self.area, slope

    def reverse_noise(self, sigma: float, target: float) -> float:
        """That of independent increments."""
        return self.increment_noise(sigma, target)


@dataclass(frozen=True)
class Resfusion(Tabulated):
    """``a = 2r - 1``, ``b = 1 - r``, ``s = sqrt(1 - r^2)``, ``r = sqrt(abar)`` of a DDPM table; u is 1 - r.

    The table of ``timesteps`` linear betas from .1 to 20 over T, to where r is nearest 1/2 and a all but 0:
    a last label that falls short by more than .01 is put at 1/2 (T = 12 leaves 5 labels). A network may
    also predict "resnoise", ``n = eps + c (y - x0)``, ``c = s / (1 + r_t / r_(t-1))``.
    Shi et al. 2024 (Resfusion), eq. 20, 24 and 33, and its code (LinearPro).
    """

    timesteps: int = 12
    kinds: ClassVar[tuple[str, ...]] = (*Restoration.kinds, "resnoise")

    def __post_init__(self):
        if self.timesteps < 4:
            raise ConfigError(f"{self!r}.", "Its table falls to r = 1/2 in at least two labels.", "Use 12.")

    @cached_property
    def table(self) -> Sequence[float]:
        """``1 - sqrt(abar)`` at the labels, to where it is nearest 1/2."""
        r, before = 1.0, [0.0]
        for beta in ramp(0.1 / self.timesteps, 20 / self.timesteps, self.timesteps):
            r_last, r = r, r * math.sqrt(max(1 - beta, 0.0))
            if r <= 0.5:
                break
            before.append(1 - r)
        if 0.5 - r > 0.01:
            return [*before, 0.5]
        return before if r_last - 0.5 < 0.5 - r else [*before, 1 - r]

    def scale(self, t: float) -> float:
        """``2 r - 1``."""
        return 1 - 2 * self.level(t)

    def std(self, t: float) -> float:
        """``sqrt(1 - r^2)``."""
        u = self.level(t)
        return math.sqrt(u * (2 - u))

    def anchor(self, t: float) -> float:
        """``1 - r``."""
        return self.level(t)

    def rates(self, t: float) -> tuple[float, float]:
        """``(-2 u', (1 - u) u' / s)``."""
        s, slope = self.std(t), self.slope(t)
        return -2 * slope, (1 - self.level(t)) * slope / s if s > 0 else math.inf

    def level_of(self, sigma: float) -> float:
        """``1 - r``, r the larger root of ``(4 v + 1) r^2 - 4 v r + v = 1``, v = sigma^2."""
        v = sigma**2
        return v / (2 * v + 1 + math.sqrt(3 * v + 1))

    def reverse_noise(self, sigma: float, target: float) -> float:
        """``q^2 = (1 - abar') / (1 - abar) (1 - abar / abar')`` in z, over a'."""
        t, after = self.time(sigma), self.time(target)
        share = (1 - self.level(t)) / (1 - self.level(after))
        return self.std(after) / self.std(t) * math.sqrt(max(1 - share**2, 0.0)) / self.scale(after)

    def residual_share(self, t: float) -> float:
        """c of "resnoise": ``(1 - sqrt(alpha)) sqrt(1 - abar) / beta``, alpha the step's own."""
        return self.std(t) / (1 + (1 - self.level(t)) / (1 - self.level(max(t - 1, 0.0))))

    def clean(self, said: Any, kind: str, z: Tensor, y: Tensor, t: float) -> Tensor:
        """Also from "resnoise"."""
        if kind != "resnoise":
            return super().clean(said, kind, z, y, t)
        a, b, s = self.scale(t), self.anchor(t), self.std(t)
        share = s * self.residual_share(t)
        return (z - (b - share) * y - s * said) / (a + share)
