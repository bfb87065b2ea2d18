"""DiffusionMBIR: the prior's steps on slices, the data and total variation across slices between them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

import torch

from operators.base import Linear
from operators.krylov import cg

from ..errors import ConfigError
from ..noise import Draw
from ..problem import Problem
from ..solvers.base import Solver
from ..state import Move, State
from .base import Posterior
from .shared.across import Across, across_slices, duals_in
from .shared.jacobian import singular_tolerance
from .shared.proximal import refuse_no_steps
from .shared.restarts import refuse_warmup
from .usual import Usual


class MBIR(Posterior):
    """The prior's own step on every slice, then on the volume x, at its noise level, one step of ADMM for
    ``1/2 ||A x - y||^2 + lam ||D_z x||_1``:

        x <- ``steps`` CG steps on ``(A^H A + rho D_z^T D_z) x = A^H y + rho D_z^T (z - u)`` from x,
        z <- soft(D_z x + u, lam / rho),  u <- u + D_z x - z,

    the duals being carried from level to level; at the end once ``x += A^H (y - A x) / (A^H A 1)``. As released: one CG
    step, ``lam`` .04, ``rho`` 10, circular differences across slices, 2000 levels of the solver ``pc``, which are 4000
    network calls; with few it is poor, and `DDS3D` is what to take. Of images the data step alone is left.
    Source: Chung, Ryu, McCann, Klasky, Ye, DiffusionMBIR, CVPR 2023, algorithm 1.
    """

    needs_problem = True
    linear_only = True
    of_volumes = True
    knob = "Take more levels, or more CG steps between them (steps)."
    usual = Usual(solver="pc", grid="exponential", highest=40.0, lowest=0.004)

    def __init__(
        self,
        prior=None,
        problem: Problem | None = None,
        *,
        steps: int = 1,
        tol: float = 1e-6,
        lam: float = 0.04,
        rho: float = 10.0,
        boundary: str = "circular",
    ):
        refuse_no_steps("MBIR", steps)
        for name, value in (("lam", lam), ("rho", rho)):
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value}.", "It is a number above 0.")
        self.steps, self.tol, self.lam, self.rho, self.boundary = steps, tol, lam, rho, boundary
        super().__init__(prior, problem)

    def pair(self, solver: Solver) -> None:
        """Refuses solvers that start with Runge-Kutta steps; warns where a multistep one loses its order."""
        super().pair(solver)
        refuse_warmup("MBIR", solver)

    def check_problem(self, problem: Problem) -> None:
        """Prepares the differences, and what the last correction divides by."""
        super().check_problem(problem)
        A = cast(Linear, problem.A)
        slices = across_slices(tuple(A.domain), A.complex_domain, self.boundary)
        self.across = None if slices is None else Across(slices, self.rho, self.lam)
        with torch.no_grad():
            ones = torch.ones_like(A._zeros(A.images, problem.y.real.dtype, problem.y.device))
            weight = A.normal(ones).repeat_interleave(len(problem.y) // A.images, 0)
        self.inverse = torch.where(weight.abs() > self.tol, 1 / weight, 0)

    def correct(self, state: State, move: Move, draw: Draw) -> State:
        """The data step on the state itself, and the duals."""
        problem, x, memo = cast(Problem, self.problem), state.x, state.memo
        A, b, normal = cast(Linear, problem.A), problem.backprojection, cast(Linear, problem.A).normal
        if self.across is not None:
            across = self.across
            duals = duals_in(memo, across, x)
            b = b + across.pull(duals)
            x = cg(
                lambda v: A.normal(v) + across.normal(v), b, x, self.steps, singular_tolerance(self.tol, b)
            )
            memo = across.update(x, duals)
        else:
            x = cg(normal, b, x, self.steps, singular_tolerance(self.tol, b))
        if state.sigma == 0:
            x = x + self.inverse * (problem.backprojection - A.normal(x))
        return replace(state, x=x, x0=x if state.sigma == 0 else state.x0, past=(), memo=memo)
