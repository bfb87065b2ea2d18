"""DiffPIR: a proximal step on the data, its weight falling with the noise level."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from ..errors import ConfigError
from ..problem import Problem
from ..state import Estimate
from .base import Posterior
from .shared.proximal import Proximal, refuse_no_steps
from .usual import Usual


class DiffPIR(Posterior):
    """``x0 = argmin ||A x - y||^2 + rho ||x - D||^2``, ``rho = lam sigma_y^2 / s^2``, noise recomputed.

    The posterior mean if the prior's belief at level s were ``N(D, s^2 / lam)``. A denoiser, which any
    solver may walk, and which has a limit of small steps. The paper's zeta, the share of fresh noise, belongs to
    the solver: ``x' = x0 + t (sqrt(1 - zeta) eps + sqrt(zeta) z)`` is ``renoise(eta=sqrt(zeta))``; zeta =
    0 is euler. The paper's tasks: zeta 1 inpainting, .1 deblurring, .25 super-resolution; lam 1 to 25.

    Solved by singular values where A has them, in its closed form, else by ``steps`` CG steps from D.
    ``sigma_y = 0`` gives rho = 0, the projection ``D + A^+ (y - A D)``, which is `DDNM`.

    Traps: the released code leaves the data step out of the last step and returns the state before it;
    here the answer is x0. At high s rho is tiny, and the closed form ``(A^H A + rho)^-1`` multiplies the
    rounding of what was not measured by 1 / rho; singular coordinates do not.
    Source: Zhu et al., Denoising Diffusion Models for Plug-and-Play Image Restoration, CVPRW 2023,
    algorithm 1.
    """

    needs_problem = True
    linear_only = True
    usual = Usual({}, "renoise", {"eta": 1.0}, highest=5.0, lowest=0.065)
    knob = "Give the prior more weight (a larger lam)."

    def __init__(
        self,
        prior=None,
        problem: Problem | None = None,
        *,
        lam: float = 1.0,
        steps: int = 10,
        tol: float = 1e-6,
    ):
        if not (lam > 0 and math.isfinite(lam)):
            raise ConfigError(f"lam is {lam}.", "It weighs the prior against the data.", "Use 1 to 25.")
        refuse_no_steps("DiffPIR", steps)
        self.lam, self.steps, self.tol = lam, steps, tol
        super().__init__(prior, problem)

    def check_problem(self, problem: Problem) -> None:
        """Prepares the data step."""
        super().check_problem(problem)
        self.fit = Proximal(problem, self.steps, self.tol)

    def denoise(self, x: Tensor, sigma: float, memo: Any = None) -> Estimate:
        """The data step from the prior's image; one network call."""
        prior = self.prior(x, sigma)
        x0 = self.fit(prior, self.lam * (self.problem.sigma / sigma) ** 2)
        return Estimate.keep_state(x, sigma, x0, prior)
