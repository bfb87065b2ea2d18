"""Single-step exponential methods: DPM-Solver on the noise, DPM-Solver++ S on the denoised image. No memory.

With ``h = ln(s / t)`` and intermediate levels ``u = s e^(-r1 h)``, ``w = s e^(-r2 h)``:

    noise:  x' = x - t int e^l e(l) dl        data:  x' = (t/s) x + int e^(l - h) D(l) dl,   l from 0 to h

e, or D, is the line through two evaluations. Stages lie on the prior's own path, so that what a posterior did to
the image enters once, through ``x0 + t eps``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ..errors import ConfigError
from ..state import Estimate, Step
from .base import FORMS, Solver, differences, euler
from .ddim import Euler


@dataclass(frozen=True)
class DPM1(Euler):
    """``x' = x0 + t eps``: DPM-Solver-1 and DPM-Solver++(1) are Euler's step in sigma."""

    reference = "Lu et al. 2022 (DPM-Solver), eq. 3.7"


class SingleStep(Solver):
    """What the two orders share: the form, and integrals of 1 and of a line over part of a step."""

    form: str = "noise"

    def value(self, est: Estimate) -> Tensor:
        """What is differenced: the noise, or the image."""
        return est.slope if self.form == "data" else est.eps

    def constant(self, sigma: float, target: float) -> float:
        """Integral of 1 from ``sigma`` to ``target``."""
        return 1 - target / sigma if self.form == "data" else target - sigma

    def line(self, sigma: float, target: float) -> float:
        """Integral of ``l / h``, which rises from 0 at ``sigma`` to 1 at ``target``."""
        h = math.log(sigma / target)
        return 1 + math.expm1(-h) / h if self.form == "data" else -target * (math.expm1(h) / h - 1)

    def check(self, *shares: float) -> None:
        """Raise `ConfigError` for an unknown form, or for stages outside (0, 1]."""
        if self.form not in FORMS:
            raise ConfigError(f"form is {self.form!r}.", f"It is one of {', '.join(FORMS)}.")
        if not all(low < high for low, high in zip((0.0, *shares), shares, strict=False)) or shares[-1] > 1:
            raise ConfigError(
                f"Stages at {', '.join(f'{r:g}' for r in shares)} of a step.",
                "They rise and lie in (0, 1].",
                "Use r1=0.5 for two stages, r1=1/3 and r2=2/3 for three.",
            )


@dataclass(frozen=True)
class DPM2(SingleStep):
    """``x' = x0 + t eps + c / (2 r1) (v_u - v)``, c the integral of 1: DPM-Solver-2 ("noise"), ++2S ("data").

    v is e or D; ``r1 = 1`` in noise form is Heun's method.
    """

    form: str = "noise"
    r1: float = 0.5
    order, evals = 2, 2
    reference = "Lu et al. 2022 (DPM-Solver), algorithm 1; Lu et al. 2022 (DPM-Solver++), algorithm 1"

    def __post_init__(self):
        self.check(self.r1)

    def advance(self, denoise, x, est, sigma, target, past, draw) -> Step:
        """Two evaluations: at ``sigma``, and at share r1 of the step."""
        u = part(sigma, target, self.r1)
        second = denoise(along(est, u), u)
        weight = self.constant(sigma, target) / (2 * self.r1)
        mean = differences(euler(est, target), [self.value(est), self.value(second)], [weight])
        return Step(mean, 0.0, est)


@dataclass(frozen=True)
class DPM3(SingleStep):
    """``x' = x0 + t eps + c / r2 (v_w - v)``, c the integral of ``l / h``: DPM-Solver-3, ++3S.

    v_w is found at ``x_w = x0 + w eps + c_w r2 / r1 (v_u - v)``.
    """

    form: str = "noise"
    r1: float = 1 / 3
    r2: float = 2 / 3
    order, evals = 3, 3
    reference = "Lu et al. 2022 (DPM-Solver), algorithm 2; Lu et al. 2022 (DPM-Solver++)"

    def __post_init__(self):
        self.check(self.r1, self.r2)

    def advance(self, denoise, x, est, sigma, target, past, draw) -> Step:
        """Three evaluations: at ``sigma``, and at shares r1 and r2 of the step."""
        u, w = part(sigma, target, self.r1), part(sigma, target, self.r2)
        first = self.value(est)
        second = self.value(denoise(along(est, u), u))
        slope = self.r2 / self.r1 * self.line(sigma, w)
        third = self.value(denoise(differences(along(est, w), [first, second], [slope]), w))
        mean = differences(euler(est, target), [first, third], [self.line(sigma, target) / self.r2])
        return Step(mean, 0.0, est)


def part(sigma: float, target: float, share: float) -> float:
    """The level at ``share`` of the step in ``ln sigma``."""
    return sigma * (target / sigma) ** share


def along(est: Estimate, level: float) -> Tensor:
    """Euler on the prior's own path: where a method asks again inside a step. `euler` if consistent."""
    return est.slope.add(est.eps, alpha=level)
