"""AFDPS: an ensemble around the prior, with guidance of its own that asks nothing of the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ...errors import ConfigError
from ...problem import Problem
from ...state import Estimate
from ..base import Posterior
from .ensemble import Ensemble
from .potential import Each, times

GUIDES = ("auto", "denoised", "noisy", None)


class SMC(Ensemble):
    """An ensemble around the prior, guided by a gradient step on the measurements: AFDPS.

    ``guide`` of the proposals: "denoised", ``x0 = D - w A^H (A D - y)``, ``w = s^2 / (sigma_y^2 + c s^2)``;
    "noisy", ``x0 = D - s^2 alpha grad mu(x)``, the paper's, which for path weights proposes worse; None.
    Default "auto": "denoised" under a solver with noise, none under a deterministic one. No gradient
    through the network. All other options are `Ensemble`'s; Feynman-Kac weights bring the paper's drift.
    """

    knob = 'Take more steps, a larger c, or annealing="matched".'  # type: ignore[assignment]

    def __init__(
        self,
        prior,
        problem: Problem | None = None,
        *,
        guide: str | None = "auto",
        resample: str = "systematic",
        ess: float = 0.5,
        weights: str = "path",
        annealing: str | Callable[[float], float] = "matched",
        c: float | None = None,
        initial: str | None = None,
        langevin: int = 0,
        temper: float = 0.0,
    ):
        if guide not in GUIDES:
            raise ConfigError(f"guide is {guide!r}.", 'It is "auto", "denoised", "noisy" or None.')
        if weights == "feynman-kac":
            if guide not in ("auto", "noisy"):
                raise ConfigError(
                    f"Feynman-Kac weights with guide {guide!r}.",
                    "They hold for their own drift -V^2 alpha grad mu(x) only.",
                    'Leave guide out, or use weights="path".',
                )
            guide = None  # the drift comes with the weights
        self.guide = guide
        super().__init__(
            Posterior(prior), problem, resample=resample, ess=ess, weights=weights,
            annealing=annealing, c=c, initial=initial, langevin=langevin, temper=temper,
        )  # fmt: skip

    @property
    def guided(self) -> bool:
        return self.guide in ("denoised", "noisy")

    def prepared(self, solver, grid: list[float], samples: int) -> Ensemble:
        if self.guide != "auto":
            return super().prepared(solver, grid, samples)
        return self.copied(guide="denoised" if solver.stochastic else None).prepared(solver, grid, samples)

    def pull(self, s: float, kept: float, std: float) -> Each:
        ratio = self.potential.norm_squared / self.sigma_y**2
        if self.guide == "noisy":
            return (1 - kept) * s**2 * self.alpha(s) * ratio
        if self.guide == "denoised":  # worst where the prior believes what it sees: 1 - (1 - kept) w ||A||^2
            return (1 - kept) * (self.share(s) * ratio - 1)
        return super().pull(s, kept, std)

    def share(self, sigma: float) -> Each:
        """The step ``w sigma_y^2`` on the gradient of mu at the denoised point."""
        return sigma**2 * self.sigma_y**2 / (self.sigma_y**2 + self.scale * sigma**2)

    def denoise(self, x: Tensor, sigma: float, memo: Any = None) -> Estimate:
        est = super().denoise(x, sigma, memo)
        if not self.guided:
            return est
        if self.guide == "noisy":
            push = times(-(sigma**2) * self.alpha(sigma), self.potential.gradient(x))
        else:
            push = times(-self.share(sigma), self.potential.gradient(est.prior))
        return Estimate.keep_state(x, sigma, est.prior + push, est.prior)
