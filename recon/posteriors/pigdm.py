"""Gaussian beliefs about x0 pushed through the operator: PiGDM (covariance r^2 I), MMPS (covariance s^2 J)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from operators.base import Linear
from operators.krylov import add_scaled, cg, inner

from ..errors import ConfigError
from ..priors import about
from ..problem import Problem
from ..state import Estimate
from .base import Posterior
from .shared.jacobian import (
    Pullback,
    per_row,
    residual_and_pull,
    singular_tolerance,
    tolerance,
    with_pullback,
)
from .shared.proximal import Proximal, refuse_no_steps
from .usual import Usual


class PiGDM(Posterior):
    """``x0 = D + s^2 J^T A^H (r^2 A A^H + sigma_y^2)^-1 (y - A D)``: the prior's belief is N(D, r^2 I).

    ``r^2 = s^2 v / (s^2 + v)``, v = ``prior.data_var`` or 1: exact for the prior N(m, v I) and any linear
    operator; ``variance``: another r^2 as a function of sigma. ``form``: "score" (above) is a denoiser;
    "adaptive" moves the state by ``r^2`` instead of ``s^2`` times the gradient in each step and keeps the
    network's noise, as the published weighting does; it has no limit of small steps.

    Solved as ``(A^H A + sigma_y^2 / r^2)^-1 A^H (y - A D) / r^2``, the same by the push-through
    identity: in singular coordinates or the operator's closed form, else by ``steps`` CG steps. With
    sigma_y = 0 that is ``A^+ (y - A D) / r^2``, always by CG.

    Trap: along a direction in which the images have variance c, not v, the score form overshoots by c / v
    while s is large. With the shipped brain prior from sigma 10 (8 coils, acceleration 4), 20 steps of
    it end at 9 dB, of the adaptive form at 28 dB, of ``variance=lambda s: s * s`` at 25 dB.
    Source: Song, Vahdat, Mardani, Kautz, Pseudoinverse-Guided Diffusion Models, ICLR 2023.
    """

    needs_problem = True
    linear_only = True
    usual = Usual({"form": "adaptive"}, "sde-dpm++2m", highest=20.0, lowest=0.033)
    knob = 'Take form="adaptive", a larger variance, or fewer CG steps (steps).'

    def __init__(
        self,
        prior=None,
        problem: Problem | None = None,
        *,
        form: str = "score",
        variance: Callable[[float], float] | None = None,
        steps: int = 15,
        tol: float | None = None,
    ):
        if form not in ("score", "adaptive"):
            raise ConfigError(f"form is {form!r}.", 'It is "score" or "adaptive" (the published weighting).')
        refuse_no_steps("PiGDM", steps)
        self.form, self.variance, self.steps, self.tol = form, variance, steps, tol
        super().__init__(prior, problem)

    def check_problem(self, problem: Problem) -> None:
        """Prepares the solution in singular coordinates or closed form, where the operator has one."""
        super().check_problem(problem)
        fit = Proximal(problem, self.steps, 0.0) if problem.sigma > 0 else None
        self.direct = fit if fit is not None and (fit.svd is not None or fit.closed_form) else None

    def denoise(self, x: Tensor, sigma: float, memo: Any = None) -> Estimate:
        """The guided image; one network call and its gradient."""
        prior, pull = with_pullback(self.prior, x, sigma)
        r2 = self.r2(sigma)
        moved = pull(self.solved(prior, self.problem.sigma**2 / r2))  # r^2 g
        if self.form == "adaptive":
            return Estimate.keep_noise(x, sigma, prior + moved, prior)
        return Estimate.keep_state(x, sigma, prior.add(moved, alpha=sigma**2 / r2), prior)

    def r2(self, sigma: float) -> float:
        """``r^2``, the variance of the belief at this level, per real component."""
        if self.variance is not None:
            return float(self.variance(sigma))
        v = about(self.prior).data_var
        return sigma**2 * v / (sigma**2 + v)

    def solved(self, clean: Tensor, lam: float) -> Tensor:
        """``(A^H A + lam)^-1 A^H (y - A clean)``."""
        if self.direct is not None and self.direct.svd is not None:
            return self.direct.svd.image(self.direct.pull(clean, lam))
        A = cast(Linear, self.problem.A)
        b = residual_and_pull(A, clean, self.problem.y)[1]
        if self.direct is not None:
            return self.direct.solve(b, lam)
        if lam == 0:
            return cg(A.normal, b, None, self.steps, singular_tolerance(self.tol, b))
        return cg(lambda v: A.normal(v).add(v, alpha=lam), b, None, self.steps, tolerance(self.tol, b))


class MMPS(Posterior):
    """``x0 = D + s^2 J^T A^H (sigma_y^2 + A s^2 J A^H)^-1 (y - A D)``: belief N(D, s^2 J), J = dD/dx.

    ``s^2 J`` is the covariance of x0 given x by Tweedie's second formula, so this is exact for every
    Gaussian prior once CG has converged. ``steps`` CG steps in measurement space, each of which takes
    one ``J^T v`` of the network and no further image. A sample whose search direction has no positive curvature
    stops there. With sigma_y = 0 the measurements must lie in the range of A.

    Trap: a network's J is not quite symmetric, so that CG diverges after a few steps: few are better than many.
    Source: Rozet, Andry, Lanusse, Louppe, Learning Diffusion Priors from Observations by Expectation
    Maximization, NeurIPS 2024.
    """

    needs_problem = True
    linear_only = True
    usual = Usual({}, "sde-dpm++2m", highest=20.0, lowest=0.033)
    knob = "Take fewer CG steps (steps)."

    def __init__(
        self, prior=None, problem: Problem | None = None, *, steps: int = 3, tol: float | None = None
    ):
        refuse_no_steps("MMPS", steps)
        self.steps, self.tol = steps, tol
        super().__init__(prior, problem)

    def denoise(self, x: Tensor, sigma: float, memo: Any = None) -> Estimate:
        """The guided image; one network call and ``steps`` gradients of it."""
        prior, pull = with_pullback(self.prior, x, sigma)
        moved = self.pulled(prior, sigma, pull)
        return Estimate.keep_state(x, sigma, prior.add(moved, alpha=sigma**2), prior)

    def pulled(self, clean: Tensor, sigma: float, pull: Pullback) -> Tensor:
        """``J^T A^H u`` for the CG iterate u of ``(sigma_y^2 + A s^2 J A^H) u = y - A clean``, from u = 0.

        The recurrence of `operators.krylov.cg`, without forming u: its image under ``J^T A^H`` is summed
        from those of the search directions, which CG needs anyway. That saves one ``J^T v``.
        """
        A, variance = cast(Linear, self.problem.A), self.problem.sigma**2
        r = self.problem.y - A.forward(clean)
        p, rr, total = r, inner(r, r), torch.zeros_like(clean)
        enough = (tolerance if variance > 0 else singular_tolerance)(self.tol, r) ** 2 * rr
        running = rr > enough
        for left in reversed(range(self.steps)):
            image = pull(A.adjoint(p), again=left > 0)
            applied = (variance * p).add_(A.forward(image), alpha=sigma**2)
            curvature = inner(p, applied)
            running = running & (curvature > 0)
            alpha = torch.where(running, rr / torch.where(running, curvature, 1), 0)
            total = add_scaled(total, per_row(alpha, total), image)
            if left == 0:
                break
            r = add_scaled(r, -alpha, applied)
            previous, rr = rr, inner(r, r)
            running = running & (rr > enough)
            p = add_scaled(r, torch.where(running, rr / torch.where(running, previous, 1), 0), p)
        return total
