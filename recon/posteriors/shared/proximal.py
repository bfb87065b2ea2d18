"""``argmin_x ||A x - y||^2 + rho ||x - D||^2``: the data step that several samplers share."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from operators.base import Linear
from operators.krylov import cg
from operators.spectral import Spectral, significant, spectral

from ...errors import ConfigError
from ...problem import Problem
from .jacobian import singular_tolerance


class Proximal:
    """``proximal(D, rho) = D + (A^H A + rho)^-1 A^H (y - A D)`` for the measurements of one problem.

    In singular coordinates, in the operator's closed form, or by CG. ``rho = 0`` is the limit, the projection
    ``D + A^+ (y - A D)``, which does not change the null space; singular values below ``cutoff`` of the
    largest count as null. CG takes ``steps`` steps on the misfit, and stops at a relative residual
    ``tol``; at ``rho = 0`` few steps regularise an ill-conditioned A. ``svd``: use singular coordinates where the
    operator has them; ``dense``: decompose small operators as matrices.
    """

    def __init__(
        self,
        problem: Problem,
        steps: int,
        tol: float,
        cutoff: float = 1e-3,
        *,
        svd: bool = True,
        dense: bool = False,
    ):
        self.problem, self.steps, self.tol, self.cutoff = problem, steps, tol, cutoff
        self.A, self.b = cast(Linear, problem.A), problem.backprojection
        self.svd: Spectral | None = spectral(self.A, dense=dense) if svd else None
        self.closed_form = False
        if self.svd is not None:
            self.s, self.u = self.svd.values(self.b), self.svd.measured(problem.y)
            self.inverse = torch.where(significant(self.s, cutoff), 1 / self.s, 0)
        else:
            self.closed_form = self.A.solve_normal(torch.zeros_like(self.b), 1.0) is not None

    def __call__(self, clean: Tensor, rho: float, share: Tensor | float = 1.0) -> Tensor:
        """``D + share (x - D)`` with x the solution; ``share`` may be one for each singular coordinate."""
        if self.svd is not None:
            return clean + self.svd.image(share * self.pull(clean, rho))
        return clean + share * self.solve(self.b - self.A.normal(clean), rho)

    def pull(self, clean: Tensor, rho: float) -> Tensor:
        """Coordinates of ``x - D``, from D to the solution x: ``s (u - s c) / (s^2 + rho)``."""
        assert self.svd is not None
        misfit = self.u - self.s * self.svd.coordinates(clean)
        return misfit * (self.inverse if rho == 0 else self.s / (self.s.square() + rho))

    def solve(self, b: Tensor, rho: float) -> Tensor:
        """``(A^H A + rho)^-1 b`` without singular values."""
        if rho == 0:  # singular: past convergence CG divides by the rounding of the null space
            return cg(self.A.normal, b, None, self.steps, singular_tolerance(self.tol, b))
        if self.closed_form:
            return cast(Tensor, self.A.solve_normal(b, rho))
        return cg(lambda v: self.A.normal(v).add(v, alpha=rho), b, None, self.steps, self.tol)


def refuse_no_steps(name: str, steps: int) -> None:
    """Raise `ConfigError` for fewer than one CG step."""
    if steps < 1:
        raise ConfigError(f"steps is {steps}.", f"{name} takes at least one CG step.", "Leave it out.")
