"""The tables that the law suites run over: a new operator, solver or sampler adds one row here.

Where samplers and solvers are crossed, the default suite runs the samplers named in the test under every
solver, and every sampler under the rows of `REPRESENTATIVES`. What is left of the product is marked
``full``: ``pytest -m full`` runs it alone, ``pytest --full`` the whole suite with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

import pytest
import torch

import operators as op
import recon
from recon import posteriors, solvers
from recon.processes import VE, VP, Flow, Process, SubVP


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
    "blur, shaken": lambda: op.Blur(op.motion_kernel(4.0, 30.0, 40.0).double(), (1, 8, 9)),
    "blur, anisotropic": lambda: op.Blur(op.anisotropic_kernel(0.9, 0.4, 20.0).double(), (2, 9, 10)),
    "inpainting, brush": lambda: op.Inpainting(op.brush_mask((9, 8), 1, 2.0).double(), channels=3),
    "colourisation": lambda: op.Colourisation((3, 4, 5)).to(torch.float64),
    "colourisation, mean": lambda: op.Colourisation((3, 3, 2), "mean").to(torch.float64),
    "ct": lambda: op.CT(6, [0.0, 17.0, 45.0, 90.0, 133.0]).to(torch.float64),
    "ct, gathered": lambda: op.CT(6, [0.0, 17.0, 45.0], axis=3.2, backend="gathered"),
    "ct, fan": lambda: op.CT(6, [0.0, 77.0, 200.0], "fan", source=9.0, detector=14.0).to(torch.float64),
    "ct, cone": lambda: op.CT(4, [0.0, 77.0], "cone", source=7.0, detector=11.0, slices=2, rows=3),
    "stacked ct": lambda: op.Stacked(op.CT(4, [0.0, 50.0]), 3, together=4).to(torch.float64),
    "stacked mri": lambda: op.Stacked([op.MRI(_mask(4, 3), _maps(d, 4, 3)) for d in (2, 2)]),
    "stacked pixels": lambda: op.Stacked([op.Inpainting(_mask(2, 4, 3)[d : d + 1]) for d in (0, 1)]),
    "mri": lambda: op.MRI(_mask(4, 6)),
    "mri, odd size": lambda: op.MRI(_mask(5, 3)),
    "mri, columns": lambda: op.MRI(_mask(7), shape=(4, 7)),
    "mri, 3 coils": lambda: op.MRI(_mask(4, 4), _maps(3, 4, 4)),
    "mri, 3 coils, odd size": lambda: op.MRI(_mask(5, 7), _maps(3, 5, 7)),
    "mri, 3 coils, columns": lambda: op.MRI(_mask(6), _maps(3, 4, 6)),
    "mri, 3 coils, columns, odd size": lambda: op.MRI(_mask(5), _maps(3, 3, 5)),
    "mri, 3 coils, weights": lambda: op.MRI(
        _mask(4, 4), _maps(3, 4, 4), weights=0.5 + _random(4, 4, seed=4).abs()
    ),
    "mri, 3 coils, columns, weights": lambda: op.MRI(
        _mask(6), _maps(3, 4, 6), weights=0.5 + _random(6, seed=4).abs()
    ),
    "mri, weights": lambda: op.MRI(_mask(5, 3), weights=0.5 + _random(5, 3, seed=4).abs()),
    "mri, 2 map sets": lambda: op.MRI(_mask(4, 5), _maps(2, 3, 4, 5)),
    "mri, 2 map sets, columns": lambda: op.MRI(_mask(5), _maps(2, 3, 4, 5)),
    "non-cartesian mri": lambda: op.NonCartesianMRI(op.radial_trajectory(3, 5), shape=(4, 6)),
    "non-cartesian mri, 3 coils, spiral": lambda: op.NonCartesianMRI(
        op.spiral_trajectory(2, 7, 1.5), _maps(3, 5, 4)
    ),
    "non-cartesian mri, 2 map sets, weighted": lambda: op.NonCartesianMRI(
        _random(13, 2, seed=4).clamp(-2, 2) / 4, _maps(2, 3, 4, 5), _random(13, seed=5).abs()
    ),
    "difference": lambda: op.Difference((1, 4, 5)),
    "difference, circular": lambda: op.Difference((2, 3, 4), boundary="circular"),
    "difference, complex volume": lambda: op.Difference((1, 3, 4, 2), axes=(-3,), complex_domain=True),
    "identity": lambda: op.Identity((1, 3, 4)),
    "scale, complex": lambda: op.Scale(2.0 - 1.5j, (1, 3, 4), complex_domain=True),
    "chain": lambda: op.Inpainting(_mask(5, 6)) @ op.Blur(_random(3, 3), (1, 5, 6)),
    "sum": lambda: op.Inpainting(_mask(5, 6)) + 2.0 * op.Blur(_random(3, 3), (1, 5, 6)),
    "adjoint": lambda: op.Blur(_random(3, 3), (1, 5, 6)).H,
    "normal": lambda: op.Inpainting(_mask(5, 6)).N,
    "complexified inpainting": lambda: op.Complexified(op.Inpainting(_mask(5, 4))),
    "complexified sr": lambda: op.Complexified(op.SuperResolution((1, 8, 12), factor=4).to(torch.float64)),
    "complexified blur": lambda: op.Complexified(op.Blur(_random(3, 3), (1, 5, 6))),
    "complexified ct": lambda: op.Complexified(op.CT(6, [0.0, 17.0, 45.0, 90.0, 133.0]).to(torch.float64)),
    "complexified, several images": lambda: op.Complexified(
        op.PerImage((op.Inpainting(_mask(5, 4)), op.Inpainting(1 - _mask(5, 4))))
    ),
    "whitened": lambda: op.whitened(op.Inpainting(_mask(5, 4)), _random(1, 5, 4).abs() + 0.1),
    "whitened, some of nothing": lambda: op.whitened(
        op.SuperResolution((1, 8, 8), factor=2, filter="box").to(torch.float64),
        torch.where(_mask(4, 4) > 0, 0.5, torch.inf).double()[None],
    ),
    "whitened, each image": lambda: op.whitened(op.Blur(_random(3, 3), (1, 5, 6)), _random(2, 1, 5, 6).exp()),
    "per image": lambda: op.PerImage((op.Inpainting(_mask(5, 4)), op.Inpainting(1 - _mask(5, 4)))),
}

# the same of operators that are not linear
NONLINEAR: dict[str, Callable[[], op.Operator]] = {
    "nonlinear blur": lambda: op.NonlinearBlur(_random(3, 3).abs() / 9, (2, 5, 6)),
    "jpeg": lambda: op.JPEG((3, 16, 16)).to(torch.float64),
    "jpeg, half blocks": lambda: op.JPEG((3, 11, 18)).to(torch.float64),
    "jpeg, one channel": lambda: op.JPEG((1, 8, 16), quality=50).to(torch.float64),
    "jpeg, 4:4:4": lambda: op.JPEG((3, 8, 16), quality=90, subsampling="4:4:4").to(torch.float64),
    "clipping": lambda: op.Clipping((1, 4, 5)),
    "clipping, exact": lambda: op.Clipping((1, 4, 5), gain=1.5, pivot=0.0, derivative="exact"),
    "phase retrieval": lambda: op.PhaseRetrieval((1, 4, 5)),
    "phase retrieval, complex": lambda: op.PhaseRetrieval((1, 4, 5), 1.3, complex_domain=True),
    "whitened clipping": lambda: op.whitened(op.Clipping((1, 4, 5)), _random(1, 4, 5).abs() + 0.1),
    "scaled clipping": lambda: op.Scale(3.0, (1, 4, 5)) @ op.Clipping((1, 4, 5)),
}


@dataclass(frozen=True)
class SolverRow:
    """One configuration of a registered solver and the laws that hold for it.

    ``family`` names the laws it must declare (test_solver_laws.FAMILIES). ``order``: of the ODE, None
    where it does not solve it; ``weak_order``: of its law, for stochastic ones. ``grid`` and ``bound``:
    where the order is measured, and the error allowed at 256 steps. ``prime``: exact nodes it is given
    before its order or polynomials are measured. ``polynomial``: highest degree integrated exactly, of
    D in ln(1/sigma) ("x0") and of eps in sigma ("eps"). ``level``: q(sigma, target) of a one-step
    kernel ``x0 + sqrt(t^2 - q^2) eps + q z``. ``mean_exact``: whether the law's mean is exact on any grid.
    ``restart``: the solver whose step it takes after a jump (None: its own start). ``base_call``: the
    evaluation of a step at whose point the step starts. ``gaussian_order``: the order on Gaussians
    where that is higher. ``settled``: from how many steps on the order of its law shows between sigma 10
    and .1.
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
    mean_exact: bool = True
    restart: Callable[[], solvers.Solver] | None = solvers.Euler
    base_call: int = 0
    gaussian_order: int | None = None
    settled: int = 32

    @property
    def stochastic(self) -> bool:
        return "stochastic" in self.laws


def _laws(*names: str) -> frozenset[str]:
    return frozenset(names)


def _ancestral(eta: float) -> Callable[[float, float], float]:
    """``q^2 = eta^2 t^2 (1 - e^(-2h))``, ``e^(-h) = t / s``."""
    return lambda s, t: eta * t * math.sqrt(1 - (t / s) ** 2)


def _predictor(name: str, process: Process) -> Callable[[], solvers.Solver]:
    return lambda: solvers.PredictorCorrector(name, None, process=process)


ONE_STEP = _laws("dirac", "final_x0", "kernel", "one call")
MULTISTEP = ONE_STEP
SINGLE_STEP = _laws("dirac", "final_x0", "kernel")
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
    "ddpm": SolverRow(
        "ddpm", solvers.DDPM, "one-step", ONE_STEP | {"stochastic"}, weak_order=1, bound=6e-2,
        level=_ancestral(1.0),
    ),
    "ddpm, large": SolverRow(
        "ddpm", lambda: solvers.DDPM(variance="large"), "one-step, larger noise",
        _laws("final_x0", "kernel", "one call", "stochastic"), weak_order=1, bound=6e-2,
    ),
    "ancestral": SolverRow(
        "ancestral", solvers.Ancestral, "one-step", ONE_STEP | {"stochastic"}, weak_order=1, bound=6e-2,
        level=_ancestral(1.0),
    ),
    "sde-dpm++1": SolverRow(
        "sde-dpm++1", solvers.SDEDPMpp1, "one-step", ONE_STEP | {"stochastic"}, weak_order=1, bound=6e-2,
        level=_ancestral(1.0),
    ),
    "sde-dpm++1, eta .3": SolverRow(
        "sde-dpm++1", lambda: solvers.SDEDPMpp1(eta=0.3), "one-step", ONE_STEP | {"stochastic"},
        weak_order=1, bound=6e-2, level=lambda s, t: t * math.sqrt(1 - (t / s) ** 0.6),
    ),
    "edm": SolverRow(
        "edm", solvers.EDM, "Runge-Kutta in sigma", _laws("dirac", "final_x0", "kernel"),
        order=2, grid="t", bound=2e-4, polynomial={"x0": 0, "eps": 1}, evals=2,
    ),
    "edm, euler": SolverRow(
        "edm", lambda: solvers.EDM(second=False), "one-step", ONE_STEP, order=1, bound=2e-2,
        polynomial=NOISE_FREE, level=lambda s, t: 0.0,
    ),
    "edm, churn": SolverRow(
        "edm", lambda: solvers.EDM(churn=0.3), "churn", _laws("churn", "stochastic", "no limit"),
        evals=2,
    ),
    "dpm++2m": SolverRow(
        "dpm++2m", recon.SOLVERS["dpm++2m"], "multistep, data", MULTISTEP,
        order=2, bound=2e-4, polynomial={"x0": 0}, prime=1,
    ),
    "dpm++2m, exact": SolverRow(
        "dpm++2m", lambda: recon.SOLVERS["dpm++2m"](rule="exact"), "multistep, data", MULTISTEP,
        order=2, bound=2e-4, polynomial={"x0": 1}, prime=1,
    ),
    "dpm++3m": SolverRow(
        "dpm++3m", recon.SOLVERS["dpm++3m"], "multistep, data", MULTISTEP,
        order=3, grid="t", bound=1e-5, polynomial={"x0": 2}, prime=2,
    ),
    "dpm++3m, official": SolverRow(
        "dpm++3m", lambda: recon.SOLVERS["dpm++3m"](rule="official"), "multistep, data", MULTISTEP,
        order=2, grid="lam", bound=1e-4, polynomial={"x0": 1}, prime=2,
    ),
    "sde-dpm++2m": SolverRow(
        "sde-dpm++2m", recon.SOLVERS["sde-dpm++2m"], "multistep, data", MULTISTEP | {"stochastic"},
        weak_order=2, bound=5e-4, restart=solvers.SDEDPMpp1,
    ),
    "sde-dpm++2m, exact": SolverRow(
        "sde-dpm++2m", lambda: recon.SOLVERS["sde-dpm++2m"](rule="exact"), "multistep, data",
        MULTISTEP | {"stochastic"}, weak_order=2, bound=1e-3, restart=solvers.SDEDPMpp1,
    ),
    "sde-dpm++2m, eta .5": SolverRow(
        "sde-dpm++2m", lambda: recon.SOLVERS["sde-dpm++2m"](eta=0.5), "multistep, data",
        MULTISTEP | {"stochastic"}, weak_order=2, bound=5e-4,
        restart=lambda: solvers.SDEDPMpp1(eta=0.5),
    ),
    "sde-dpm++3m": SolverRow(
        "sde-dpm++3m", recon.SOLVERS["sde-dpm++3m"], "multistep, data", MULTISTEP | {"stochastic"},
        weak_order=2, bound=5e-4, restart=solvers.SDEDPMpp1,
    ),
    **{
        f"unipc{k}{', ' + variant if variant != 'bh2' else ''}": SolverRow(
            f"unipc{k}", lambda k=k, variant=variant: recon.SOLVERS[f"unipc{k}"](variant=variant),
            "multistep, corrected", MULTISTEP | {"edit"}, order=k + 1,
            bound=1.5e-5 if (k, variant) == (2, "bh1") else [5e-4, 5e-6, 1e-7][k - 1],
            prime=k + 1, polynomial={"x0": 0 if k == 2 and variant != "exact" else k - 1},
        )
        for k in (1, 2, 3) for variant in ("bh2", "bh1", "exact")
    },
    **{
        f"deis-t{k}": SolverRow(
            f"deis-t{k}", recon.SOLVERS[f"deis-t{k}"], "multistep, noise", MULTISTEP, order=k,
            grid="quadratic", bound=[2e-1, 3.3e-4, 5.7e-6, 2e-7][k - 1], prime=k - 1,
        )
        for k in (1, 2, 3, 4)
    },
    **{
        f"deis-rho{k}": SolverRow(
            f"deis-rho{k}", recon.SOLVERS[f"deis-rho{k}"], "multistep, noise", MULTISTEP, order=k,
            grid="quadratic", bound=[2e-1, 6.9e-4, 4.2e-5, 4.2e-6][k - 1], prime=k - 1,
            polynomial={"eps": k - 1},
        )
        for k in (1, 2, 3, 4)
    },
    "mrs": SolverRow(
        "mrs", solvers.MRSampler, "multistep, data", MULTISTEP | {"stochastic"}, weak_order=2, bound=1e-3,
        restart=solvers.SDEDPMpp1,
    ),
    "mrs, sde, 3 nodes": SolverRow(
        "mrs", lambda: solvers.MRSampler(nodes=3), "multistep, data", MULTISTEP | {"stochastic"},
        weak_order=2, bound=5e-4, restart=solvers.SDEDPMpp1,
    ),
    **{
        f"mrs, sde, noise, {k} node{'s' if k > 1 else ''}": SolverRow(
            "mrs", lambda k=k: solvers.MRSampler(form="noise", nodes=k), "multistep, noise, SDE",
            _laws("final_x0", "kernel", "one call", "stochastic"), weak_order=k, bound=[2.5e-3, 6e-4][k - 1],
            restart=lambda: solvers.MRSampler(form="noise", nodes=1), settled=512 if k == 1 else 64,
        )
        for k in (1, 2)
    },
    **{
        f"mrs, ode, {form}, {k} node{'s' if k > 1 else ''}": SolverRow(
            "mrs", lambda k=k, form=form: solvers.MRSampler("ode", form, k), f"multistep, {form}", MULTISTEP,
            order=k, grid="lam", bound=[2e-2, 2e-4, 3e-6][k - 1], prime=k - 1,
            polynomial={"x0": k - 1} if form == "data" else {"eps": 0},
        )
        for form in ("data", "noise") for k in (1, 2, 3)
    },
    **{
        f"mrs, ode, {form}, as released": SolverRow(
            "mrs", lambda form=form: solvers.MRSampler("ode", form, 3, "official"), f"multistep, {form}",
            MULTISTEP, order=2, grid="lam", bound=1e-4, prime=2,
            polynomial={"x0": 1} if form == "data" else {"eps": 0},
        )
        for form in ("data", "noise")
    },
    "ipndm-v": SolverRow(
        "ipndm-v", solvers.IPNDMv, "multistep, noise", MULTISTEP, order=4,
        grid="quadratic", bound=4.2e-6, prime=3, polynomial={"eps": 3},
    ),
    "dpm1": SolverRow(
        "dpm1", solvers.DPM1, "one-step", ONE_STEP, order=1, bound=2e-2, polynomial=NOISE_FREE,
        level=lambda s, t: 0.0,
    ),
    **{
        name: SolverRow(
            name, recon.SOLVERS[name], "single-step", SINGLE_STEP, order=order, grid="t",
            bound=[1e-4, 3e-7][order - 2], polynomial=polynomial, evals=order,
        )
        for name, order, polynomial in (
            ("dpm2", 2, NOISE_FREE), ("dpm3", 3, NOISE_FREE),
            ("dpm++2s", 2, NOISE_FREE), ("dpm++3s", 3, {"x0": 1, "eps": 0}),
        )
    },
    "pndm": SolverRow(
        "pndm", solvers.PNDM, "multistep, Runge-Kutta start", SINGLE_STEP, order=2, grid="t", bound=2e-4,
        polynomial=NOISE_FREE, prime=1, restart=solvers.Heun,
    ),
    "fpndm": SolverRow(
        "fpndm", solvers.FPNDM, "multistep, Runge-Kutta start", _laws("final_x0", "kernel"),
        order=2, grid="t", bound=1e-4, polynomial=NOISE_FREE, restart=None,
    ),
    **{
        f"ipndm, {k}": SolverRow(
            "ipndm", lambda k=k: solvers.IPNDM(nodes=k), "multistep, noise", MULTISTEP, order=2, grid="t",
            bound=2e-4 if k == 2 else 1e-4, polynomial=NOISE_FREE, prime=1,
        )
        for k in (2, 3, 4)
    },
    **{
        f"ghvb, {k}": SolverRow(
            "ghvb", lambda k=k: solvers.GHVB(nodes=k, beta=0.5), "multistep, momentum", MULTISTEP,
            order=min(k, 2), grid="sigma", bound=3 * [2.4e-3, 9.7e-6, 1.3e-6, 1.7e-6][k - 1],
            polynomial=NOISE_FREE,
        )
        for k in (1, 2, 3, 4)
    },
    "ghvb": SolverRow(
        "ghvb", solvers.GHVB, "multistep, momentum", MULTISTEP, order=2, grid="t", bound=1e-4,
        polynomial=NOISE_FREE,
    ),
    "hb": SolverRow(
        "hb", solvers.HB, "multistep, momentum", MULTISTEP, order=1, grid="sigma", bound=2e-3,
        polynomial=NOISE_FREE,
    ),
    "hb, 2": SolverRow(
        "hb", lambda: solvers.HB(nodes=2, beta=0.5), "multistep, momentum", MULTISTEP, order=1,
        grid="sigma", bound=7.2e-3, polynomial=NOISE_FREE,
    ),
    **{
        f"bdia, gamma {gamma:g}": SolverRow(
            "bdia", lambda gamma=gamma: solvers.BDIA(gamma=gamma), "multistep, invertible",
            MULTISTEP | {"invertible"}, order=order, grid="t", bound=bound, polynomial=NOISE_FREE,
        )
        for gamma, order, bound in ((1.0, 2, 2.2e-4), (0.9, 1, 1.5e-3), (0.5, 1, 8.7e-3))
    },
    **{
        f"flow-{method}": SolverRow(
            f"flow-{method}", recon.SOLVERS[f"flow-{method}"], "Runge-Kutta on a flow",
            _laws("dirac", "final_x0", "kernel", *(["one call"] if evals == 1 else [])), order=order,
            gaussian_order=gaussian, grid="flow", bound=bound, evals=evals, polynomial=NOISE_FREE,
        )
        for method, order, gaussian, evals, bound in (
            ("euler", 1, None, 1, 3e-2), ("midpoint", 2, 3, 2, 6e-8), ("heun", 2, None, 2, 3e-5),
            ("rk4", 4, None, 4, 1.2e-10),
        )
    },
    **{
        f"flow-{method}, vp": SolverRow(
            f"flow-{method}", lambda method=method: recon.SOLVERS[f"flow-{method}"](process=VP()),
            "Runge-Kutta on a flow", _laws("final_x0", "kernel", *(["one call"] if evals == 1 else [])),
            order=order, grid="t", bound=bound, evals=evals,
        )
        for method, order, evals, bound in (
            ("euler", 1, 1, 1.2e-2), ("midpoint", 2, 2, 4e-5), ("heun", 2, 2, 1.4e-4), ("rk4", 4, 4, 1e-8),
        )
    },
    **{
        f"pc, {predictor}, {type(process).__name__}": SolverRow(
            "pc", _predictor(predictor, process), "predictor",
            _laws("final_x0", "kernel", "one call", "stochastic"), weak_order=1, grid=grid, bound=bound,
            mean_exact=mean_exact, settled=64 if isinstance(process, Flow) else 32,
        )
        for predictor, process, grid, bound, mean_exact in (
            ("reverse-diffusion", VE(), "lam", 1e-1, True), ("reverse-diffusion", VP(), "t", 2.5e-2, False),
            ("reverse-diffusion", SubVP(), "t", 7e-3, False), ("reverse-diffusion", Flow(), "flow", 3e-2, False),
            ("euler-maruyama", VE(), "flow", 1.4e-2, True), ("euler-maruyama", VP(), "t", 2e-2, False),
            ("euler-maruyama", SubVP(), "t", 7e-3, False), ("euler-maruyama", Flow(), "flow", 2.3e-3, True),
            ("ancestral", VP(), "t", 2.5e-2, True),
        )
    },
    **{
        f"pc, ancestral, {type(process).__name__}": SolverRow(
            "pc", _predictor("ancestral", process), "predictor", ONE_STEP | {"stochastic"}, weak_order=1,
            bound=1e-1, level=_ancestral(1.0),
        )
        for process in (VE(), SubVP(), Flow())
    },
    **{
        f"pc, flow, {type(process).__name__}": SolverRow(
            "pc", _predictor("flow", process), "predictor", _laws("final_x0", "kernel", "one call"),
            order=1, grid="lam", bound=bound,
        )
        for process, bound in ((VE(), 3e-1), (VP(), 3e-1), (SubVP(), 3e-2), (Flow(), 3e-1))
    },
    "pc": SolverRow(
        "pc", recon.SOLVERS["pc"], "predictor-corrector", _laws("no limit", "stochastic", "nonlinear"),
        evals=2, last_evals=2, base_call=1,
    ),
    "pc, ald, VP, two steps": SolverRow(
        "pc", lambda: recon.SOLVERS["pc"](corrector="ald", corrector_steps=2, process=VP()),
        "predictor-corrector", _laws("no limit", "stochastic"), evals=3, last_evals=3, base_call=2,
    ),
    "pc, flow and langevin, SubVP": SolverRow(
        "pc", lambda: recon.SOLVERS["pc"]("flow", process=SubVP()), "predictor-corrector",
        _laws("no limit", "stochastic", "nonlinear"), evals=2, last_evals=2, base_call=1,
    ),
}  # fmt: skip

# one row of each family, deterministic and stochastic ones apart, and one of each file of recon/solvers
REPRESENTATIVES = (
    "euler", "ddim, eta .5", "ddpm, large", "heun", "edm, churn", "dpm++2m", "sde-dpm++2m", "mrs", "unipc2", "deis-t3",
    "mrs, sde, noise, 2 nodes", "dpm2", "pndm", "ghvb", "bdia, gamma 0.9", "flow-midpoint",
    "pc, reverse-diffusion, VP", "pc, flow, VE", "pc",
)  # fmt: skip


def under(keep: Callable[[SolverRow], object] = lambda row: True, whole: bool = False) -> list:
    """Labels of the solvers' rows that ``keep`` accepts, as a test's parameters; all but `REPRESENTATIVES` are marked
    ``full``, or none where the ``whole`` table belongs to the default suite.
    """
    return [
        pytest.param(label, id=label, marks=() if whole or label in REPRESENTATIVES else pytest.mark.full)
        for label, row in SOLVERS.items()
        if keep(row)
    ]


def crossed(
    first: Iterable[str | tuple[str, ...]],
    whole: Collection[object],
    keep: Callable[[SolverRow], object] = lambda row: True,
) -> list:
    """Pairs (one of ``first``, label of a solver's row) as a test's parameters; see `under`: those in ``whole`` meet
    the whole table.
    """
    return [
        pytest.param(
            one,
            *solver.values,
            id=f"{one if isinstance(one, str) else '-'.join(one)}-{solver.id}",
            marks=solver.marks,
        )
        for one in first
        for solver in under(keep, one in whole)
    ]


@dataclass(frozen=True)
class PosteriorRow:
    """One configuration of a registered sampler.

    ``make(prior, problem)``. ``exact``: the setting of test_posterior_laws in which its estimate is the
    conditional mean E[x0 | x, y]: "prior" without measurements, "isotropic" for a Gaussian prior c I and
    any linear operator, None where there is none. ``calls`` of the prior each time the solver asks, and
    ``level_calls`` at every level above zero besides.
    ``total``: those of a run of so many steps, for a sampler with a loop of its own.
    """

    name: str
    make: Callable[..., posteriors.Posterior]
    exact: str | None = None
    calls: int = 1
    level_calls: int = 0
    total: Callable[[solvers.Solver, int], int] | None = None


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
        lambda prior, problem: posteriors.DDS(prior, problem, steps=5, keep="state", tol=0.0),
        exact="isotropic",
    ),
    "dds, local variance": PosteriorRow(
        "dds",
        lambda prior, problem: posteriors.DDS(
            prior, problem, steps=8, keep="state", tol=0.0, variance="local"
        ),
    ),
    "dds-3d": PosteriorRow("dds-3d", posteriors.DDS3D),
    "mbir": PosteriorRow("mbir", posteriors.MBIR),
    "dps": PosteriorRow("dps", posteriors.DPS),
    "dps, recipe": PosteriorRow(
        "dps", lambda prior, problem: posteriors.DPS(prior, problem, **posteriors.DPS.usual.options)
    ),
    "mcg": PosteriorRow("mcg", posteriors.MCG),
    "mcg, recipe": PosteriorRow(
        "mcg", lambda prior, problem: posteriors.MCG(prior, problem, **posteriors.MCG.usual.options)
    ),
    "pigdm": PosteriorRow(
        "pigdm",
        lambda prior, problem: posteriors.PiGDM(prior, problem, steps=5, tol=0.0),
        exact="isotropic",
    ),
    "mmps": PosteriorRow("mmps", posteriors.MMPS),
    "ddnm": PosteriorRow("ddnm", posteriors.DDNM),
    "diffpir": PosteriorRow("diffpir", posteriors.DiffPIR),
    "ddrm": PosteriorRow("ddrm", posteriors.DDRM, total=lambda solver, steps: steps),
    "daps": PosteriorRow(
        "daps",
        lambda prior, problem: posteriors.DAPS(prior, problem, langevin=3),
        calls=5,
        total=lambda solver, steps: steps * solver.calls(5),
    ),
    "reddiff": PosteriorRow("reddiff", posteriors.REDDiff, total=lambda solver, steps: steps),
    "daps, recipe": PosteriorRow(
        "daps",
        lambda prior, problem: posteriors.DAPS(prior, problem, **posteriors.DAPS.usual.options),
        total=lambda solver, steps: steps * solver.calls(1),
    ),
    "reddiff, recipe": PosteriorRow(
        "reddiff",
        lambda prior, problem: posteriors.REDDiff(prior, problem, **posteriors.REDDiff.usual.options),
        total=lambda solver, steps: steps,
    ),
    "reddiff, flow": PosteriorRow(
        "reddiff",
        lambda prior, problem: posteriors.REDDiff(prior, problem, flow=4),
        calls=4,
        total=lambda solver, steps: steps * solver.calls(4),
    ),
    "smc": PosteriorRow("smc", posteriors.SMC),
    "stsl": PosteriorRow("stsl", posteriors.STSL, level_calls=11),
    "stsl, first order, from noise": PosteriorRow(
        "stsl",
        lambda prior, problem: posteriors.STSL(prior, problem, inner=2, eta=0.0, init="noise"),
        level_calls=2,
    ),
    "stsl, recipe": PosteriorRow(
        "stsl",
        lambda prior, problem: posteriors.STSL(prior, problem, **posteriors.STSL.usual.options),
        level_calls=2,
    ),
}
