"""Score-SDE's predictor-corrector: Langevin steps at a level, then a step of the discretised reverse SDE."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import ConfigError
from ..processes import VE, Process, SubVP
from ..state import Step
from .base import Solver, euler

PREDICTORS = ("reverse-diffusion", "euler-maruyama", "ancestral", "flow")
CORRECTORS = ("langevin", "ald", None)


@dataclass(frozen=True)
class PredictorCorrector(Solver):
    """``corrector_steps`` Langevin steps at s, then ``x' = b + push x - pull eps + std z`` with ``b = x0 + s eps``.

    Predictors of Song et al. for ``z = a x`` in the time of ``process``, here in units of x; with
    ``r = a / a'`` the chain's own variance ``s_z^2 - r^2 s_z'^2`` is ``a^2 (s^2 - t^2)``:

        reverse-diffusion  push = -(1 - r)^2, pull = r (s^2 - t^2) / s, std^2 = r^2 (s^2 - t^2)
        flow               the same with half the pull and no noise: the probability flow
        euler-maruyama     push = r (1 - f dt) - 1, pull = g^2 dt / (a a' s), std^2 = g^2 dt / a'^2
        ancestral          push = 0, pull = (s^2 - t^2) / s; std^2 = r^2 (s^2 - t^2) where a^2 + s_z^2 = 1
                           ("fixed large"), else the posterior's t^2 (1 - t^2 / s^2)

    Sub-VP has reverse-diffusion and flow by Euler, as released. The corrector of ``snr`` takes
    ``x <- x - d eps / s + sqrt(2 d) z``, ``d = 2 r^2 (snr s |z| / |eps|)^2`` ("langevin") or
    ``d = 2 r^2 (snr s)^2`` ("ald"). Norms are each sample's own; ``batch_norms`` takes their means over
    the batch as the released code does, so that a row depends on its neighbours. A corrector's
    evaluations count as scores only; the step starts from the evaluation after the last of them. With a
    corrector the order is 0: its bias (on a Gaussian of variance S, ``S / (1 - d / (2 S))`` for "ald")
    does not vanish with more steps.
    """

    predictor: str = "reverse-diffusion"
    corrector: str | None = "langevin"
    snr: float = 0.16
    corrector_steps: int = 1
    process: Process = field(default_factory=VE)
    batch_norms: bool = False
    reference = "Song et al. 2021, algorithms 2 to 5 and appendices E to G"

    def __post_init__(self):
        for name, known in (("predictor", PREDICTORS), ("corrector", CORRECTORS)):
            if getattr(self, name) not in known:
                listed = ", ".join(map(str, known))
                raise ConfigError(f"{name} is {getattr(self, name)!r}.", f"It is one of {listed}.")
        if not self.snr > 0 or self.corrector_steps < 1:
            raise ConfigError(
                f"snr is {self.snr}, corrector_steps {self.corrector_steps}.",
                "snr is positive, and a corrector takes at least one step.",
                "Use corrector=None for the predictor alone.",
            )

    @property
    def order(self) -> int:  # type: ignore[override]
        """1 for the predictor alone, 0 with a corrector."""
        return 1 if self.corrector is None else 0

    @property
    def evals(self) -> int:  # type: ignore[override]
        """One, and one more for each Langevin step."""
        return 1 if self.corrector is None else 1 + self.corrector_steps

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        """Whether predictor or corrector adds noise."""
        return self.predictor != "flow" or self.corrector is not None

    @property
    def kernel(self) -> bool:  # type: ignore[override]
        """Whether the predictor's noise is all there is."""
        return self.corrector is None

    def calls(self, steps: int) -> int:
        """The corrector runs before the step to 0 too."""
        return self.evals * steps

    def check_levels(self, levels, eps) -> None:
        """The process refuses levels beyond its end."""
        for level in levels:
            self.process.time(level)

    def step(self, denoise, x, sigma, target, past, draw) -> Step:
        """Langevin steps at ``sigma``, then the predictor from where they end."""
        if self.corrector is not None:
            x = self.corrected(denoise, x, sigma, target, draw)
        return super().step(denoise, x, sigma, target, past, draw)

    def corrected(self, denoise, x: Tensor, sigma: float, target: float, draw) -> Tensor:
        """The state after the Langevin steps at ``sigma``."""
        kept = self.process.scale(self.process.time(sigma)) / self.process.scale(self.process.time(target))
        for index in range(self.corrector_steps):
            eps, noise = denoise(x, sigma).eps, draw(x, f"langevin{index}")
            size = kept * self.snr * sigma  # sqrt(d / 2)
            if self.corrector == "ald":
                x = x.add(eps, alpha=-2 * size**2 / sigma).add_(noise, alpha=2 * size)
            else:
                share = size * self.ratio(noise, eps)
                x = x + 2 * share * (noise - share / sigma * eps)
        return x

    def ratio(self, noise: Tensor, eps: Tensor) -> Tensor:
        """``|z| / |eps|`` (rows, 1, ...); 0, no step, where eps is 0."""
        above, below = lengths(noise), lengths(eps)
        if self.batch_norms:
            above, below = above.mean(0, keepdim=True), below.mean(0, keepdim=True)
        return above / below.masked_fill(below == 0, math.inf)

    def advance(self, denoise, x, est, sigma, target, past, draw) -> Step:
        """The predictor's step."""
        push, pull, std = self.coefficients(sigma, target)
        mean = euler(est, sigma - pull)
        return Step(mean.add_(x, alpha=push) if push else mean, std, est)

    def coefficients(self, sigma: float, target: float) -> tuple[float, float, float]:
        """``(push, pull, std)`` of the predictor."""
        process, start, end = self.process, self.process.time(sigma), self.process.time(target)
        a, a_next = process.scale(start), process.scale(end)
        kept, fallen = a / a_next, (sigma - target) * (sigma + target)
        if self.predictor == "ancestral":
            std = kept * math.sqrt(fallen) if process.preserving else process.reverse_noise(sigma, target)
            return 0.0, fallen / sigma, std
        if self.predictor == "euler-maruyama" or isinstance(process, SubVP):
            variance = process.diffusion(start) * (start - end)
            push = kept * (1 - process.drift(start) * (start - end)) - 1
            pull, std = variance / (a * a_next * sigma), math.sqrt(variance) / a_next
        else:
            push, pull, std = -((1 - kept) ** 2), kept * fallen / sigma, kept * math.sqrt(fallen)
        return (push, pull / 2, 0.0) if self.predictor == "flow" else (push, pull, std)


def lengths(x: Tensor) -> Tensor:
    """Euclidean norm of every row, in the shape (rows, 1, ...)."""
    parts = torch.view_as_real(x) if x.is_complex() else x
    return torch.linalg.vector_norm(parts.flatten(1), dim=1).reshape(-1, *[1] * (x.ndim - 1))
