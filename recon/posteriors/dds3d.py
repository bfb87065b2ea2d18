"""DDS of volumes: a prior of slices, the data of the whole volume, and total variation across slices."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from torch import Tensor

from ..errors import ConfigError
from ..noise import Draw
from ..priors import about
from ..problem import Problem
from ..state import Move, State
from .dds import DDS
from .shared.across import Across, across_slices, duals_in
from .usual import Usual

DIFFERENCE = 0.4  # standard deviations of the data, between neighbouring slices


class DDS3D(DDS):
    """``x0 = argmin ||A x - y||^2 + lambda(s) ||x - D||^2 + 2 lam ||D_z x||_1``, D slice by slice, by one ADMM step a level.

    A CG solve of ``(A^H A + lambda I + rho D_z^T D_z) x0 = A^H y + lambda D + rho D_z^T (z - u)`` from D, then
    ``z = soft(D_z x0 + u, lam / rho)``, ``u += D_z x0 - z``, which are carried from level to level.

    Of volumes (C, D, H, W), real or complex, with a prior of slices (`recon.priors.slicewise`, which `recon.sample`
    puts around it); of images it is `DDS`. ``lam`` and ``rho``: None for a noise of sigma_y and neighbouring slices whose
    difference has the scale ``difference``, d, in standard deviations of the data: ``lam = sigma_y^2 / d`` and
    ``rho = sigma_y^2 / d^2``. ``boundary``: "neumann" (no difference beyond the last slice), or "circular", as released. The
    rest is as in `DDS`. Source: Chung, Lee, Ye, Decomposed Diffusion Sampler, ICLR 2024, section 3.3.
    """

    linear_only = True
    of_volumes = True
    knob = "Give the prior more weight (weight), or smooth more across slices (difference)."
    usual = Usual({"steps": 50}, "renoise", {"eta": 1.0}, highest=5.0, lowest=0.065)

    def __init__(
        self,
        prior=None,
        problem: Problem | None = None,
        *,
        weight: Callable[[float], float] | float | None = None,
        steps: int = 5,
        keep: str = "noise",
        tol: float = 1e-6,
        variance: str = "uniform",
        lam: float | None = None,
        rho: float | None = None,
        difference: float = DIFFERENCE,
        boundary: str = "neumann",
    ):
        for name, value in (("lam", lam), ("rho", rho), ("difference", difference)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value}.", "It is a number above 0.")
        if boundary not in ("neumann", "circular"):
            raise ConfigError(f"boundary is {boundary!r}.", "It is neumann or circular.")
        self.lam_across, self.rho, self.difference, self.boundary = lam, rho, difference, boundary
        super().__init__(prior, problem, weight=weight, steps=steps, keep=keep, tol=tol, variance=variance)

    def check_problem(self, problem: Problem) -> None:
        """Refuses noise-free volumes without ``lam`` and ``rho``, of which nothing says how much to smooth."""
        super().check_problem(problem)
        self.slices = across_slices(tuple(problem.A.domain), problem.A.complex_domain, self.boundary)
        if self.slices is None:
            return
        self.direct = None
        if problem.sigma == 0 and (self.lam_across is None or self.rho is None):
            raise ConfigError(
                "The volume is measured without noise.",
                "Total variation across slices is weighed against the noise.",
                "Give the problem a sigma, or the sampler lam and rho.",
            )

    @property
    def across(self) -> Across:
        """Total variation across slices, weighed against the noise."""
        assert self.slices is not None
        scale = self.difference * math.sqrt(about(self.prior).data_var)
        power = cast(Problem, self.problem).sigma ** 2
        lam = power / scale if self.lam_across is None else self.lam_across
        return Across(self.slices, power / scale**2 if self.rho is None else self.rho, lam)

    def system(self, prior: Tensor, memo: Any) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """Those of the data, and of the differences across slices."""
        normal, b = super().system(prior, memo)
        if self.slices is None:
            return normal, b
        across = self.across
        return lambda v: normal(v) + across.normal(v), b + across.pull(duals_in(memo, across, prior))

    def correct(self, state: State, move: Move, draw: Draw) -> State:
        """The duals of the level."""
        if self.slices is None:
            return state
        x0 = move.step.est.x0
        return replace(state, memo=self.across.update(x0, duals_in(state.memo, self.across, x0)))
