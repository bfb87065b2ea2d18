"""One evaluation, no memory: ``x' = x0 + sqrt(t^2 - q^2) eps + q z``; the methods differ in q."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ..errors import ConfigError
from ..processes import VP, Process
from ..state import Step
from .base import Solver, euler


class OneStep(Solver):
    """Shared step of the family; a member says ``noise_level(s, t) = q`` with ``0 <= q <= t``."""

    eta: float = 0.0

    @property
    def stochastic(self) -> bool:
        """Whether eta is positive."""
        return self.eta > 0

    def noise_level(self, sigma: float, target: float) -> float:
        """q, the standard deviation of the fresh noise at ``target``, ``0 <= q <= target``."""
        raise NotImplementedError

    def advance(self, denoise, x, est, sigma, target, past, draw) -> Step:
        """``N(x0 + sqrt(t^2 - q^2) eps, q^2)``."""
        q = self.noise_level(sigma, target)
        return Step(euler(est, math.sqrt(max(target**2 - q**2, 0.0))), q, est)


@dataclass(frozen=True)
class Euler(OneStep):
    """``x' = x0 + t eps``: Euler in sigma, which is DDIM with eta = 0 and DPM-Solver-1."""

    reference = "Song, Meng, Ermon 2021 (DDIM); Karras et al. 2022"

    def noise_level(self, sigma: float, target: float) -> float:
        """0."""
        return 0.0


@dataclass(frozen=True)
class DDIM(OneStep):
    """``q^2 = eta^2 t^2 (1 - t^2/s^2)``: eta = 0 deterministic, eta = 1 ancestral DDPM."""

    eta: float = 0.0
    reference = "Song, Meng, Ermon 2021, eq. 12 and 16"

    def noise_level(self, sigma: float, target: float) -> float:
        """``eta t sqrt(1 - t^2 / s^2)``."""
        return self.eta * target * math.sqrt(max(1 - (target / sigma) ** 2, 0.0))


@dataclass(frozen=True)
class DDPM(DDIM):
    """Ancestral sampling: the mean of DDIM(1), noise of the posterior variance ("small") or of beta ("large").

    "large": ``q^2 = (1 - (a/a')^2) / a'^2`` in units of x, of ``process``; more noise than the mean
    left room for, so the marginals are right to first order only.
    """

    eta: float = 1.0
    variance: str = "small"
    process: Process = field(default_factory=VP)
    reference = "Ho, Jain, Abbeel 2020, eq. 7 and section 3.2"

    def __post_init__(self):
        if self.variance not in ("small", "large"):
            raise ConfigError(f"variance is {self.variance!r}.", 'It is "small" or "large".')

    def advance(self, denoise, x, est, sigma, target, past, draw) -> Step:
        """The mean of DDIM(1), and the noise of ``variance``."""
        step = super().advance(denoise, x, est, sigma, target, past, draw)
        if self.variance == "small":
            return step
        a, a_next = (self.process.scale(self.process.time(level)) for level in (sigma, target))
        return Step(step.mean, math.sqrt(max(1 - (a / a_next) ** 2, 0.0)) / a_next, est)


@dataclass(frozen=True)
class Ancestral(OneStep):
    """``q = eta q_process``: the reverse kernel of the process's own Markov chain.

    For VE and VP chains that is DDIM(eta), k-diffusion's Euler-ancestral; ResShift, RDDM (its eta is
    the square of ours) and Resfusion say otherwise: see `recon.restoration`.
    """

    eta: float = 1.0
    process: Process = field(default_factory=VP)
    reference = "Song et al. 2021, appendix F; Yue et al. 2023 (ResShift), eq. 7"

    def noise_level(self, sigma: float, target: float) -> float:
        """``eta`` times the process's own, at most t."""
        return min(self.eta * self.process.reverse_noise(sigma, target), target)


@dataclass(frozen=True)
class SDEDPMpp1(OneStep):
    """``q^2 = t^2 (1 - (t/s)^(2 eta))``: SDE-DPM-Solver++(1), and the reverse SDE with noise of rate eta.

    eta = 1 is DDIM(1); between 0 and 1 another law with the same marginals.
    """

    eta: float = 1.0
    reference = "Lu et al. 2022 (DPM-Solver++), eq. 18; k-diffusion's eta"

    def noise_level(self, sigma: float, target: float) -> float:
        """``t sqrt(1 - (t / s)^(2 eta))``."""
        return target * math.sqrt(-math.expm1(-2 * self.eta * math.log(sigma / target)))


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
        """0 with noise, else 1."""
        return 0 if self.eta > 0 else 1

    def noise_level(self, sigma: float, target: float) -> float:
        """``eta t``."""
        return self.eta * target
