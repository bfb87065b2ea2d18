"""AFDPS: an ensemble around the prior, with guidance of its own that asks nothing of the network."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...errors import ConfigError
from ...problem import Problem
from ...solvers.base import Solver
from ...state import Estimate
from ..base import Posterior
from ..pigdm import MMPS
from ..shared.signature import forwards_to
from ..usual import Usual
from .ensemble import Ensemble
from .potential import Each, times

GUIDES = ("auto", "denoised", "noisy", "covariance", None)
WITH_NOISE = ("denoised", "noisy", "covariance")  # guides, which need a solver that draws


class SMC(Ensemble):
    """``x0 = D - w A^H (A D - y)``, ``w = s^2 / (sigma_y^2 + c s^2)``, weighed by an ensemble around the prior: AFDPS.

    ``guide`` of the proposals: "denoised" (above); "noisy", ``x0 = D - s^2 alpha grad mu(x)``, the paper's, which
    for path weights proposes worse; "covariance", `MMPS`'s, which carries what was measured to pixels that were not, and takes
    gradients through the network (linear A; "denoised" for others); None. Default "auto": "denoised" under a solver
    with noise, none under a deterministic one. No other takes gradients. All other options are `Ensemble`'s, but for ``temper``, 0 as in
    the paper; Feynman-Kac weights bring the paper's drift with them.
    Source: Chen, Ren, Min, Ying, Izzo 2025.
    """

    usual = Usual({"guide": "covariance", "temper": 0.8}, "sde-dpm++1", highest=20.0, lowest=0.033)
    knob = 'Take more steps, a larger c, or annealing="matched".'  # type: ignore[assignment]

    @forwards_to(Ensemble.__init__)
    def __init__(
        self,
        prior=None,
        problem: Problem | None = None,
        *,
        guide: str | None = "auto",
        weights: str = "path",
        temper: float = 0.0,
        **options: Any,
    ):
        if guide not in GUIDES:
            raise ConfigError(
                f"guide is {guide!r}.", 'It is "auto", "denoised", "noisy", "covariance" or None.'
            )
        if weights == "feynman-kac":
            if guide not in ("auto", "noisy"):
                raise ConfigError(
                    f"Feynman-Kac weights with guide {guide!r}.",
                    "They hold for their own drift -V^2 alpha grad mu(x) only.",
                    'Leave guide out, or use weights="path".',
                )
            guide = None  # the drift comes with the weights
        if guide == "covariance" and problem is not None and not problem.A.linear:
            guide = "denoised"
        self.guide = guide
        super().__init__(
            MMPS(prior) if guide == "covariance" else Posterior(prior),
            problem,
            weights=weights,
            temper=temper,
            **options,
        )

    @property
    def guided(self) -> bool:
        """Whether the proposals are guided."""
        return self.guide in WITH_NOISE

    def prepared(self, solver: Solver, grid: list[float], samples: int) -> Ensemble:
        """As of `Ensemble`, with ``guide="auto"`` decided by the solver."""
        if self.guide != "auto":
            return super().prepared(solver, grid, samples)
        return self.copied(guide="denoised" if solver.stochastic else None).prepared(solver, grid, samples)

    def pull(self, s: float, kept: float, std: float) -> Each:
        """What the guide takes off ``x' = kept x`` in the best measured direction."""
        target = self.target
        if self.guide == "noisy":
            return (1 - kept) * s**2 * target.alpha(s) * target.precision
        if self.guide == "denoised":  # worst where the prior believes what it sees: 1 - (1 - kept) w ||A||^2
            return (1 - kept) * (self.share(s) * target.precision - 1)
        return super().pull(s, kept, std)

    def share(self, sigma: float) -> Each:
        """The step ``w sigma_y^2`` on the gradient of mu at the denoised point."""
        variance = self.target.sigma_y**2
        return sigma**2 * variance / (variance + self.target.scale * sigma**2)

    def denoise(self, x: Tensor, sigma: float, memo: Any = None) -> Estimate:
        """The prior's estimate, moved by the guide; one network call."""
        est = super().denoise(x, sigma, memo)
        if self.guide not in ("denoised", "noisy"):  # the inner sampler's own
            return est
        potential = self.target.potential
        if self.guide == "noisy":
            push = times(-(sigma**2) * self.target.alpha(sigma), potential.gradient(x))
        else:
            push = times(-self.share(sigma), potential.gradient(est.prior))
        return Estimate.keep_state(x, sigma, est.prior + push, est.prior)
