"""One evaluation, no memory: ``x' = x0 + sqrt(t^2 - q^2) eps + q z``; the methods differ in q."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..state import Step


class OneStep:
    """Shared step of the family; a member says ``noise_level(s, t) = q`` with ``0 <= q <= t``."""

    order, evals, kernel = 1, 1, True
    eta: float = 0.0

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def noise_level(self, sigma: float, target: float) -> float:
        raise NotImplementedError

    def step(self, denoise, x, sigma, target, past, draw) -> Step:
        est = denoise(x, sigma)
        if target == 0:
            return Step(est.x0, 0.0, est)
        q = self.noise_level(sigma, target)
        return Step(est.x0 + math.sqrt(max(target**2 - q**2, 0.0)) * est.eps, q, est)


@dataclass(frozen=True)
class Euler(OneStep):
    """``x' = x0 + t eps``: Euler in sigma, which is DDIM with eta = 0 (Song et al. 2021)."""

    reference = "Song, Meng, Ermon 2021 (DDIM); Karras et al. 2022"

    def noise_level(self, sigma: float, target: float) -> float:
        return 0.0


@dataclass(frozen=True)
class DDIM(OneStep):
    """``q^2 = eta^2 t^2 (1 - t^2/s^2)``: eta = 0 deterministic, eta = 1 ancestral DDPM."""

    eta: float = 0.0
    reference = "Song, Meng, Ermon 2021, eq. 12 and 16"

    def noise_level(self, sigma: float, target: float) -> float:
        return self.eta * target * math.sqrt(max(1 - (target / sigma) ** 2, 0.0))


@dataclass(frozen=True)
class Renoise(OneStep):
    """``q = eta t``: a share eta of the whole next level is fresh noise (the eta of DDS and DDNM).

    Order 0 for eta > 0: noise is a share a step, not a rate. With many steps the law settles at each
    level's own fixed point, narrower than the exact one: ``eta^2 s^2 / (1 - B^2)`` on N(m, c I), with
    ``B = K + sqrt(1 - eta^2) (1 - K)``, ``K = c / (c + s^2)``.
    """

    eta: float = 0.85
    reference = "Chung, Lee, Ye 2024 (DDS), eq. 20; Wang et al. 2023 (DDNM)"

    @property
    def order(self) -> int:
        return 0 if self.eta > 0 else 1

    def noise_level(self, sigma: float, target: float) -> float:
        return self.eta * target
