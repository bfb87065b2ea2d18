"""DPS: a gradient step on the misfit, through the network; MCG: that step, then a projection onto the measurements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from operators.base import Linear
from operators.krylov import add_scaled, cg, inner

from ..errors import ConfigError, unknown
from ..noise import Draw
from ..problem import Problem
from ..solvers.base import Solver
from ..state import Estimate, Move, State
from .base import Posterior
from .shared.jacobian import per_row, residual_and_pull, singular_tolerance, with_pullback
from .shared.norms import inverse_squares, is_measurable
from .usual import Usual

DPS_STEPS = {"norm": 1.0, "score": 1.0, "squared": 1.8}  # zeta of each form where none is given
DPS_FORMS = (*DPS_STEPS, "auto")


class DPS(Posterior):
    """``x' = step(x) - zeta grad_x ||y - A D(x, s)||``, norm per sample, not squared; any differentiable operator.

    ``form``: "norm" is the paper's and the released code's step: the state moves by ``zeta`` along the
    gradient of the norm, the network's noise is kept, ``x0 = D - zeta J^T A^H (A D - y) / ||A D - y||``.
    "score" has the likelihood's own weight, ``x0 = D + zeta s^2 J^T A^H (y - A D) / sigma_y^2``, noise
    recomputed: a denoiser that any solver may difference, and that has a limit of small steps. It
    needs sigma_y > 0, and is stiff where sigma_y is small. "squared" is a gradient step on the misfit itself, in
    units of the operator, ``x0 = D + zeta J^T A^H (y - A D) / ||A||^2``, noise kept: stable for zeta < 2, as J has no
    eigenvalue above 1 (||A|| of a nonlinear operator is its ``lipschitz``, 1 if it states none); for a few steps rather
    than a thousand. "auto" is that where the size of A is known and no zeta is given, else "norm".
    ``zeta``: a number, or a function of sigma, by default 1, or 1.8 for "squared"; `variance_preserving` for the step of the released code.

    Traps: the paper writes zeta' times the gradient of the squared norm over the norm, so the code's
    scale is 2 zeta'. The norm is taken per sample (the released code takes it over the batch). "norm" has no
    limit of small steps: its pull grows with their number, and 1 is for about 1000 of them (the
    shipped brain prior needs 5 to 10 for 50). Neither form is exact even for a Gaussian
    prior: with the score's weight and the prior N(0, 1), A = 1, sigma_y = 1, the ODE ends at mean .725 y and
    variance .368; the posterior has .5 y and .5.
    Source: Chung et al., Diffusion Posterior Sampling, ICLR 2023, algorithm 1.
    """

    needs_problem = True
    knob = "Lower zeta."
    usual = Usual({"form": "auto"}, "renoise", {"eta": 1.0}, highest=5.0, lowest=0.065)

    def __init__(
        self,
        prior=None,
        problem: Problem | None = None,
        *,
        form: str = "norm",
        zeta: Callable[[float], float] | float | None = None,
    ):
        if form not in DPS_FORMS:
            raise unknown("form of DPS", form, DPS_FORMS)
        self.form, self.zeta = form, zeta
        super().__init__(prior, problem)

    def check_problem(self, problem: Problem) -> None:
        """Refuses measurements without noise for the form that divides by it."""
        super().check_problem(problem)
        self.step_form = self.form
        if self.form == "auto":
            self.step_form = "squared" if is_measurable(problem) and self.zeta is None else "norm"
        if self.form == "score" and problem.sigma == 0:
            raise ConfigError(
                f'{type(self).__name__} with form="score" was given measurements with sigma 0.',
                "It divides by the variance of their noise.",
                'State the noise, Problem(A, y, sigma=...), or use form="norm".',
            )
        if self.step_form == "squared":
            self.step = inverse_squares(problem)

    def denoise(self, x: Tensor, sigma: float, memo: Any = None) -> Estimate:
        """The step's gradient as a correction of the clean image; one network call and its gradient."""
        prior, pull = with_pullback(self.prior, x, sigma)
        zeta = DPS_STEPS[self.step_form] if self.zeta is None else self.zeta
        zeta = float(zeta(sigma)) if callable(zeta) else zeta
        r, descent = residual_and_pull(self.problem.A, prior, self.problem.y)
        if self.step_form == "score":
            weight = zeta * (sigma / self.problem.sigma) ** 2
            return Estimate.keep_state(x, sigma, prior.add(pull(descent), alpha=weight), prior)
        if self.step_form == "squared":
            return Estimate.keep_noise(x, sigma, prior + zeta * self.step * pull(descent), prior)
        length = inner(r, r).sqrt()
        factor = per_row(zeta / torch.where(length > 0, length, 1), prior)
        return Estimate.keep_noise(x, sigma, add_scaled(prior, factor, pull(descent)), prior)


class MCG(DPS):
    """DPS's gradient step, then ``x <- x + A^+ (y_t - A x)``, ``y_t = y + t A z``, at the level t that the step reached.

    The projection replaces what was measured by the measurements, noised to the level of the state;
    at t = 0 by the measurements themselves, so that noisy ones are over-fitted: no variance is left
    in the measured subspace. ``A^+`` by ``steps`` CG steps on ``A^H A`` (one is exact where that is a
    projection: masks, single-coil MRI; few regularise where A is ill conditioned: with 8 coils at
    acceleration 4 and 50 steps of the solver, 1 CG step ends at 27 dB, 3 at 25, 10 at 15).

    Traps: the released code noises y to the level that the step left instead of the one it reached. White
    noise added to y itself would reach the image as ``A^+ z``, amplified where A is weak; ``A z`` keeps
    it at the level of the state. The projection moves the state under the solver: a multistep solver
    restarts at every step, and is of order one.
    Source: Chung, Sim, Ryu, Ye, Manifold Constrained Gradients, NeurIPS 2022.
    """

    usual = Usual(
        {"form": "squared", "zeta": 1.0, "steps": 3}, "renoise", {"eta": 1.0}, highest=5.0, lowest=0.065
    )
    linear_only = True
    knob = "Lower zeta, or take fewer CG steps (steps)."

    def __init__(
        self,
        prior=None,
        problem: Problem | None = None,
        *,
        form: str = "norm",
        zeta: Callable[[float], float] | float | None = None,
        steps: int = 5,
        tol: float | None = None,
    ):
        if steps < 1:
            raise ConfigError(f"steps is {steps}.", "The projection takes at least one CG step.", "Use steps=5.")  # fmt: skip
        self.steps, self.tol = steps, tol
        super().__init__(prior, problem, form=form, zeta=zeta)

    def pair(self, solver: Solver) -> None:
        """Refuses solvers that start with Runge-Kutta steps, which they would take at every level."""
        super().pair(solver)
        if solver.warmup:
            raise ConfigError(
                f"{type(self).__name__} was given {type(solver).__name__}.",
                "The projection restarts it at every step, and it starts with Runge-Kutta steps.",
                "Take heun, which is the same at the same price, or a one-call solver: ddim, ddpm.",
            )

    def correct(self, state: State, move: Move, draw: Draw) -> State:
        """The projection; ``past=()``, since it moves the state."""
        A, x = cast(Linear, self.problem.A), state.x
        clean = x.add(draw(x, "measured"), alpha=-state.sigma) if state.sigma > 0 else x
        missing = residual_and_pull(A, clean, self.problem.y)[1]
        x = x + cg(A.normal, missing, None, self.steps, singular_tolerance(self.tol, x))
        return replace(state, x=x, x0=x if state.sigma == 0 else state.x0, past=())


def variance_preserving(zeta: float) -> Callable[[float], float]:
    """``zeta (1 + s^2)``: the released code's zeta, which moves the state ``a x``, ``a = 1 / sqrt(1 + s^2)``.

    Exact for small steps: the released code divides by a of this level and by that of the next.
    """
    return lambda sigma: zeta * (1 + sigma**2)
