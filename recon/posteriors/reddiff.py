"""RED-diff: an image for each sample, moved by gradients; the denoiser is its regulariser."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor

from operators.base import Linear
from operators.differences import Difference
from operators.krylov import cg

from ..errors import ConfigError, unknown
from ..noise import Draw, Noise
from ..priors import about
from ..problem import Problem
from ..solvers.base import Solver
from ..state import State
from .shared.jacobian import misfit_descent
from .shared.loops import OwnLoop, flow_calls, flowing, refuse_inner_solver
from .shared.norms import inverse_squares
from .shared.proximal import Proximal, refuse_no_steps
from .usual import Usual

WEIGHTINGS: dict[str, Callable[[float], float]] = {
    "linear": lambda s: s,
    "sqrt": math.sqrt,
    "square": lambda s: s * s,
    "log": math.log1p,
    "trunc_linear": lambda s: min(s, 1.0),
    "power2over3": lambda s: s ** (2 / 3),
    "const": lambda s: 1.0,
}
OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "adam": (torch.optim.Adam, {"betas": (0.9, 0.99)}),
    "sgd": (torch.optim.SGD, {}),
}
RED_STARTS = ("pinv", "smooth", "backprojection", "measured", "zeros")
SMOOTHNESS, SMOOTH_STEPS = 0.03, 50  # weight of the differences, and CG steps, of the start "smooth"


class REDDiff(OwnLoop):
    """One optimiser step a level on ``v/2 ||y - A mu||^2 + weight phi(s) <e - eps, mu>``, ``e = (x - D) / s``.

    ``x = mu + s eps``. The gradient is ``v A^H (A mu - y) + weight phi(s) (e - eps)``, summed over pixels and
    measurements: the network's part is a gradient already, and nothing is differentiated through it.
    ``legacy_mean=True`` divides the two terms by the numbers of measurements and of pixels, as the released
    code does. ``obs_weight`` is v: default ``1 / ||A||^2``, which is the released code's 1 for operators of
    norm 1, and the same in any unit of y (``lipschitz`` of a nonlinear operator, 1 where it states none). ``weighting``, phi: "linear" s,
    "sqrt", "square", "log" ln(1 + s), "trunc_linear" min(s, 1), "power2over3", "const", or a function.

    ``optimizer``: "adam" with betas (.9, .99), "sgd", or any torch optimiser that needs no closure, with
    ``optimizer_options``; every row is a parameter of its own. ``lr`` is in units of the image, which
    Adam moves by about that much a step; with ``relative`` it is in standard deviations of the prior's images, and phi is
    one of sigma in the same unit. ``sigma_x0``: standard deviation of noise added to mu, at which both
    gradients are taken. ``init``: "pinv" ``A^+ y``, by singular values or ``steps`` CG steps (default for linear
    operators), "smooth" ``argmin ||A x - y||^2 / ||A||^2 + .03 ||differences of x||^2``, which fills in what was not
    measured (of linear operators; for others the default), "backprojection", "measured" y itself (default where it has
    the shape of the image), "zeros". ``flow``: 0, or that many steps of the solver given to `recon.sample` as the
    denoiser; the solver is not used otherwise.

    Traps: a point estimate: samples differ only by the noise of the regulariser. sigma_y is not in the loss,
    and no listed weighting gives the posterior mean even of a Gaussian prior; the result depends on lr and
    the number of steps together. The answer is mu after the last step, not before it.
    Source: Mardani, Song, Kautz, Vahdat, A Variational Perspective on Solving Inverse Problems with
    Diffusion Models, ICLR 2024, algorithm 1.
    """

    usual = Usual(
        {"lr": 0.2, "weighting": "sqrt", "weight": 0.45, "relative": True, "init": "smooth"},
        "euler",
        highest=0.6,
        lowest=0.065,
    )
    knob = "Lower lr, or both of weight and obs_weight."

    def __init__(
        self,
        prior=None,
        problem: Problem | None = None,
        *,
        weighting: str | Callable[[float], float] = "linear",
        weight: float = 0.25,
        obs_weight: float | None = None,
        lr: float = 0.1,
        optimizer: str | type[torch.optim.Optimizer] = "adam",
        optimizer_options: dict[str, Any] | None = None,
        relative: bool = False,
        sigma_x0: float = 0.0,
        init: str | None = None,
        legacy_mean: bool = False,
        flow: int = 0,
        steps: int = 5,
        tol: float = 1e-6,
    ):
        if not callable(weighting) and weighting not in WEIGHTINGS:
            raise unknown("weighting of RED-diff", weighting, WEIGHTINGS)
        if init is not None and init not in RED_STARTS:
            raise unknown("start of RED-diff", init, RED_STARTS)
        numbers = {"weight": weight, "obs_weight": obs_weight, "lr": lr, "sigma_x0": sigma_x0, "flow": flow}
        for name, number in numbers.items():
            if number is not None and not (number >= 0 and math.isfinite(number)):
                raise ConfigError(f"{name} is {number}.", "It is finite and not negative.")
        refuse_no_steps("REDDiff", steps)
        self.weighting = weighting if callable(weighting) else WEIGHTINGS[weighting]
        self.weight, self.obs_weight, self.sigma_x0 = weight, obs_weight, sigma_x0
        self.lr, self.relative = lr, relative
        self.make_optimizer = optimizer_maker(optimizer, optimizer_options)
        self.init, self.legacy_mean, self.flow, self.steps, self.tol = init, legacy_mean, flow, steps, tol
        self.calls = max(flow, 1)
        super().__init__(prior, problem)

    def check_problem(self, problem: Problem) -> None:
        """Refuses starts that a nonlinear operator has none of; computes the weights of both terms."""
        super().check_problem(problem)
        A = problem.A
        if not A.linear and self.init in ("pinv", "backprojection"):
            raise ConfigError(
                f"RED-diff was given {A!r} and init={self.init!r}.",
                "An operator that is not linear has no adjoint to start from.",
                'Use init="zeros".',
            )
        alike = tuple(A.codomain) == tuple(A.domain) and A.complex_codomain == A.complex_domain
        if self.init == "measured" and not alike:
            raise ConfigError(
                f'RED-diff was given {A!r} and init="measured".',
                "Its measurements are no image of the same shape.",
                'Use init="zeros".',
            )
        otherwise = "pinv" if A.linear else "measured" if alike else "zeros"
        self.start_from = (
            otherwise if self.init is None or (self.init == "smooth" and not A.linear) else self.init
        )
        if self.start_from == "pinv":
            self.fit = Proximal(problem, self.steps, self.tol)
        v = self.obs_weight
        if v is None:
            v = inverse_squares(problem)
        pixels = math.prod(A.domain) * (2 if A.complex_domain else 1)
        self.pull = v / (problem.measurements if self.legacy_mean else 1)
        self.push = self.weight / (pixels if self.legacy_mean else 1)

    def pair(self, solver: Solver) -> None:
        """Refuses solvers with noise, and of an order that ``flow`` steps do not reach."""
        if self.flow:
            refuse_inner_solver("RED-diff", solver, self.flow)

    def network_calls(self, solver: Solver, steps: int, lowest: float | None = None) -> int:
        """One a step, or those of the flow."""
        return flow_calls(self.prior, solver, self.flow, steps, lowest) if self.flow else steps

    def states(self, solver: Solver, grid: list[float], x: Tensor, noise: Noise) -> Iterator[State]:
        """mu after every step of the optimiser; ``x`` gives only shape, dtype and device."""
        denoiser = flowing(self.prior, solver, self.flow, grid, x.dtype) if self.flow else self.prior
        mu = self.first(x)
        rows = list((torch.view_as_real(mu) if mu.is_complex() else mu).unbind())  # views: mu moves with them
        optimizer = self.make_optimizer(rows, self.lr * self.unit)
        for index, (sigma, target) in enumerate(pairwise(grid)):
            gradient = self.gradient(mu, sigma, denoiser, noise.at(index))
            parts = torch.view_as_real(gradient) if gradient.is_complex() else gradient
            for row, part in zip(rows, parts.unbind(), strict=True):
                row.grad = part
            optimizer.step()
            yield State(mu.clone(), target, mu.clone())

    @property
    def unit(self) -> float:
        """What 1 is for the learning rate and for the sigma of phi, in units of the image."""
        return math.sqrt(about(self.prior).data_var) if self.relative else 1.0

    def first(self, x: Tensor) -> Tensor:
        """mu before the first step, in memory of its own."""
        if self.start_from == "zeros":
            return torch.zeros_like(x)
        if self.start_from == "measured":
            return self.problem.y.to(x, copy=True)
        if self.start_from == "backprojection":
            return self.problem.backprojection.to(x, copy=True)
        if self.start_from == "smooth":
            return self.smooth(x).contiguous()
        return self.fit(torch.zeros_like(x), 0.0).contiguous()

    def smooth(self, x: Tensor) -> Tensor:
        """The start "smooth": ``(A^H A / ||A||^2 + .03 D^H D)^-1 A^H y / ||A||^2`` by CG, D the differences of neighbours."""
        problem = cast(Problem, self.problem)
        A, unit = cast(Linear, problem.A), inverse_squares(problem)
        axes = (-2, -1)[-max(1, len(A.domain) - 1) :]
        rough = Difference(tuple(A.domain), axes, complex_domain=A.complex_domain)
        b = unit * problem.backprojection.to(x)
        return cg(lambda v: unit * A.normal(v) + SMOOTHNESS * rough.normal(v), b, steps=SMOOTH_STEPS)

    def gradient(self, mu: Tensor, sigma: float, denoiser, draw: Draw) -> Tensor:
        """``v A^H (A x0 - y) + weight phi(s) (e - eps)`` at ``x0 = mu + sigma_x0 xi``."""
        x0 = mu.add(draw(mu, "clean"), alpha=self.sigma_x0) if self.sigma_x0 > 0 else mu
        eps = draw(mu, "eps")
        with torch.no_grad():
            clean = denoiser(x0.add(eps, alpha=sigma), sigma)
        excess = (x0 - clean) * (1 / sigma)  # e - eps
        weight = self.push * self.unit * self.weighting(sigma / self.unit)
        return weight * excess - self.pull * misfit_descent(cast(Problem, self.problem), x0)


def optimizer_maker(
    optimizer, options: dict[str, Any] | None
) -> Callable[[list[Tensor], float], torch.optim.Optimizer]:
    """``(rows, lr) -> optimiser`` of them; raises `ConfigError` for one that is unknown, or evaluates the loss itself."""
    if isinstance(optimizer, str) and optimizer not in OPTIMIZERS:
        raise unknown("optimiser", optimizer, OPTIMIZERS)
    kind, own = OPTIMIZERS[optimizer] if isinstance(optimizer, str) else (optimizer, {})
    if not isinstance(kind, type) or issubclass(kind, torch.optim.LBFGS):
        raise ConfigError(
            f"The optimiser is {kind!r}.",
            "RED-diff has a gradient, and no loss that could be evaluated again.",
            "Use adam, sgd, or another class of torch.optim that needs no closure.",
        )
    return lambda rows, lr: kind(rows, lr=lr, **{**own, **(options or {})})  # pyright: ignore[reportCallIssue]
