"""DAPS: solve the flow to a clean image, draw from what the data say around it, noise it to the next level."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import cast

from torch import Tensor

from operators.krylov import add_scaled

from ..errors import ConfigError, unknown
from ..noise import Draw, Noise
from ..problem import Problem
from ..solvers.base import Solver
from ..state import State
from .shared.jacobian import misfit_descent
from .shared.loops import OwnLoop, flow_calls, flowing, refuse_inner_solver
from .shared.norms import is_measurable, squared_sizes
from .shared.proximal import Proximal, refuse_no_steps
from .usual import Usual

DAPS_KERNELS = ("langevin", "gaussian", "auto")


class DAPS(OwnLoop):
    """``x' = x0 + t z``, ``x0 ~ exp(-||A x0 - y||^2 / (2 tau^2) - ||x0 - xhat||^2 / (2 r^2))`` around the flow's end.

    ``xhat`` is the end of the probability flow from (x, s) to 0, in ``ode_steps`` steps of the solver given to
    `recon.sample`, which must be deterministic, on levels that scale with s. ``ode_steps=1`` is the
    denoised image. ``spread``: r as a function of s, or r / s as a number, default 1 (the paper). ``tau``: default
    sigma_y; the paper's is .01, a temperature.

    ``kernel``: "langevin" (the paper) takes ``langevin`` steps ``x0 += -h grad + sqrt(2 h) z`` from
    ``xhat``, with ``h = 2 rate / (||A||^2 / tau^2 + 1 / r^2)`` of each row's own operator: stable for rate <
    1, where a mode of precision k has the variance ``1 / (k (1 - h k / 2))``. ``||A||`` of a nonlinear operator is its
    ``lipschitz``; for one that states none give ``step``: ``h = 1 / (1 / step + 1 / r^2)``, so that you judge the share of the data only. What is not
    measured moves by ``sqrt(2 h)`` a step: it stays closer to xhat than r. "gaussian" draws from that law
    exactly, for linear operators: in singular coordinates where A has them, else from perturbed
    measurements by ``steps`` CG steps. "auto" is "gaussian" for linear operators, "langevin" for others.

    Traps: biased for r = s: with the prior N(0, 1), A = 1, sigma_y = .5, y = 1, mean .890 and variance .222 instead
    of .8 and .2; and where little is measured an exact draw leaves the state noisier than its level, by up
    to ``sqrt(2)``. With the true belief, ``ode_steps=1`` and ``r^2 = s^2 v / (s^2 + v)`` for the prior N(m, v I),
    it is exact on any grid. The released Langevin step weighs the data by ``1 / tau^2`` where its Metropolis step
    has ``1 / (2 tau^2)``; its step size is at the edge of stability; and it returns zeros where it met NaN.
    Source: Zhang et al., Improving Diffusion Inverse Problem Solving with Decoupled Noise Annealing,
    CVPR 2025, algorithm 1.
    """

    calls = 5
    usual = Usual({"ode_steps": 1, "kernel": "auto", "spread": 0.5}, "euler", highest=5.0, lowest=0.065)
    knob = "Lower rate (or step), the size of Langevin steps, or raise tau."

    def __init__(
        self,
        prior=None,
        problem: Problem | None = None,
        *,
        ode_steps: int = 5,
        kernel: str = "langevin",
        tau: float | None = None,
        spread: Callable[[float], float] | float = 1.0,
        langevin: int = 100,
        rate: float = 0.1,
        step: float | None = None,
        steps: int = 20,
        tol: float = 1e-6,
    ):
        if kernel not in DAPS_KERNELS:
            raise unknown("kernel of DAPS", kernel, DAPS_KERNELS)
        for name, count in (("ode_steps", ode_steps), ("langevin", langevin)):
            if count < 1:
                raise ConfigError(f"{name} is {count}.", "At least one step is needed.", "Leave it out.")
        share = None if callable(spread) else spread
        for name, size in (("tau", tau), ("step", step), ("spread", share)):
            if size is not None and not (size > 0 and math.isfinite(size)):
                raise ConfigError(f"{name} is {size}.", "It is a positive, finite number.", "Leave it out.")
        if not 0 < rate < 1:
            raise ConfigError(f"rate is {rate}.", "Langevin steps are stable between 0 and 1.", "Use .1.")
        refuse_no_steps("DAPS", steps)
        self.ode_steps, self.kernel_given, self.spread, self.tau_given = ode_steps, kernel, spread, tau
        self.langevin, self.rate, self.step_size, self.steps, self.tol = langevin, rate, step, steps, tol
        self.calls = ode_steps
        super().__init__(prior, problem)

    def check_problem(self, problem: Problem) -> None:
        """Refuses tau = 0, and nonlinear operators without a step size; prepares the draw of x0."""
        super().check_problem(problem)
        self.tau = problem.sigma if self.tau_given is None else self.tau_given
        if self.tau == 0:
            raise ConfigError(
                "DAPS was given measurements with sigma 0.",
                "It divides by the variance of their noise.",
                "State the noise, Problem(A, y, sigma=...), or give a temperature: tau=.01.",
            )
        self.kernel = self.kernel_given
        if self.kernel == "auto":
            self.kernel = "gaussian" if problem.A.linear else "langevin"
        unknown_size = self.step_size is None and not is_measurable(problem)
        if not problem.A.linear and (self.kernel == "gaussian" or unknown_size):
            raise ConfigError(
                f"DAPS was given {problem.A!r}, which is not linear.",
                "No norm of it says which Langevin steps are stable, and no Gaussian is its posterior.",
                'Use kernel="langevin" and give the size of its steps: step=1e-4.',
            )
        if self.kernel == "gaussian":
            self.fit = Proximal(problem, self.steps, self.tol)
        elif self.step_size is None:
            self.norm_squared = squared_sizes(problem)

    def pair(self, solver: Solver) -> None:
        """Refuses solvers with noise, and of an order that ``ode_steps`` do not reach."""
        refuse_inner_solver("DAPS", solver, self.ode_steps)

    def network_calls(self, solver: Solver, steps: int, lowest: float | None = None) -> int:
        """Those of the flow in every step."""
        return flow_calls(self.prior, solver, self.ode_steps, steps, lowest)

    def states(self, solver: Solver, grid: list[float], x: Tensor, noise: Noise) -> Iterator[State]:
        """Flow, draw of x0, fresh noise of the next level."""
        flow = flowing(self.prior, solver, self.ode_steps, grid, x.dtype)
        for index, (sigma, target) in enumerate(pairwise(grid)):
            draw = noise.at(index)
            r = self.spread(sigma) if callable(self.spread) else self.spread * sigma
            clean = self.drawn(flow(x, sigma), r, draw)
            x = clean.add(draw(clean), alpha=target) if target > 0 else clean
            yield State(x, target, clean)

    def drawn(self, xhat: Tensor, r: float, draw: Draw) -> Tensor:
        """A draw of x0 (rows, *domain) around ``xhat``."""
        return (
            self.gaussian(xhat, r, draw) if self.kernel == "gaussian" else self.langevin_walk(xhat, r, draw)
        )

    def langevin_walk(self, xhat: Tensor, r: float, draw: Draw) -> Tensor:
        """Unadjusted Langevin steps from ``xhat``."""
        h = self.langevin_size(xhat, r)
        towards_xhat, std, x = h / r**2, (2 * h).sqrt(), xhat
        for k in range(self.langevin):
            moved = add_scaled(x, h / self.tau**2, misfit_descent(cast(Problem, self.problem), x))
            moved = add_scaled(moved, towards_xhat, xhat - x)
            x = add_scaled(moved, std, draw(x, f"langevin {k}"))
        return x

    def langevin_size(self, like: Tensor, r: float) -> Tensor:
        """h, for each row or for all (rows or 1, 1, ...)."""
        if self.step_size is not None:
            return like.real.new_full((1,) * like.ndim, 1 / (1 / self.step_size + 1 / r**2))
        size = 2 * self.rate / (self.norm_squared / self.tau**2 + 1 / r**2)
        return size if isinstance(size, Tensor) else like.real.new_full((1,) * like.ndim, size)

    def gaussian(self, xhat: Tensor, r: float, draw: Draw) -> Tensor:
        """A draw of ``N((A^H A / tau^2 + 1 / r^2)^-1 (A^H y / tau^2 + xhat / r^2), (A^H A / tau^2 + 1 / r^2)^-1)``."""
        fit, rho = self.fit, (self.tau / r) ** 2
        if fit.svd is not None:
            std = self.tau / (fit.s.square() + rho).sqrt()
            return xhat + fit.svd.image(fit.pull(xhat, rho) + std * fit.svd.coordinates(draw(xhat, "clean")))
        around = xhat + r * draw(xhat, "clean")
        pull = fit.b + self.tau * fit.A.adjoint(draw(self.problem.y, "measured"))
        return around + fit.solve(pull - fit.A.normal(around), rho)
