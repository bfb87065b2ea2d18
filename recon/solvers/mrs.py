"""MR Sampler: exponential Adams methods, named as its authors named them for mean-reverting SDEs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..errors import ConfigError
from ..state import Step
from .adams import DPMpp, ExponentialAdams
from .base import Solver

EQUATIONS = ("sde", "ode")
MR_RULES = ("exact", "official")


@dataclass(frozen=True)
class MRSampler(Solver):
    """MRS-SDE-k and MRS-ODE-k, of "data" or "noise": `ExponentialAdams` with eta = 1, or 0, on ``x - y``.

    The paper's terms in mu are those of ``x = (z - (1 - a) mu) / a``, the state everywhere here; a network
    that predicts noise or velocity is `recon.restoration`'s matter. ``nodes`` 1 to 3. ``rule``: "official"
    leaves a factor 2 out of the second difference of three nodes, as released, and is of order 2. A step
    to 0 returns the denoised image (``denoise_last``).
    """

    kind: str = "sde"
    form: str = "data"
    nodes: int = 2
    rule: str = "exact"
    reference = "Li et al. 2025 (MR Sampler)"

    def __post_init__(self):
        for name, known in (("kind", EQUATIONS), ("rule", MR_RULES)):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} is {getattr(self, name)!r}.", f"It is one of {', '.join(known)}.")
        if not 1 <= self.nodes <= 3:
            raise ConfigError(f"nodes is {self.nodes}.", "MR Sampler combines 1 to 3 evaluations.")
        _ = self.method  # refuses an unknown form

    @cached_property
    def method(self) -> ExponentialAdams:
        """The solver that does it."""
        rule = "taylor" if self.rule == "official" else "exact"
        return DPMpp(nodes=self.nodes, form=self.form, eta=1.0 if self.kind == "sde" else 0.0, rule=rule)

    @property
    def order(self) -> int:
        """That of `method`."""
        return self.method.order

    @property
    def stochastic(self) -> bool:
        """That of `method`."""
        return self.method.stochastic

    def advance(self, denoise, x, est, sigma, target, past, draw) -> Step:
        """The step of `method`."""
        return self.method.advance(denoise, x, est, sigma, target, past, draw)
