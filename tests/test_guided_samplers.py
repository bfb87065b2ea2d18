"""The laws of the samplers that differentiate through the network: DPS, MCG, PiGDM, MMPS."""

from __future__ import annotations

import gc
import math
import weakref
from collections import deque
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from dense_forms import AFFINE, CONVERGED
from dense_forms import DenseGuided as Dense
from fake_cuda import LEVELS, Given, StayThere, empty, half
from measurements import GRID, MASK, MEASURED, measured, world_of
from scipy.special import dawsn
from torch import Tensor
from torch._subclasses import FakeTensorMode
from worlds import (
    CORRELATED,
    GaussianWorld,
    Matrix,
    affine_walk,
    dense,
    flat,
    isotropic,
    last,
    random,
    random_complex,
    unflat,
)

import operators as op
import recon
from operators.krylov import cg
from recon import Problem, grids
from recon.errors import ConfigError
from recon.noise import Noise
from recon.posteriors import DPS, MCG, MMPS, PiGDM, Posterior, variance_preserving
from recon.priors import Mixture, chunked
from recon.solvers import DDIM, DPMpp, Euler, Heun, UniPC
from recon.walk import walk

SOLVERS = {
    "euler": Euler(),
    "ddim, eta 1": DDIM(eta=1.0),
    "heun": Heun(),
    "dpm++2m": DPMpp(rule="midpoint"),
    "sde-dpm++2m": DPMpp(rule="midpoint", eta=1.0),
    "unipc2": UniPC(nodes=2),
}
GUIDED = {**AFFINE, "dps": lambda *a: DPS(*a), "mcg": lambda *a: MCG(*a, **CONVERGED)}


class Spectrum(op.Linear):
    """Complex measurements of real images; adjoint by autograd."""

    domain = (1, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft2(x.to(x.dtype.to_complex()), norm="ortho")[..., :1]


class Magnitude(op.Operator):
    """Not linear: ``|A x|^2``."""

    domain = (4,)

    def forward(self, x: Tensor) -> Tensor:
        return (x @ random(3, 4, seed=21).T.to(x.dtype)) ** 2


def eye(n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


def problem_of(name: str) -> Problem:
    if name != "real images, complex data":
        return measured(name)
    A = Spectrum()
    return Problem(A, A.forward(random(1, 1, 2, 2, seed=5)) + 0.3 * random_complex(1, 1, 2, 1, seed=6), 0.3)


NAMES = [*MEASURED, "real images, complex data"]


# --- affine laws -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", AFFINE)
def test_each_is_its_dense_form_under_the_solvers(kind, name, solver):
    problem = problem_of(name)
    world = world_of(problem.A)
    domain, is_complex = world.domain, world.is_complex
    found = affine_walk(AFFINE[kind](world, problem), SOLVERS[solver], GRID, domain, is_complex)
    wanted = affine_walk(Dense(world, problem, kind), SOLVERS[solver], GRID, domain, is_complex)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", AFFINE)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_moments_follow_their_recursion(kind, name, eta):
    """``x0 = M x + c``, ``x' = x0 + r e + q z``, ``r = sqrt(t^2 - q^2)``, e the noise kept or recomputed."""
    problem = problem_of(name)
    world = world_of(problem.A)
    reference, one = Dense(world, problem, kind), eye(len(world.mean))
    mean, covariance = torch.zeros_like(world.mean), GRID[0] ** 2 * one
    for s, t in pairwise(GRID):
        q = eta * t * math.sqrt(1 - (t / s) ** 2)
        r = math.sqrt(t * t - q * q) / s
        K, W = world.gain(s), reference.weight(s)
        rest = (one - K) @ world.mean
        M = K - W @ reference.matrix @ K
        c = rest + W @ (flat(problem.y)[0] - reference.matrix @ rest)
        B, b = M + r * (one - K), c - r * rest
        if not reference.keeps_noise:
            B, b = (1 - r) * M + r * one, (1 - r) * c
        mean, covariance = B @ mean + b, B @ covariance @ B.T + q * q * one
    law = affine_walk(AFFINE[kind](world, problem), DDIM(eta=eta), GRID, world.domain, world.is_complex)
    found = law.moments(torch.zeros_like(mean), GRID[0] ** 2 * one)
    scale = max(1.0, float(covariance.abs().max()))
    torch.testing.assert_close(found[0], mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found[1] / scale, covariance / scale, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["dps, score", "pigdm", "mmps"])
def test_heun_and_2m_follow_their_recursions(kind):
    """Estimates that are denoisers are differenced as they are."""
    problem = measured("dense")
    world = world_of(problem.A)
    reference, one = Dense(world, problem, kind), eye(4)

    def clean(s: float, X: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        K, W = world.gain(s), reference.weight(s)
        L = one - W @ reference.matrix
        return L @ K @ X[0], L @ (K @ X[1] + (one - K) @ world.mean) + W @ flat(problem.y)[0]

    def blend(*terms: tuple[float, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        return sum(w * X[0] for w, X in terms), sum(w * X[1] for w, X in terms)  # type: ignore[return-value]

    heun = multi = (one, torch.zeros(4, dtype=torch.float64))
    before = None
    for s, t in pairwise(GRID):
        D = clean(s, heun)
        stage = blend((t / s, heun), (1 - t / s, D))
        if t > 0:
            second, h = clean(t, stage), (t - s) / 2
            stage = blend((1 + h / s, heun), (-h / s, D), (h / t, stage), (-h / t, second))
        heun, D = stage, clean(s, multi)
        multi = blend((t / s, multi), (1 - t / s, D))
        if before is not None and t > 0:
            r = math.log(before[1] / s) / math.log(s / t)
            multi = blend((1.0, multi), ((1 - t / s) / (2 * r), D), (-(1 - t / s) / (2 * r), before[0]))
        before = D, s
    for solver, wanted in ((Heun(), heun), (DPMpp(rule="midpoint"), multi)):
        law = affine_walk(AFFINE[kind](world, problem), solver, GRID, world.domain)
        torch.testing.assert_close(law.matrix, wanted[0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(law.offset, wanted[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", NAMES)
def test_the_papers_dps_walks_as_its_dense_form(name, solver):
    """The norm's gradient is not affine: whole walks with real noise, row by row."""
    problem = problem_of(name).repeated(4)
    world = world_of(problem.A)
    x = unflat(GRID[0] * random(4, len(world.mean), seed=8), world.domain, world.is_complex)
    ends = [
        last(walk(sampler, SOLVERS[solver], GRID, x, Noise(0, (0,), 4))).x
        for sampler in (DPS(world, problem), Dense(world, problem, "dps"))
    ]
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-9, atol=1e-9)
    free = last(walk(Posterior(world), SOLVERS[solver], GRID, x, Noise(0, (0,), 4))).x
    assert float((ends[0] - free).abs().max()) > 1e-2


# --- exactness and bias ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_pigdm_is_exact_on_isotropic_priors(name):
    problem = problem_of(name)
    world = world_of(problem.A, 0.7)
    target = world.posterior(problem.A, problem.y, problem.sigma)
    x = unflat(random(5, len(world.mean)), world.domain, world.is_complex)
    for sigma in (30.0, 2.0, 0.3, 0.01):
        est = PiGDM(world, problem.repeated(5), **CONVERGED).denoise(sigma * x, sigma)
        torch.testing.assert_close(est.x0, target(sigma * x, sigma), rtol=1e-12, atol=1e-12)
        assert est.consistent


@pytest.mark.parametrize("name", NAMES)
def test_mmps_is_exact_on_every_gaussian(name):
    problem = problem_of(name)
    world = world_of(problem.A)
    target = world.posterior(problem.A, problem.y, problem.sigma)
    x = unflat(random(5, len(world.mean)), world.domain, world.is_complex)
    for sigma in (30.0, 2.0, 0.3, 0.01):
        est = MMPS(world, problem.repeated(5), **CONVERGED).denoise(sigma * x, sigma)
        torch.testing.assert_close(est.x0, target(sigma * x, sigma), rtol=1e-9, atol=1e-9)
        assert est.consistent


def test_moment_matching_errs_less_than_an_isotropic_belief():
    """Four dimensions, variances 2, 1, .5, .2, two measurements, sigma_y .3, 50 Karras levels: output law.

    In units of the posterior's spread: MMPS differs by the discretisation alone (Euler: covariance 10 %).
    """
    A = Matrix(random(2, 4, seed=50))
    problem = Problem(A, random(1, 2, seed=51), 0.3)
    target = CORRELATED.posterior(A, problem.y, 0.3)
    errors = {}
    for kind in ("pigdm", "mmps"):
        law = affine_walk(AFFINE[kind](CORRELATED, problem), Euler(), grids.karras(50), (4,))
        mean, covariance = law.moments(torch.zeros(4, dtype=torch.float64), 6400 * eye(4))
        spread = target.covariance.trace().sqrt()
        errors[kind] = (
            float((mean - target.mean).norm() / spread),
            float((covariance - target.covariance).norm() / target.covariance.norm()),
        )
    assert errors["mmps"][0] < 0.02 and errors["mmps"][1] < 0.12, errors
    assert 0.03 < errors["pigdm"][0] < 0.6 and errors["pigdm"][0] > 3 * errors["mmps"][0], errors


SCALAR = GaussianWorld(torch.zeros(1, dtype=torch.float64), eye(1), (1,))


def scalar_dps(solver, n: int, sigma_y: float) -> tuple[float, float]:
    """Prior N(0, 1), A = 1, y = 1; from N(0, 80^2) on n Karras levels, then 0."""
    problem = Problem(op.Identity((1,)), torch.ones(1, 1, dtype=torch.float64), sigma_y)
    law = affine_walk(DPS(SCALAR, problem, form="score"), solver, grids.karras(n), (1,))
    mean, variance = law.moments(torch.zeros(1, dtype=torch.float64), 6400 * eye(1))
    return float(mean), float(variance)


@pytest.mark.parametrize("sigma_y, mean, variance", [(1.0, 0.7248, 0.3679), (0.5, 1.280, 0.0183)])
def test_dps_has_its_closed_form_bias(sigma_y, mean, variance):
    """``c = 1 / (2 sigma_y^2)``: mean ``2 sqrt(c) F(sqrt(c)) y`` (Dawson's F), variance ``e^(-2c)``.

    The start at sigma_max = 80 instead of infinity takes ``2 c e^(-c) y / 80`` off the mean.
    """
    c = 1 / (2 * sigma_y**2)
    limit = 2 * math.sqrt(c) * float(dawsn(math.sqrt(c)))
    assert (limit, math.exp(-2 * c)) == pytest.approx((mean, variance), abs=6e-5)
    found = scalar_dps(Heun(), 800, sigma_y)
    assert found[0] == pytest.approx(limit - 2 * c * math.exp(-c) / 80, abs=2e-4)
    assert found[1] == pytest.approx(variance, abs=2e-4)
    exact = 1 / (1 + sigma_y**2)
    assert found[0] > exact + 0.2 and found[1] < 0.8 * sigma_y**2 * exact


def test_dps_has_its_golden_moments():
    assert scalar_dps(Euler(), 4000, 1.0) == pytest.approx((0.7173, 0.3673), abs=5.1e-5)


@pytest.mark.parametrize("name", ["dense", "dense, complex"])
def test_noiseless_pigdm_uses_the_pseudo_inverse(name):
    """``s^2 g = (s^2 / r^2) J^T A^+ (y - A D)``; the adaptive form moves by ``J^T A^+ (y - A D)``."""
    noisy = measured(name)
    problem, world = Problem(noisy.A, noisy.y).repeated(3), world_of(noisy.A)
    x, s, v = unflat(random(3, len(world.mean)), world.domain, world.is_complex), 0.8, world.data_var
    D, matrix = world(x, s), dense(noisy.A)
    r = flat(problem.y) - flat(D) @ matrix.T
    unit = unflat(r @ torch.linalg.pinv(matrix).T @ world.gain(s), world.domain, world.is_complex)
    score = PiGDM(world, problem, steps=8).denoise(x, s)
    adaptive = PiGDM(world, problem, form="adaptive", steps=8).denoise(x, s)
    torch.testing.assert_close(score.x0, D + (s * s + v) / v * unit, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(adaptive.x0, D + unit, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(adaptive.eps, (x - D) / s, rtol=1e-12, atol=1e-12)
    assert score.consistent and not adaptive.consistent


def test_closed_form_and_conjugate_gradients_agree():
    class Plain(op.Inpainting):
        def solve_normal(self, b, weight):  # type: ignore[override]
            return None

    y, world = measured("inpainting").y, isotropic((1, 2, 2), 0.7)
    x = random(1, 1, 2, 2, seed=4)
    pair = [
        PiGDM(world, Problem(A, y, 0.3), **CONVERGED).denoise(x, 0.6)
        for A in (op.Inpainting(MASK), Plain(MASK))
    ]
    torch.testing.assert_close(pair[0].x0, pair[1].x0, rtol=1e-12, atol=1e-12)
    other = PiGDM(world, Problem(op.Inpainting(MASK), y, 0.3), variance=lambda s: 4.0).denoise(x, 0.6)
    gain = 0.36 * 0.7 / (0.7 + 0.36) / (4.0 + 0.09)
    torch.testing.assert_close(
        other.x0, other.prior + gain * MASK * (y - other.prior), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("name", ["dense", "dense, complex", "MRI"])
def test_truncated_mmps_is_cg_in_measurement_space(name, steps):
    problem = measured(name)
    world, A = world_of(problem.A), problem.A
    rows, s = problem.repeated(3), 0.8
    x = unflat(random(3, len(world.mean)), world.domain, world.is_complex)
    D, K = world(x, s), world.gain(s)

    def J(v: Tensor) -> Tensor:
        return unflat(flat(v) @ K, world.domain, world.is_complex)

    u = cg(lambda u: 0.09 * u + s * s * A.forward(J(A.adjoint(u))), rows.y - A.forward(D), None, steps)
    est = MMPS(world, rows, steps=steps).denoise(x, s)
    torch.testing.assert_close(est.x0, D + s * s * J(A.adjoint(u)), rtol=1e-12, atol=1e-12)


# --- MCG ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", NAMES)
def test_mcg_walks_as_its_dense_form(name, solver):
    problem = problem_of(name).repeated(4)
    world = world_of(problem.A)
    x = unflat(GRID[0] * random(4, len(world.mean), seed=8), world.domain, world.is_complex)
    ends = [
        last(walk(sampler, SOLVERS[solver], GRID, x, Noise(0, (0,), 4))).x
        for sampler in (MCG(world, problem, steps=8), Dense(world, problem, "mcg"))
    ]
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_mcg_leaves_no_variance_in_what_was_measured(name, eta):
    """The score form is affine: its law, and that its mean reproduces the measurements, noise and all."""
    problem = problem_of(name)
    world, matrix = world_of(problem.A), dense(problem.A)
    sampler = MCG(world, problem, form="score", zeta=0.3, steps=8)
    found = affine_walk(sampler, DDIM(eta=eta), GRID, world.domain, world.is_complex)
    wanted = affine_walk(
        Dense(world, problem, "mcg, score"), DDIM(eta=eta), GRID, world.domain, world.is_complex
    )
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    n = len(world.mean)
    mean, covariance = found.moments(torch.zeros(n, dtype=torch.float64), GRID[0] ** 2 * eye(n))
    fitted = matrix @ torch.linalg.pinv(matrix) @ flat(problem.y)[0]
    torch.testing.assert_close(matrix @ mean, fitted, rtol=0, atol=1e-9)
    assert float((matrix @ covariance @ matrix.T).abs().max()) < 1e-9
    if torch.linalg.matrix_rank(matrix) < n:
        assert float(covariance.diagonal().max()) > 1e-3


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("sigma_y", [0.0, 0.3])
def test_mcg_ends_on_the_measured_pixels(solver, sigma_y):
    problem = replace(measured("inpainting"), sigma=sigma_y).repeated(3)
    x = 9.0 * random(3, 1, 2, 2, seed=3)
    states = list(walk(MCG(world_of(problem.A), problem), SOLVERS[solver], GRID, x, Noise(0, (0,), 3)))
    torch.testing.assert_close(MASK * states[-1].x, problem.y, rtol=0, atol=1e-14)
    assert states[-1].x0 is states[-1].x and all(state.past == () for state in states)


def test_mcgs_pixels_carry_the_noise_of_their_level():
    """At level t what is measured is ``y + t z`` of unit z, whatever the operator's scale."""
    A = op.Scale(0.01, (3,))
    problem = Problem(A, A.forward(random(1, 3, seed=1))).repeated(2000)
    sampler = MCG(isotropic((3,), 1.0), problem)
    x = 9.0 * random(2000, 3, seed=2)
    state = next(iter(walk(sampler, Euler(), [9.0, 2.0, 0.0], x, Noise(0, (0,), 2000))))
    assert state.sigma == 2.0
    assert float((state.x - 100 * problem.y).std()) == pytest.approx(2.0, rel=0.03)


def test_rounding_stays_out_of_the_null_space():
    """Float32, many more CG steps than the rank, many projections: rounding is not divided by zero curvature."""
    mask = (random(32, 32, seed=1) > 0).float()
    A = op.MRI(mask)
    y = A.forward(random_complex(2, 1, 32, 32, seed=2).to(torch.complex64))
    prior = recon.priors.Gaussian(torch.zeros(1, 32, 32, dtype=torch.complex64), 1.0)
    for sampler in (MCG(prior, steps=10), PiGDM(prior, steps=10)):
        result = recon.sample(Problem(A, y), prior, sampler, "ddim", steps=60, samples=1)
        x = result.samples[:, 0]
        torch.testing.assert_close(A.forward(x), y, rtol=0, atol=2e-4)
        assert float(x.abs().max()) < 20


# --- gradients ---------------------------------------------------------------------------------------------

MIXTURE = Mixture(random(3, 4, seed=61), torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64), 0.4)
COMPLEX_MIXTURE = Mixture(
    random_complex(3, 3, seed=62), torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64), 0.4
)


def finite_differences(value, x: Tensor, h: float = 1e-5) -> Tensor:
    """Gradient of ``value(x)`` (rows,) over the real view, by central differences of the fourth order."""
    base, columns = flat(x), []
    for direction in eye(base.shape[1]):

        def at(k: int, direction=direction) -> Tensor:
            return value(unflat(base + k * h * direction, x.shape[1:], x.is_complex()))

        columns.append((8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * h))
    return unflat(torch.stack(columns, 1), x.shape[1:], x.is_complex())


CASES = {
    "real": (lambda: Matrix(random(3, 4, seed=21)), MIXTURE),
    "complex": (lambda: Matrix(random_complex(2, 3, seed=22)), COMPLEX_MIXTURE),
    "not linear": (Magnitude, MIXTURE),
}


@pytest.mark.parametrize("case", CASES)
def test_dps_steps_along_the_gradient(case):
    make, prior = CASES[case]
    A, s, sigma_y = make(), 0.7, 0.4
    is_complex = A.complex_domain
    x, truth = (
        unflat(random(5, A.domain[0] * (1 + is_complex), seed=k), A.domain, is_complex) for k in (1, 2)
    )
    problem = Problem(A, A.forward(truth), sigma_y)

    def misfit(x: Tensor) -> Tensor:
        return flat(problem.y - A.forward(prior(x, s))).norm(dim=1)

    D = prior(x, s)
    moved = DPS(prior, problem, zeta=0.9).denoise(x, s).x0 - D
    torch.testing.assert_close(moved, -0.9 * finite_differences(misfit, x), rtol=1e-8, atol=1e-9)
    moved = DPS(prior, problem, form="score").denoise(x, s).x0 - D
    gradient = finite_differences(lambda x: misfit(x) ** 2 / (2 * sigma_y**2), x)
    torch.testing.assert_close(moved, -s * s * gradient, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("case", ["real", "complex"])
def test_pigdm_and_mmps_on_a_mixture_have_the_networks_jacobian(case):
    """``s^2 J^T A^H (r^2 A A^H + sigma_y^2)^-1 (y - A D)``, and with ``s^2 J`` for ``r^2``; J by differences."""
    make, prior = CASES[case]
    A, s, sigma_y = make(), 0.7, 0.4
    is_complex = A.complex_domain
    n = A.domain[0] * (1 + is_complex)
    x, truth = (unflat(random(1, n, seed=k), A.domain, is_complex) for k in (1, 2))
    problem, matrix, D = Problem(A, A.forward(truth), sigma_y), dense(A), prior(x, s)
    J = torch.cat([flat(finite_differences(lambda x, i=i: flat(prior(x, s))[:, i], x)) for i in range(n)])
    r, noise, r2 = (
        flat(problem.y - A.forward(D))[0],
        sigma_y**2 * eye(len(matrix)),
        s * s * 0.16 / (s * s + 0.16),
    )
    for sampler, covariance in ((PiGDM, r2 * eye(n)), (MMPS, s * s * J)):
        found = flat(sampler(prior, problem, **CONVERGED).denoise(x, s).x0 - D)[0]
        inverse = torch.linalg.inv(noise + matrix @ covariance @ matrix.T)
        torch.testing.assert_close(found, s * s * J.T @ matrix.T @ inverse @ r, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("kind", GUIDED)
def test_complex_is_its_real_view(kind):
    A = Matrix(random_complex(2, 3, seed=22))
    world = world_of(A)
    problem = measured("dense, complex").repeated(3)
    real = Problem(Matrix(dense(A)), flat(problem.y), problem.sigma)
    start = 9.0 * random(3, 6, seed=9)
    # MCG draws noise in the shape of the image; the last step draws none
    grid = GRID if kind != "mcg" else [9.0, 0.0]
    pairs = (
        (world, problem, unflat(start, (3,), True)),
        (GaussianWorld(world.mean, world.covariance, (6,)), real, start),
    )
    ends = [last(walk(GUIDED[kind](w, p), Heun(), grid, x, Noise(0, (0,), 3))).x for w, p, x in pairs]
    torch.testing.assert_close(flat(ends[0]), ends[1], rtol=1e-10, atol=1e-10)


# --- structure ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", GUIDED)
def test_doubling_the_batch_changes_nothing(kind):
    problem = measured("dense")
    world, x = world_of(problem.A), 9.0 * random(2, 4, seed=6)
    ends = [
        last(walk(GUIDED[kind](world, problem.repeated(n)), DPMpp(rule="midpoint"), GRID, x.repeat(n // 2, 1), Noise(0, (0, 1) * (n // 2)))).x
        for n in (2, 4)
    ]  # fmt: skip
    torch.testing.assert_close(ends[1], ends[0].repeat(2, 1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 2, 4, 5])
@pytest.mark.parametrize("kind", GUIDED)
def test_chunks_and_an_operator_an_image_change_nothing(kind, rows):
    masks = [MASK, 1 - MASK]
    world = isotropic((1, 2, 2), 0.7)
    y = torch.cat([MASK * random(1, 1, 2, 2, seed=1), (1 - MASK) * random(1, 1, 2, 2, seed=2)])
    A = op.PerImage(tuple(op.Inpainting(m) for m in masks))
    x = 3.0 * random(6, 1, 2, 2, seed=3)
    together = GUIDED[kind](chunked(world, rows), Problem(A, y, 0.2).repeated(3)).denoise(x, 0.8)
    for i, mask in enumerate(masks):
        own = slice(3 * i, 3 * i + 3)
        alone = GUIDED[kind](world, Problem(op.Inpainting(mask), y[i : i + 1], 0.2).repeated(3))
        expected = alone.denoise(x[own], 0.8)
        torch.testing.assert_close(together.x0[own], expected.x0, rtol=1e-12, atol=1e-12)
    if kind in ("pigdm", "mmps"):  # chunked priors say what they know
        target = world.posterior(op.Inpainting(MASK), y[:1], 0.2)
        torch.testing.assert_close(together.x0[:3], target(x[:3], 0.8), rtol=1e-9, atol=1e-9)


class Tracked(torch.autograd.Function):
    """``x / (1 + s^2)``, counting its gradients."""

    gradients = 0

    @staticmethod
    def forward(ctx, x, sigma):  # type: ignore[override]
        ctx.sigma = sigma
        return x / (1 + sigma**2)

    @staticmethod
    def backward(ctx, g):  # type: ignore[override]
        Tracked.gradients += 1
        return g / (1 + ctx.sigma**2), None


@pytest.mark.parametrize(
    "make, gradients",
    [(DPS, 1), (MCG, 1), (PiGDM, 1), (MMPS, 3), (lambda *a: MMPS(*a, steps=1), 1)],
    ids=["dps", "mcg", "pigdm", "mmps", "mmps, 1 step"],
)
def test_one_network_call_and_so_many_gradients(make, gradients):
    calls, Tracked.gradients = [], 0

    def prior(x, sigma):
        calls.append(sigma)
        return Tracked.apply(x, sigma)

    make(prior, measured("dense").repeated(2)).denoise(random(2, 4), 0.5)
    assert (len(calls), Tracked.gradients) == (1, gradients)


@pytest.mark.parametrize("kind", GUIDED)
@pytest.mark.parametrize("enabled", [True, False])
def test_no_graph_outlives_the_estimate(kind, enabled):
    kept: list[weakref.ref] = []

    def prior(x, sigma):
        inner = x.sin()
        kept.append(weakref.ref(inner))
        return inner * inner + 0.1 * x

    sampler = GUIDED[kind](prior, measured("dense").repeated(2))
    x = random(2, 4).requires_grad_(enabled)
    with torch.set_grad_enabled(enabled):
        est = sampler.denoise(x, 0.5)
    gc.collect()
    assert kept[0]() is None
    assert not est.x0.requires_grad and not est.prior.requires_grad
    assert est.eps.requires_grad == enabled  # through x itself, whose own graph is the caller's


def test_fitted_measurements_leave_dps_nothing_to_do():
    world, x = isotropic((1, 2, 2), 0.7), random(2, 1, 2, 2)
    A = op.Inpainting(MASK)
    y = A.forward(world(x, 0.5))
    y[1] += MASK
    est = DPS(world, Problem(A, y)).denoise(x, 0.5)
    assert torch.equal(est.x0[0], est.prior[0]) and not torch.equal(est.x0[1], est.prior[1])


def test_zeta_is_a_number_or_a_function_of_sigma():
    """`variance_preserving`: the released code moves ``a x`` along its own gradient."""
    problem, x = measured("dense"), random(1, 4)
    world, s, t = world_of(problem.A), 0.8, 0.8 - 1e-9
    at = [DPS(world, problem, zeta=z).denoise(x, s).x0 for z in (0.6, lambda s: 0.75 * s)]
    torch.testing.assert_close(at[0], at[1], rtol=1e-14, atol=0)
    a, b = (1 / math.sqrt(1 + level**2) for level in (s, t))
    z = (a * x).requires_grad_()
    (problem.y - problem.A.forward(world(z / a, s))).norm().backward()
    assert z.grad is not None
    est = DPS(world, problem, zeta=variance_preserving(0.3)).denoise(x, s)
    free = b * (est.prior + t * est.eps)
    torch.testing.assert_close(b * (est.x0 + t * est.eps), free - 0.3 * z.grad, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float32], ids=["complex", "real"])
@pytest.mark.parametrize("kind", GUIDED)
def test_nothing_waits_for_the_device(kind, dtype, monkeypatch):
    """But for autograd, which has no fake device; the gradient of ``x / 2`` is put in its place."""

    def with_pullback(prior, x, sigma):
        return prior(x, sigma), lambda v, again=False: 0.5 * v

    for module in (recon.posteriors.dps, recon.posteriors.pigdm):
        monkeypatch.setattr(module, "with_pullback", with_pullback)
    with FakeTensorMode():
        like = empty(dtype)
        problem = Problem.__new__(Problem)  # without its check for NaN, which looks at numbers
        vars(problem).update(A=op.Identity((1, 8, 8), like.is_complex()), y=like, sigma=0.1)
        sampler = GUIDED[kind](half, problem)
        with StayThere():
            x = deque(sampler.run(DPMpp(), LEVELS, like, Given(0, (0, 1))), maxlen=1)[0].x
    assert x.device.type == "cuda" and x.dtype == dtype and x.shape == like.shape


# --- refusals ----------------------------------------------------------------------------------------------


def test_what_cannot_be_solved_is_refused():
    nonlinear = Problem(Magnitude(), torch.ones(1, 3, dtype=torch.float64), 0.1)
    quiet = Problem(MEASURED["dense"](), torch.ones(1, 3, dtype=torch.float64))
    for make in (MCG, PiGDM, MMPS):
        with pytest.raises(ConfigError, match="not linear"):
            make(half, nonlinear)
        with pytest.raises(ConfigError, match="steps"):
            make(half, steps=0)
    for make in (DPS, MCG, PiGDM):
        with pytest.raises(ConfigError, match="form"):
            make(half, form="cubed")
    for make in (DPS, MCG):
        with pytest.raises(ConfigError, match="sigma 0"):
            make(half, quiet, form="score")
        with pytest.raises(ConfigError, match="sigma 0"):
            make(half, form="score").given(quiet)
    for make in (DPS, MCG, PiGDM, MMPS):
        with pytest.raises(ConfigError, match="no problem"):
            make(half).run(Euler(), GRID, torch.zeros(1, 4), Noise(0))


@pytest.mark.parametrize("kind", GUIDED)
def test_a_prior_without_gradients_is_refused(kind):
    sampler = GUIDED[kind](lambda x, sigma: 0.5 * x.detach(), measured("dense"))
    with pytest.raises(ConfigError, match="without a gradient"):
        sampler.denoise(random(1, 4), 0.5)


def test_mcg_refuses_solvers_with_a_long_start():
    """It restarts them at every step: they would pay their Runge-Kutta start each time."""
    for name in ("pndm", "fpndm"):
        with pytest.raises(ConfigError, match=recon.SOLVERS[name]().__class__.__name__):
            MCG(half).pair(recon.SOLVERS[name]())
    MCG(half).pair(recon.SOLVERS["dpm++2m"]())
