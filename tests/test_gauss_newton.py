"""DDS on operators that are not linear: Gauss-Newton steps on ``||A(x) - y||^2 + lambda ||x - D||^2``."""

from __future__ import annotations

import gc
import math
import weakref
from itertools import pairwise

import pytest
import torch
from measurements import GRID, MEASURED, measured, world_of
from particles import particles
from torch import Tensor
from worlds import affine_walk, flat, isotropic, random, random_complex, unflat

import operators as op
import recon
from recon import Problem, grids
from recon.posteriors import DDS, Ensemble, constant
from recon.posteriors.shared.jacobian import Linearised
from recon.solvers import DDPM, DPMpp, Euler, Heun, Renoise, Solver

SOLVERS: dict[str, Solver] = {
    "euler": Euler(), "renoise": Renoise(), "heun": Heun(), "dpm++2m": DPMpp(rule="midpoint"),
}  # fmt: skip


class Hidden(op.Operator):
    """A linear operator that does not say so."""

    def __init__(self, A: op.Linear):
        self.A, self.domain, self.complex_domain = A, A.domain, A.complex_domain

    def forward(self, x: Tensor) -> Tensor:
        return self.A.forward(x)


class Curved(op.Operator):
    """``tanh(M x) + (M x)^2 / 4``."""

    domain = (4,)

    def forward(self, x: Tensor) -> Tensor:
        seen = x @ random(3, 4, seed=21).T.to(x.dtype)
        return seen.tanh() + seen.square() / 4


class Intensity(op.Operator):
    """``|M x|^2`` of complex images."""

    domain = (3,)
    complex_domain = True

    def forward(self, x: Tensor) -> Tensor:
        return (x @ random_complex(5, 3, seed=22).T.to(x.dtype)).abs().square()


NONLINEAR = {"curved": Curved, "intensity": Intensity}


def images(A: op.Operator, rows: int, seed: int = 0) -> Tensor:
    n = math.prod(A.domain) * (2 if A.complex_domain else 1)
    return unflat(random(rows, n, seed=seed), tuple(A.domain), A.complex_domain)


@pytest.mark.parametrize("kind", NONLINEAR)
def test_the_linearisation_is_that_of_differences(kind):
    """``A(x + h v) = A(x) + h push(v)`` to second order, and ``<push v, w> = <v, pull w>``."""
    A = NONLINEAR[kind]()
    x, v, h = images(A, 3), images(A, 3, seed=1), 1e-5
    y = A.forward(images(A, 3, seed=2))
    J, w = Linearised.at(A, x, y), random(*y.shape, seed=3)
    torch.testing.assert_close(J.residual, y - A.forward(x))
    difference = (A.forward(x + h * v) - A.forward(x - h * v)) / (2 * h)
    torch.testing.assert_close(J.push(v), difference, rtol=1e-7, atol=1e-7)
    pushed, pulled = (flat(J.push(v)) * flat(w)).sum(1), (flat(v) * flat(J.pull(w))).sum(1)
    torch.testing.assert_close(pushed, pulled, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(J.push(v), J.push(v))  # and again
    assert not J.residual.requires_grad and not J.pull(w).requires_grad


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("keep", ["noise", "state"])
@pytest.mark.parametrize("name", MEASURED)
def test_on_a_linear_operator_it_is_dds(name, keep, solver):
    """One round is exact: the same law of the walk, to 1e-9."""
    problem = measured(name)
    world = world_of(problem.A)
    hidden = Problem(Hidden(problem.A), problem.y, problem.sigma)
    options = dict(keep=keep, steps=8, tol=0.0)
    laws = [
        affine_walk(sampler, SOLVERS[solver], GRID, world.domain, world.is_complex)
        for sampler in (DDS(world, problem, **options), DDS(world, hidden, newton=1, **options))
    ]
    for found, wanted in zip(*laws, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", NONLINEAR)
def test_it_finds_a_stationary_point_and_never_climbs(kind):
    """``J^H (A(x) - y) + lambda (x - D) = 0`` after many rounds; every round lowers the sum."""
    A = NONLINEAR[kind]()
    y, D, lam = A.forward(images(A, 6)) + 0.05, images(A, 6, seed=1), 0.3
    prior = isotropic(tuple(A.domain), 1.0, A.complex_domain)
    sums = []
    for rounds in (1, 2, 3, 60):
        x = DDS(prior, Problem(A, y, 0.1), steps=12, tol=0.0, newton=rounds).fit(D, lam)
        sums.append((A.forward(x) - y).square().sum(1) + lam * flat(x - D).square().sum(1))
    start = (A.forward(D) - y).square().sum(1)
    assert bool((sums[0] < start).all())
    for before, after in pairwise(sums):
        assert bool((after <= before).all())
    J = Linearised.at(A, x, y)
    slope = flat(J.pull(J.residual) + lam * (D - x)).norm(dim=1)
    first = Linearised.at(A, D, y)
    assert float((slope / flat(first.pull(first.residual)).norm(dim=1)).max()) < 1e-6


def test_a_row_does_not_depend_on_its_batch():
    """Lengths of steps and CG are a row's own."""
    A, D = Curved(), 3.0 * images(Curved(), 3, seed=1)
    y = A.forward(images(A, 3)) * torch.tensor([[1e-2], [1.0], [30.0]], dtype=torch.float64)
    together = DDS(isotropic((4,), 1.0), Problem(A, y, 0.1)).fit(D, 0.05)
    for i in range(3):
        rows = slice(i, i + 1)
        alone = DDS(isotropic((4,), 1.0), Problem(A, y[rows], 0.1)).fit(D[rows], 0.05)
        torch.testing.assert_close(together[rows], alone, rtol=1e-10, atol=1e-10)


def test_samples_fit_their_measurements_where_the_prior_alone_does_not():
    A, world = Curved(), isotropic((4,), 1.0)
    problem = Problem(A, A.forward(world.mean[None] + images(A, 2)), 0.05)
    common = dict(solver="sde-dpm++2m", grid=grids.karras(30, 20.0, 0.01), samples=6)
    found = recon.sample(problem, world, DDS(world, keep="state"), **common)
    assert found.network_calls == 30
    assert found.trace[-1]["residual"] < 2.5
    assert recon.sample(problem, world, "prior", **common).trace[-1]["residual"] > 5


def test_without_noise_it_still_has_a_step():
    """lambda 0: no row climbs, most fit, nothing is divided by zero. Undamped, a step may be of no use."""
    A, world = Curved(), isotropic((4,), 1.0)
    D, y = images(A, 4, seed=1), A.forward(images(A, 4))
    x = DDS(world, Problem(A, y), newton=8).fit(D, 0.0)
    left = (A.forward(x) - y).norm(dim=1) / (A.forward(D) - y).norm(dim=1)
    assert float(left.max()) <= 1 and float(left.sort().values[-2]) < 1e-6
    fitted = DDS(world, Problem(A, A.forward(D))).fit(D, 0.0)
    torch.testing.assert_close(fitted, D, rtol=0, atol=1e-12)


def test_an_ensemble_corrects_it():
    """One dimension, by quadrature: the weighed particles have the posterior's mean and spread."""

    class Cubic(op.Operator):
        domain = (1,)

        def forward(self, x):
            return x + x**3 / 4

    world, problem = isotropic((1,), 1.0), Problem(Cubic(), torch.tensor([[0.9]], dtype=torch.float64), 0.4)
    line = torch.linspace(-7, 7, 4001, dtype=torch.float64)
    log = -((line - world.mean) ** 2) / 2 - (Cubic().forward(line) - 0.9) ** 2 / 0.32
    density = torch.softmax(log, 0)
    mean = float(density @ line)
    std = math.sqrt(float(density @ (line - mean).square()))
    sampler = Ensemble(DDS(world, keep="state"), c=16.0, temper=0.0)
    cloud = particles(sampler.given(problem), DDPM(), grids.karras(100, 20.0), 3000, images=2)
    assert float(cloud.mean) == pytest.approx(mean, abs=0.06 * std)
    assert float(cloud.covariance.sqrt()) == pytest.approx(std, rel=0.06)


def test_no_graph_outlives_the_step():
    kept: list[weakref.ref] = []

    class Watched(op.Operator):
        domain = (4,)

        def forward(self, x):
            inner = x.sin()
            kept.append(weakref.ref(inner))
            return inner * inner

    problem = Problem(Watched(), random(2, 4).square(), 0.1)
    est = DDS(lambda x, s: 0.5 * x, problem).denoise(random(2, 4, seed=1), 0.5)
    gc.collect()
    assert all(ref() is None for ref in kept) and not est.x0.requires_grad


def test_a_complex_image_is_its_real_view():
    """``|M x|^2`` of a complex image and of its two real parts: one estimate."""

    class Real(op.Operator):
        domain = (6,)

        def forward(self, x):
            return Intensity().forward(unflat(x, (3,), True))

    x = 4.0 * random(2, 6, seed=7)
    y = Intensity().forward(random_complex(2, 3, seed=8))
    ends = []
    for A, is_complex, domain in ((Intensity(), True, (3,)), (Real(), False, (6,))):
        sampler = DDS(isotropic(domain, 0.7, is_complex), Problem(A, y, 0.2), weight=constant(2.0))
        ends.append(flat(sampler.denoise(unflat(x, domain, is_complex), 1.0).x0))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-9, atol=1e-9)
