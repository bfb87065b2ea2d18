"""RED-diff: one image a sample, moved by gradients; the denoiser is its regulariser."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor

from operators.base import Linear

from ..errors import ConfigError, unknown
from ..noise import Draw, Noise
from ..problem import Problem
from ..state import State
from .shared.jacobian import residual_and_pull
from .shared.loops import OwnLoop, flow_calls, flowing, refuse_inner_solver
from .shared.norms import norms
from .shared.proximal import Proximal, refuse_no_steps

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
INITIALS = ("pinv", "backprojection", "zeros")


class REDDiff(OwnLoop):
    """One optimiser step a level on ``v/2 ||y - A mu||^2 + weight phi(s) <e - eps, mu>``, ``e = (x - D) / s``.

    ``x = mu + s eps``, and the network's part is a gradient already: nothing is differentiated through
    it. Gradient ``v A^H (A mu - y) + weight phi(s) (e - eps)``, sums over pixels and measurements;
    ``legacy_mean=True`` divides the two by their numbers of measurements and of pixels, as the released
    code does. ``obs_weight`` is v: default ``1 / ||A||^2``, which is the released code's 1 for operators of
    norm 1, and the same in any unit of y (1 for nonlinear operators). ``weighting``, phi: "linear" s,
    "sqrt", "square", "log" ln(1 + s), "trunc_linear" min(s, 1), "power2over3", "const", or a function.

    ``optimizer``: "adam" with betas (.9, .99), "sgd", or any torch optimiser that needs no closure, with
    ``optimizer_options``; every row is a parameter of its own. ``lr`` is in units of the image, which
    Adam moves by about so much a step. ``sigma_x0``: noise on mu at which both gradients are taken.
    ``init``: "pinv" ``A^+ y``, by singular values or ``steps`` CG steps (default for linear operators),
    "backprojection", "zeros". ``flow``: 0, or so many steps of the solver given to `recon.sample` as the
    denoiser; the solver is not asked otherwise.

    A point estimate: samples differ only by the noise of the regulariser. sigma_y is not in the loss,
    and no listed weighting gives the posterior mean even of a Gaussian prior; the end depends on lr and
    the number of steps together. The answer is mu after the last step, not before it.
    Source: Mardani, Song, Kautz, Vahdat, A Variational Perspective on Solving Inverse Problems with
    Diffusion Models, ICLR 2024, algorithm 1.
    """

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
        sigma_x0: float = 0.0,
        init: str | None = None,
        legacy_mean: bool = False,
        flow: int = 0,
        steps: int = 5,
        tol: float = 1e-6,
    ):
        if not callable(weighting) and weighting not in WEIGHTINGS:
            raise unknown("weighting of RED-diff", weighting, WEIGHTINGS)
        if init is not None and init not in INITIALS:
            raise unknown("start of RED-diff", init, INITIALS)
        numbers = {"weight": weight, "obs_weight": obs_weight, "lr": lr, "sigma_x0": sigma_x0, "flow": flow}
        for name, number in numbers.items():
            if number is not None and not (number >= 0 and math.isfinite(number)):
                raise ConfigError(f"{name} is {number}.", "It is finite and not negative.")
        refuse_no_steps("REDDiff", steps)
        self.weighting = weighting if callable(weighting) else WEIGHTINGS[weighting]
        self.weight, self.obs_weight, self.sigma_x0 = weight, obs_weight, sigma_x0
        self.make_optimizer = chosen(optimizer, lr, optimizer_options)
        self.init, self.legacy_mean, self.flow, self.steps, self.tol = init, legacy_mean, flow, steps, tol
        self.calls = max(flow, 1)
        super().__init__(prior, problem)

    def check_problem(self, problem: Problem) -> None:
        super().check_problem(problem)
        A = problem.A
        if not A.linear and self.init in ("pinv", "backprojection"):
            raise ConfigError(
                f"RED-diff was given {A!r} and init={self.init!r}.",
                "An operator that is not linear has no adjoint to start from.",
                'Use init="zeros".',
            )
        self.start_from = self.init or ("pinv" if A.linear else "zeros")
        if self.start_from == "pinv":
            self.fit = Proximal(problem, self.steps, self.tol)
        v = self.obs_weight
        if v is None:
            v = 1 / norms(problem).square().clamp_min(1e-30) if A.linear else 1.0
        pixels = math.prod(A.domain) * (2 if A.complex_domain else 1)
        self.pull = v / (problem.measurements if self.legacy_mean else 1)
        self.push = self.weight / (pixels if self.legacy_mean else 1)

    def pair(self, solver) -> None:
        if self.flow:
            refuse_inner_solver("RED-diff", solver, self.flow)

    def network_calls(self, solver, steps: int, lowest: float | None = None) -> int:
        return flow_calls(self.prior, solver, self.flow, steps, lowest) if self.flow else steps

    def states(self, solver, grid: list[float], x: Tensor, noise: Noise) -> Iterator[State]:
        denoiser = flowing(self.prior, solver, self.flow, grid, x.dtype) if self.flow else self.prior
        mu = self.first(x)
        rows = list((torch.view_as_real(mu) if mu.is_complex() else mu).unbind())  # views: mu moves with them
        optimizer = self.make_optimizer(rows)
        for index, (sigma, target) in enumerate(pairwise(grid)):
            gradient = self.gradient(mu, sigma, denoiser, noise.at(index))
            parts = torch.view_as_real(gradient) if gradient.is_complex() else gradient
            for row, part in zip(rows, parts.unbind(), strict=True):
                row.grad = part
            optimizer.step()
            yield State(mu.clone(), target, mu.clone())

    def first(self, x: Tensor) -> Tensor:
        """mu before the first step, in memory of its own."""
        if self.start_from == "zeros":
            return torch.zeros_like(x)
        if self.start_from == "backprojection":
            return self.problem.backprojection.to(x, copy=True)
        return self.fit(torch.zeros_like(x), 0.0).contiguous()

    def gradient(self, mu: Tensor, sigma: float, denoiser, draw: Draw) -> Tensor:
        """``v A^H (A x0 - y) + weight phi(s) (e - eps)`` at ``x0 = mu + sigma_x0 xi``."""
        x0 = mu.add(draw(mu, "clean"), alpha=self.sigma_x0) if self.sigma_x0 > 0 else mu
        eps = draw(mu, "eps")
        with torch.no_grad():
            clean = denoiser(x0.add(eps, alpha=sigma), sigma)
        excess = (x0 - clean) * (1 / sigma)  # e - eps
        return (self.push * self.weighting(sigma)) * excess - self.pull * self.descent(x0)

    def descent(self, x: Tensor) -> Tensor:
        """``A^H (y - A x)``."""
        A = self.problem.A
        if A.linear:
            return self.problem.backprojection - cast(Linear, A).normal(x)
        return residual_and_pull(A, x, self.problem.y)[1]


def chosen(
    optimizer, lr: float, options: dict[str, Any] | None
) -> Callable[[list[Tensor]], torch.optim.Optimizer]:
    """A maker of the optimiser; refused where it is unknown, or asks for the loss itself."""
    if isinstance(optimizer, str) and optimizer not in OPTIMIZERS:
        raise unknown("optimiser", optimizer, OPTIMIZERS)
    kind, own = OPTIMIZERS[optimizer] if isinstance(optimizer, str) else (optimizer, {})
    if not isinstance(kind, type) or issubclass(kind, torch.optim.LBFGS):
        raise ConfigError(
            f"The optimiser is {kind!r}.",
            "RED-diff has a gradient and no loss to evaluate again.",
            "Use adam, sgd, or another class of torch.optim that needs no closure.",
        )
    return lambda rows: kind(rows, lr=lr, **{**own, **(options or {})})  # pyright: ignore[reportCallIssue]
