"""The tables that the law suites run over: a new operator, solver or sampler adds one row here."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

import operators as op
from recon import posteriors, solvers


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _mask(*shape: int) -> torch.Tensor:
    return (_random(*shape, seed=1) > 0).double()


def _maps(*shape: int) -> torch.Tensor:
    return torch.complex(_random(*shape, seed=2), _random(*shape, seed=3))


# name -> zero-argument factory of a tiny instance in float64
OPERATORS: dict[str, Callable[[], op.Linear]] = {
    "inpainting": lambda: op.Inpainting(_mask(5, 4)),
    "inpainting, 3 channels": lambda: op.Inpainting(_mask(5, 4), channels=3),
    "inpainting, mask a channel": lambda: op.Inpainting(_mask(2, 4, 5)),
    "sr bicubic": lambda: op.SuperResolution((1, 8, 12), factor=4).to(torch.float64),
    "sr bicubic x3": lambda: op.SuperResolution((1, 9, 6), factor=3).to(torch.float64),
    "sr box": lambda: op.SuperResolution((2, 6, 4), factor=2, filter="box").to(torch.float64),
    "sr gaussian": lambda: op.SuperResolution((1, 8, 8), factor=2, filter="gaussian").to(torch.float64),
    "sr reflect": lambda: op.SuperResolution((1, 9, 12), factor=3, padding="reflect").to(torch.float64),
    "blur": lambda: op.Blur(_random(3, 3), (1, 5, 6)),
    "blur, even kernel": lambda: op.Blur(_random(2, 4), (1, 4, 4)),
    "blur, kernel a channel": lambda: op.Blur(_random(2, 3, 1), (2, 4, 5)),
    "ct": lambda: op.CT(6, [0.0, 17.0, 45.0, 90.0, 133.0]).to(torch.float64),
    "mri": lambda: op.MRI(_mask(4, 6)),
    "mri, odd size": lambda: op.MRI(_mask(5, 3)),
    "mri, columns": lambda: op.MRI(_mask(7), shape=(4, 7)),
    "mri, 3 coils": lambda: op.MRI(_mask(4, 4), _maps(3, 4, 4)),
    "mri, 3 coils, odd size": lambda: op.MRI(_mask(5, 7), _maps(3, 5, 7)),
    "mri, 3 coils, columns": lambda: op.MRI(_mask(6), _maps(3, 4, 6)),
    "mri, 3 coils, columns, odd size": lambda: op.MRI(_mask(5), _maps(3, 3, 5)),
    "mri, 2 map sets": lambda: op.MRI(_mask(4, 5), _maps(2, 3, 4, 5)),
    "mri, 2 map sets, columns": lambda: op.MRI(_mask(5), _maps(2, 3, 4, 5)),
    "difference": lambda: op.Difference((1, 4, 5)),
    "difference, circular": lambda: op.Difference((2, 3, 4), boundary="circular"),
    "difference, complex volume": lambda: op.Difference((1, 3, 4, 2), axes=(-3,), complex_domain=True),
    "identity": lambda: op.Identity((1, 3, 4)),
    "scale, complex": lambda: op.Scale(2.0 - 1.5j, (1, 3, 4), complex_domain=True),
    "chain": lambda: op.Inpainting(_mask(5, 6)) @ op.Blur(_random(3, 3), (1, 5, 6)),
    "sum": lambda: op.Inpainting(_mask(5, 6)) + 2.0 * op.Blur(_random(3, 3), (1, 5, 6)),
    "adjoint": lambda: op.Blur(_random(3, 3), (1, 5, 6)).H,
    "normal": lambda: op.Inpainting(_mask(5, 6)).N,
    "per image": lambda: op.PerImage((op.Inpainting(_mask(5, 4)), op.Inpainting(1 - _mask(5, 4)))),
}


@dataclass(frozen=True)
class SolverRow:
    """One configuration of a registered solver and the laws that hold for it.

    ``family`` names the laws it must declare (test_solver_laws.FAMILIES). ``order``: of the ODE, None
    where it does not solve it; ``weak_order``: of its law, for stochastic ones. ``grid`` and ``bound``:
    where the order is measured, and the error allowed at 256 steps. ``prime``: exact nodes it is given
    before its order or polynomials are measured. ``polynomial``: highest degree integrated exactly, of
    D in ln(1/sigma) ("x0") and of eps in sigma ("eps"). ``level``: q(sigma, target) of a one-step
    kernel ``x0 + sqrt(t^2 - q^2) eps + q z``.
    """

    name: str
    make: Callable[[], solvers.Solver]
    family: str
    laws: frozenset[str]
    order: int | None = None
    weak_order: int | None = None
    grid: str = "lam"
    bound: float = 0.0
    prime: int = 0
    polynomial: dict[str, int] = field(default_factory=dict)
    evals: int = 1
    last_evals: int = 1
    level: Callable[[float, float], float] | None = None

    @property
    def stochastic(self) -> bool:
        return "stochastic" in self.laws


def _laws(*names: str) -> frozenset[str]:
    return frozenset(names)


def _ancestral(eta: float) -> Callable[[float, float], float]:
    """``q^2 = eta^2 t^2 (1 - e^(-2h))``, ``e^(-h) = t / s``."""
    return lambda s, t: eta * t * math.sqrt(1 - (t / s) ** 2)


ONE_STEP = _laws("dirac", "final_x0", "kernel", "one call")
NOISE_FREE = {"x0": 0, "eps": 0}

# label -> row; every name of recon.SOLVERS has at least one
SOLVERS: dict[str, SolverRow] = {
    "euler": SolverRow(
        "euler", solvers.Euler, "one-step", ONE_STEP, order=1, bound=2e-2, polynomial=NOISE_FREE,
        level=lambda s, t: 0.0,
    ),
    "ddim": SolverRow(
        "ddim", solvers.DDIM, "one-step", ONE_STEP, order=1, bound=2e-2, polynomial=NOISE_FREE,
        level=lambda s, t: 0.0,
    ),
    "ddim, eta .5": SolverRow(
        "ddim", lambda: solvers.DDIM(eta=0.5), "one-step", ONE_STEP | {"stochastic"},
        weak_order=1, bound=6e-2, level=_ancestral(0.5),
    ),
    "ddim, eta 1": SolverRow(
        "ddim", lambda: solvers.DDIM(eta=1.0), "one-step", ONE_STEP | {"stochastic"},
        weak_order=1, bound=6e-2, level=_ancestral(1.0),
    ),
    "renoise, eta 0": SolverRow(
        "renoise", lambda: solvers.Renoise(eta=0.0), "one-step", ONE_STEP, order=1, bound=2e-2,
        polynomial=NOISE_FREE, level=lambda s, t: 0.0,
    ),
    "renoise": SolverRow(
        "renoise", solvers.Renoise, "one-step", ONE_STEP | {"stochastic", "no limit"},
        level=lambda s, t: 0.85 * t,
    ),
    "renoise, eta 1": SolverRow(
        "renoise", lambda: solvers.Renoise(eta=1.0), "one-step", ONE_STEP | {"stochastic", "no limit"},
        level=lambda s, t: t,
    ),
    "heun": SolverRow(
        "heun", solvers.Heun, "Runge-Kutta in sigma", _laws("dirac", "final_x0", "kernel"),
        order=2, grid="t", bound=2e-4, polynomial={"x0": 0, "eps": 1}, evals=2,
    ),
    "dpm++2m": SolverRow(
        "dpm++2m", solvers.DPMpp2M, "multistep, midpoint", _laws("dirac", "final_x0", "kernel", "one call"),
        order=2, bound=2e-4, polynomial={"x0": 0},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class PosteriorRow:
    """One configuration of a registered sampler.

    ``make(prior, problem)``. ``exact``: the setting of test_posterior_laws in which its estimate is the
    conditional mean E[x0 | x, y]: "prior" without measurements, "isotropic" for a Gaussian prior c I and
    any linear operator, None where there is none. ``calls`` of the prior each time the solver asks.
    """

    name: str
    make: Callable[..., posteriors.Posterior]
    exact: str | None = None
    calls: int = 1


# label -> row; every name of recon.POSTERIORS has at least one
POSTERIORS: dict[str, PosteriorRow] = {
    "prior": PosteriorRow("prior", posteriors.Posterior, exact="prior"),
    "dds": PosteriorRow("dds", posteriors.DDS),
    "dds, gamma 1": PosteriorRow(
        "dds",
        lambda prior, problem: posteriors.DDS(
            prior, problem, weight=posteriors.constant(1.0), steps=8, tol=0.0
        ),
    ),
    "dds, matched, keep state": PosteriorRow(
        "dds",
        lambda prior, problem: posteriors.DDS(prior, problem, steps=8, keep="state", tol=0.0),
        exact="isotropic",
    ),
}
