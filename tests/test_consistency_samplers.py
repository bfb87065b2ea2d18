"""The laws of the samplers that make the data consistent without gradients: DDNM, DDRM, DiffPIR, DAPS."""

from __future__ import annotations

import math
from collections import deque
from itertools import pairwise

import pytest
import torch
from dense_forms import CG, PATHS
from dense_forms import DensePath as Dense
from fake_cuda import LEVELS, Given, StayThere, empty, half
from measurements import GRID, MASK, MEASURED, SCALAR, measured, world_of
from torch import Tensor
from torch._subclasses import FakeTensorMode
from worlds import (
    CORRELATED,
    Injected,
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
from recon import Problem, grids
from recon.errors import ConfigError, SamplingError
from recon.noise import Noise
from recon.posteriors import DAPS, DDNM, DDRM, DiffPIR, Posterior, daps
from recon.posteriors.shared.loops import inner_levels
from recon.posteriors.shared.norms import row_norms
from recon.posteriors.shared.proximal import Proximal
from recon.solvers import DDIM, DPMpp, Euler, Heun, Renoise

SOLVERS = {
    "euler": Euler(),
    "ddim, eta 1": DDIM(eta=1.0),
    "renoise": Renoise(),
    "heun": Heun(),
    "dpm++2m": DPMpp(rule="midpoint"),
}
LOOPS = {
    "ddrm": lambda *a: DDRM(*a),
    "daps": lambda *a: DAPS(*a, langevin=4),
    "daps, gaussian": lambda *a: DAPS(*a, kernel="gaussian", ode_steps=3, **CG),
}
ALL = {**PATHS, **LOOPS}
NAMES = [*MEASURED]


def eye(n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


def close(a, b, tol=1e-9):
    torch.testing.assert_close(a, b, rtol=tol, atol=tol)


# --- the path samplers: affine laws ------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", PATHS)
def test_each_is_its_dense_form_under_the_solvers(kind, name, solver):
    problem = measured(name)
    world = world_of(problem.A)
    found = affine_walk(PATHS[kind](world, problem), SOLVERS[solver], GRID, world.domain, world.is_complex)
    wanted = affine_walk(Dense(world, problem, kind), SOLVERS[solver], GRID, world.domain, world.is_complex)
    for a, b in zip(found, wanted, strict=True):
        close(a, b)


@pytest.mark.parametrize("eta", [0.0, 0.85, 1.0])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", PATHS)
def test_moments_follow_their_recursion(kind, name, eta):
    """``x0 = M x + c``, ``x' = x0 + sqrt(1 - eta^2) t e + eta t z``, e the noise kept or recomputed."""
    problem = measured(name)
    world = world_of(problem.A)
    reference, one = Dense(world, problem, kind), eye(len(world.mean))
    mean, covariance = torch.zeros_like(world.mean), GRID[0] ** 2 * one
    for s, t in pairwise(GRID):
        r, K, W = math.sqrt(1 - eta**2) * t / s, world.gain(s), reference.weight(s)
        rest = (one - K) @ world.mean
        M = K - W @ reference.matrix @ K
        c = rest + W @ (flat(problem.y)[0] - reference.matrix @ rest)
        if kind == "ddnm, noise":
            B, b = M + r * (one - K), c - r * rest
        else:
            B, b = (1 - r) * M + r * one, (1 - r) * c
        mean, covariance = B @ mean + b, B @ covariance @ B.T + (eta * t) ** 2 * one
    law = affine_walk(PATHS[kind](world, problem), Renoise(eta), GRID, world.domain, world.is_complex)
    found = law.moments(torch.zeros_like(mean), GRID[0] ** 2 * one)
    close(found[0], mean)
    close(found[1], covariance)


# --- DDNM --------------------------------------------------------------------------------------------------


def noiseless(name: str) -> Problem:
    A = MEASURED[name]()
    draw = random_complex if A.complex_domain else random
    return Problem(A, A.forward(draw(1, *A.domain, seed=31)))


@pytest.mark.parametrize("svd", [True, False], ids=["svd", "cg"])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", NAMES)
def test_ddnm_is_exact_without_noise_on_an_isotropic_prior(name, solver, svd):
    """Measured: y, without variance; null space: what the same solver makes of the prior."""
    problem = noiseless(name)
    world = world_of(problem.A, 0.7)
    matrix = dense(problem.A)
    inverse = torch.linalg.pinv(matrix)
    null = eye(len(world.mean)) - inverse @ matrix
    sampler = DDNM(world, problem, svd=svd, **CG)
    x = unflat(random(5, len(world.mean)), world.domain, world.is_complex)
    est = sampler.given(problem.repeated(5)).denoise(x, 0.8)
    conditional = flat(world(x, 0.8)) @ null + flat(problem.y) @ inverse.T  # E[x0 | x, A x0 = y]
    close(flat(est.x0), conditional)
    assert est.consistent
    law = affine_walk(sampler, SOLVERS[solver], GRID, world.domain, world.is_complex)
    free = affine_walk(Posterior(world), SOLVERS[solver], GRID, world.domain, world.is_complex)
    start = (torch.zeros_like(world.mean), GRID[0] ** 2 * eye(len(world.mean)))
    (mean, covariance), (prior_mean, prior_covariance) = law.moments(*start), free.moments(*start)
    close(matrix @ mean, flat(problem.y)[0])
    close(covariance, null @ prior_covariance @ null)
    close(null @ mean, null @ prior_mean)


@pytest.mark.parametrize("svd", [True, False], ids=["svd", "cg"])
@pytest.mark.parametrize("name", NAMES)
def test_the_projection_is_that_of_a_pseudo_inverse(name, svd):
    """``A A^+ A = A``, ``A^+ y`` of noisy measurements, and nothing in the null space."""
    problem = measured(name).repeated(3)
    fit = Proximal(problem, 12, 0.0, svd=svd, dense=True)
    draw = random_complex if problem.A.complex_domain else random
    x = draw(3, *problem.A.domain, seed=4)
    matrix = dense(problem.A)
    inverse = torch.linalg.pinv(matrix)
    close(flat(fit(torch.zeros_like(x), 0.0)), flat(problem.y) @ inverse.T)
    moved = flat(fit(x, 0.0) - x)
    close(moved @ (eye(matrix.shape[1]) - inverse @ matrix), torch.zeros_like(moved), 1e-12)
    seen = Problem(problem.A, problem.A.forward(x))
    again = Proximal(seen, 12, 0.0, svd=svd, dense=True)(torch.zeros_like(x), 0.0)
    close(problem.A.forward(again), seen.y)


def test_small_singular_values_are_null_space():
    """``cutoff`` of the largest: below it a value is neither divided by nor fitted."""
    A = Matrix(torch.tensor([[1.0, 0.0], [0.0, 1e-4]], dtype=torch.float64))
    y = torch.tensor([[0.5, 1.0]], dtype=torch.float64)
    x = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    prior = torch.ones_like(x)
    for sampler in (
        DDNM(lambda x, s: prior, Problem(A, y)),
        DDNM(lambda x, s: prior, Problem(A, y), cutoff=1e-5),
    ):
        found = sampler.denoise(x, 1.0).x0
        close(found, torch.tensor([[0.5, 1.0 if sampler.cutoff == 1e-3 else 1e4]], dtype=torch.float64))
    end = last(DDRM(lambda x, s: prior, Problem(A, y)).run(None, [2.0, 0.0], x, Noise(0))).x
    close(end, torch.tensor([[0.5, 1.0]], dtype=torch.float64))


class Released:
    """The step of the released DDNM and DDNM+ as its authors wrote it, in variance-preserving coordinates.

    ``a`` is the root of the cumulative product of alphas, ``sigma_t = sqrt(1 - a^2)`` at the next level,
    ``e`` the network's noise; U, s, V of a dense A.
    """

    def __init__(self, problem: Problem, eta: float):
        self.U, self.s, Vh = torch.linalg.svd(dense(problem.A), full_matrices=True)
        n = Vh.shape[1]
        self.V = Vh.T
        self.s = torch.nn.functional.pad(torch.where(self.s > 1e-9, self.s, 0), (0, n - len(self.s)))
        self.inverse = torch.where(self.s > 0, 1 / self.s, 0)
        self.y, self.sigma_y, self.eta, self.matrix = flat(problem.y), problem.sigma, eta, dense(problem.A)

    def pinv(self, v: Tensor) -> Tensor:
        c = v @ self.U
        c = torch.nn.functional.pad(c, (0, max(0, len(self.s) - c.shape[1])))[:, : len(self.s)]
        return (c * self.inverse) @ self.V.T

    def step(self, x0: Tensor, e: Tensor, z: Tensor, a: float, plus: bool) -> Tensor:
        sigma_t, eta = math.sqrt(1 - a * a), self.eta
        back = self.pinv(x0 @ self.matrix.T - self.y)
        c1, c2 = sigma_t * eta, sigma_t * math.sqrt(1 - eta**2)
        if not plus:
            return a * (x0 - back) + c1 * z + c2 * e
        share = torch.ones_like(self.s)
        d1, d2 = torch.full_like(self.s, c1), torch.full_like(self.s, c2)
        if a != 0 and self.sigma_y != 0:
            quiet = sigma_t < a * self.sigma_y * self.inverse
            share = torch.where(
                quiet, self.s * sigma_t * math.sqrt(1 - eta**2) / a / max(self.sigma_y, 1e-300), share
            )
            d2 = torch.where(quiet, 0.0, d2)
            loud = (sigma_t > a * self.sigma_y * self.inverse) & (self.s > 0)
            room = (sigma_t**2 - (a * self.sigma_y * self.inverse) ** 2).clamp(min=0).sqrt()
            d1, d2 = torch.where(loud, room, d1), torch.where(loud, 0.0, d2)
        clean = x0 - (back @ self.V * share) @ self.V.T
        return a * clean + (z @ self.V * d1 + e @ self.V * d2) @ self.V.T


@pytest.mark.parametrize("eta", [0.0, 0.85, 1.0])
@pytest.mark.parametrize("target", [4.0, 0.4, 0.02, 0.0])
@pytest.mark.parametrize("name", NAMES)
def test_the_released_steps(name, target, eta):
    """DDNM: kept noise under ``renoise``. DDNM+: DDRM with ``eta_b = 1``. Their null space: this DDNM too."""
    problem, s = measured(name), 5.0
    world = world_of(problem.A)
    domain, is_complex = world.domain, world.is_complex
    x, z = (
        unflat(scale * random(1, len(world.mean), seed=k), domain, is_complex)
        for k, scale in ((1, 5.0), (2, 1.0))
    )
    D = world(x, s)
    e, a = (x - D) / s, 1 / math.sqrt(1 + target**2)
    released = Released(problem, eta)

    def through(sampler: Posterior) -> Tensor:
        step = Renoise(eta).step(sampler.denoise, x, s, target, (), Injected().at(0))
        return flat(step.mean + step.std * z)

    plain = released.step(flat(D), flat(e), flat(z), a, plus=False) / a
    close(through(DDNM(world, problem, plus=False, keep="noise")), plain, 1e-10)
    if eta == 1:
        close(through(DDNM(world, problem, plus=False)), plain, 1e-10)

    draws = Injected({(0, "step", 0): flat(z)})
    kernel = DDRM(world, problem, eta=eta, start="noise").step(x, D, s, target, draws.at(0))
    plus = released.step(flat(D), flat(e), flat(z), a, plus=True) / a
    close(flat(kernel), plus, 1e-10)
    matrix = dense(problem.A)
    null = eye(matrix.shape[1]) - torch.linalg.pinv(matrix) @ matrix
    close(through(DDNM(world, problem, keep="noise")) @ null, plus @ null, 1e-10)


def test_ddnm_takes_loud_levels_whole_and_quiet_ones_in_part():
    """``L = min(1, s s_i / sigma_y)``; without singular values ``||A||`` for all s_i, in any unit of y."""
    A = Matrix(torch.tensor([[2.0, 0.0], [0.0, 0.5]], dtype=torch.float64))
    sampler = DDNM(half, Problem(A, torch.ones(1, 2, dtype=torch.float64), 0.4))
    shares = [
        sampler.fit.svd.s.flatten().tolist(),
        *(sampler.share(s).flatten().tolist() for s in (1.0, 0.4, 0.1)),
    ]
    assert shares == [[2.0, 0.5], [1.0, 1.0], [1.0, 0.5], [0.5, pytest.approx(0.125)]]
    for unit in (1e-3, 1.0, 1e3):
        other = DDNM(
            half, Problem(unit * A, unit * torch.ones(1, 2, dtype=torch.float64), unit * 0.4), svd=False
        )
        assert float(other.share(0.1)) == pytest.approx(0.5, rel=1e-6)
    assert DDNM(half, Problem(A, torch.ones(1, 2, dtype=torch.float64))).share(0.1) == 1.0


# --- DiffPIR -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "zeta, mean, variance", [(0.0, 0.8751, 0.1473), (0.3, 0.8364, 0.1572), (1.0, 0.8085, 0.0914)]
)
def test_diffpir_has_the_golden_moments(zeta, mean, variance):
    problem = Problem(op.Identity((1,)), torch.ones(1, 1, dtype=torch.float64), 0.5)
    law = affine_walk(DiffPIR(SCALAR, problem), Renoise(math.sqrt(zeta)), grids.karras(100), (1,))
    found = law.moments(torch.zeros(1, dtype=torch.float64), 6400 * eye(1))
    assert tuple(map(float, found)) == pytest.approx((mean, variance), abs=5.1e-5)


@pytest.mark.parametrize("zeta", [0.0, 0.3, 1.0])
def test_the_papers_zeta_is_renoise(zeta):
    """``x' = x0 + t (sqrt(1 - zeta) e + sqrt(zeta) z)``, e recomputed; zeta 0 is euler, step for step."""
    problem, s, t = measured("dense"), 0.9, 0.4
    world, x, z = world_of(problem.A), random(1, 4, seed=3), random(1, 4, seed=4)
    sampler = DiffPIR(world, problem, **CG)
    est = sampler.denoise(x, s)
    assert est.consistent
    close(est.x0 + s * est.eps, x, 1e-12)
    step = Renoise(math.sqrt(zeta)).step(sampler.denoise, x, s, t, (), Injected().at(0))
    paper = est.x0 + t * (math.sqrt(1 - zeta) * (x - est.x0) / s + math.sqrt(zeta) * z)
    close(step.mean + step.std * z, paper, 1e-12)
    if zeta == 0:
        euler = Euler().step(sampler.denoise, x, s, t, (), Injected().at(0))
        close(step.mean, euler.mean, 1e-14)


def test_diffpir_has_a_limit_of_small_steps():
    """Euler halves its distance to a fine grid with every doubling."""
    problem = Problem(op.Identity((1,)), torch.ones(1, 1, dtype=torch.float64), 0.5)

    def end(n: int) -> float:
        grid = [80 * (0.01 / 80) ** (i / n) for i in range(n + 1)]
        x = torch.full((1, 1), 60.0, dtype=torch.float64)
        return float(last(DiffPIR(SCALAR, problem).run(Euler(), grid, x, Noise(0))).x)

    ends = [end(n) for n in (100, 200, 400, 800)]
    ratios = [(b - a) / (c - b) for a, b, c in zip(ends, ends[1:], ends[2:], strict=False)]
    assert all(1.8 < ratio < 2.2 for ratio in ratios), ratios


def test_singular_coordinates_keep_rounding_out_of_the_null_space():
    """float32, rho = 1e-9: the closed form gives the null space noise of eps / rho, this one none."""
    A = op.MRI((random(16) > 0).float(), shape=(16, 16))
    x = random_complex(1, 1, 16, 16, seed=2).to(torch.complex64)
    problem = Problem(A, A(x), 1e-3)
    prior = random_complex(1, 1, 16, 16, seed=3).to(torch.complex64)
    found = DiffPIR(lambda x, s: prior, problem).denoise(30 * x, 30.0).x0
    exact = prior + A.adjoint(problem.y - A(prior))
    assert float((found - exact).abs().max()) < 1e-5
    closed = prior + A.solve_normal(problem.backprojection - A.normal(prior), 1e-9)
    assert float((closed - exact).abs().max()) > 1.0


@pytest.mark.parametrize("make", [DDNM, DiffPIR], ids=["ddnm", "diffpir"])
def test_without_noise_both_are_the_projection(make):
    problem = noiseless("dense")
    world, x = world_of(problem.A), random(1, 4)
    close(
        make(world, problem, **CG).denoise(x, 0.7).x0, Proximal(problem, 12, 0.0)(world(x, 0.7), 0.0), 1e-12
    )


# --- DDRM --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma_y, eta, eta_b, start", [
    (0.3, 0.85, 1.0, "measured"), (0.3, 0.5, 0.7, "measured"), (0.0, 0.85, 1.0, "measured"), (0.3, 0.85, 1.0, "noise"),
])  # fmt: skip
@pytest.mark.parametrize("name", NAMES)
def test_ddrm_follows_its_moment_recursion(name, sigma_y, eta, eta_b, start):
    problem = measured(name, sigma_y) if sigma_y else noiseless(name)
    world = world_of(problem.A)
    n = len(world.mean)
    U, s, Vh = torch.linalg.svd(dense(problem.A), full_matrices=True)
    s = torch.nn.functional.pad(torch.where(s > 1e-9, s, 0), (0, n - len(s)))
    u = torch.nn.functional.pad(flat(problem.y)[0] @ U, (0, n))[:n]
    seen = s > 0
    y = torch.where(seen, u / torch.where(seen, s, 1), 0)
    noise = torch.where(seen, sigma_y / torch.where(seen, s, 1), math.inf)
    mean, covariance = torch.zeros(n, dtype=torch.float64), GRID[0] ** 2 * eye(n)
    if start == "measured":
        mean = Vh.T @ torch.where(noise <= GRID[0], y, 0)
        spread = torch.where(noise <= GRID[0], GRID[0] ** 2 - noise**2, GRID[0] ** 2)
        covariance = Vh.T @ spread.diag() @ Vh
    for level, t in pairwise(GRID):
        loud, quiet = noise <= t, seen & (noise > t)
        rho = math.sqrt(1 - eta**2) * t
        ratio = torch.where(quiet, rho / noise, 0)
        of_clean = torch.where(loud, torch.full_like(s, 1 - eta_b), 1 - ratio)
        of_noise = torch.where(seen, torch.zeros_like(s), torch.full_like(s, rho))
        constant = torch.where(loud, eta_b * y, ratio * y)
        std = torch.where(
            loud, (t * t - (eta_b * noise).clamp(max=t) ** 2).sqrt(), torch.full_like(s, eta * t)
        )
        K = world.gain(level)
        rest = (eye(n) - K) @ world.mean
        E = (eye(n) - K) / level
        B = Vh.T @ (of_clean[:, None] * (Vh @ K) + of_noise[:, None] * (Vh @ E))
        b = Vh.T @ (of_clean * (Vh @ rest) - of_noise * (Vh @ rest) / level + constant)
        mean = B @ mean + b
        covariance = B @ covariance @ B.T + Vh.T @ std.square().diag() @ Vh
    sampler = DDRM(world, problem, eta=eta, eta_b=eta_b, start=start)
    law = affine_walk(sampler, Euler(), GRID, world.domain, world.is_complex)
    found = law.moments(torch.zeros(n, dtype=torch.float64), GRID[0] ** 2 * eye(n))
    close(found[0], mean)
    close(found[1], covariance)


@pytest.mark.parametrize("eta", [0.0, 0.85, 1.0])
def test_ddrm_without_measurements_is_renoise_on_the_prior(eta):
    A = 0.0 * op.Identity((4,))
    problem = Problem(A, torch.zeros(2, 4, dtype=torch.float64), 0.3)
    x = 9 * random(2, 4)
    found = last(DDRM(CORRELATED, problem, eta=eta).run(None, GRID, x, Noise(0, (0, 1)))).x
    expected = last(Posterior(CORRELATED).run(Renoise(eta), GRID, x, Noise(0, (0, 1)))).x
    close(found, expected, 1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_ddrm_without_noise_ends_on_its_measurements(name):
    problem = noiseless(name).repeated(2)
    world = world_of(problem.A)
    x = unflat(9 * random(2, len(world.mean)), world.domain, world.is_complex)
    end = last(DDRM(world, problem).run(None, GRID, x, Noise(0, (0,), 2))).x
    close(problem.A.forward(end), problem.y, 1e-10)
    free = torch.linalg.matrix_rank(dense(problem.A)) < len(world.mean)
    assert (float((end[0] - end[1]).abs().max()) > 1e-3) == free


def test_ddrm_starts_at_what_was_measured():
    """``x_i ~ N(y_i, s^2 - n_i^2)`` where ``n_i < s``; the rest is the state that was given."""
    A = Matrix(torch.diag(torch.tensor([2.0, 0.01, 0.0], dtype=torch.float64)))
    problem = Problem(A, torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64), 0.5).repeated(4000)
    x = random(1, 3).expand(4000, 3)
    sampler = DDRM(lambda x, s: 0 * x, problem, cutoff=1e-6)
    started = sampler.frame.start(x, 3.0, Noise(0, (0,), 4000).at(-1))
    assert torch.equal(started[:, 1:], x[:, 1:])
    assert float(started[:, 0].mean()) == pytest.approx(0.5, abs=0.2)
    assert float(started[:, 0].std()) == pytest.approx(math.sqrt(9 - 0.0625), rel=0.05)


# --- DAPS --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "n, mean, variance", [(50, 0.8964, 0.2207), (200, 0.8914, 0.2215), (1000, 0.8900, 0.2218)]
)
def test_daps_has_the_golden_moments(n, mean, variance, monkeypatch):
    """r = s, the exact flow, the exact Gaussian kernel: biased, for .8 and .2."""
    exact = lambda *inner: lambda x, s: SCALAR.flow(x, s, 0.0)  # noqa: E731
    monkeypatch.setattr(daps, "flowing", exact)
    assert scalar_daps(grids.karras(n, 100.0, 0.1)) == pytest.approx((mean, variance), abs=5.1e-5)


def scalar_daps(grid: list[float], solver=None, **options) -> tuple[float, float]:
    """Prior N(0, 1), A = 1, sigma_y = .5, y = 1, by the moments of the chain of its affine steps."""
    problem = Problem(op.Identity((1,)), torch.ones(1, 1, dtype=torch.float64), 0.5)
    sampler = DAPS(SCALAR, problem, kernel="gaussian", **options)
    mean, variance = 0.0, grid[0] ** 2
    for s, t in pairwise(grid):
        law = affine_walk(sampler, solver, [s, t], (1,))
        found = law.moments(torch.full((1,), mean, dtype=torch.float64), variance * eye(1))
        mean, variance = float(found[0]), float(found[1])
    return mean, variance


def test_a_solvers_flow_is_the_exact_one_within_its_error():
    """Five Euler steps are the paper's; Heun's error is of second order."""
    grid = grids.karras(50, 100.0, 0.1)
    assert scalar_daps(grid, Heun(), ode_steps=40) == pytest.approx((0.8964, 0.2207), abs=2e-3)
    assert scalar_daps(grid, Euler(), ode_steps=5) == pytest.approx((0.8964, 0.2207), abs=0.06)


@pytest.mark.parametrize("solver", ["euler", "heun", "dpm++2m"])
@pytest.mark.parametrize("name", NAMES)
def test_daps_follows_its_moment_recursion(name, solver):
    """``xhat = F x + f``; ``S = (A^H A / tau^2 + 1 / r^2)^-1``; ``x0 ~ N(S (A^H y / tau^2 + xhat / r^2), S)``."""
    problem, tau = measured(name), 0.4
    world = world_of(problem.A)
    n, matrix = len(world.mean), dense(problem.A)
    sampler = DAPS(world, problem, kernel="gaussian", tau=tau, ode_steps=3, **CG)
    mean, covariance = torch.zeros(n, dtype=torch.float64), GRID[0] ** 2 * eye(n)
    for s, t in pairwise(GRID):
        inner = affine_walk(
            Posterior(world), SOLVERS[solver], inner_levels(world, 3, s), world.domain, world.is_complex
        )
        S = torch.linalg.inv(matrix.T @ matrix / tau**2 + eye(n) / s**2)
        B, b = S @ inner.matrix / s**2, S @ (inner.offset / s**2 + matrix.T @ flat(problem.y)[0] / tau**2)
        mean, covariance = B @ mean + b, B @ covariance @ B.T + S + t * t * eye(n)
    law = affine_walk(sampler, SOLVERS[solver], GRID, world.domain, world.is_complex)
    found = law.moments(torch.zeros(n, dtype=torch.float64), GRID[0] ** 2 * eye(n))
    close(found[0], mean)
    close(found[1], covariance)


@pytest.mark.parametrize(
    "grid", [[100.0, 0.0], [100.0, 3.0, 0.5, 0.0], grids.karras(20, 100.0, 0.1)], ids=len
)
@pytest.mark.parametrize("name", NAMES)
def test_daps_with_the_true_belief_is_exact_on_any_grid(name, grid):
    """``xhat = D`` and ``r^2 = s^2 v / (s^2 + v)`` are p(x0 | x) of N(m, v I), so x0 has the posterior's law."""
    v = 0.7
    problem = measured(name)
    world = world_of(problem.A, v)
    target = world.posterior(problem.A, problem.y, problem.sigma)
    sampler = DAPS(
        world, problem, kernel="gaussian", ode_steps=1, spread=lambda s: s * math.sqrt(v / (s * s + v)), **CG
    )
    law = affine_walk(sampler, Euler(), grid, world.domain, world.is_complex)
    found = law.moments(target.mean, target.marginal(grid[0]))
    close(found[0], target.mean)
    close(found[1], target.covariance)


def test_the_scalar_truth_with_the_true_belief():
    belief = lambda s: s / math.sqrt(s * s + 1)  # noqa: E731
    found = scalar_daps(grids.karras(50, 100.0, 0.1), Euler(), ode_steps=1, spread=belief)
    assert found == pytest.approx((0.8, 0.2), abs=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_langevin_is_its_affine_recursion(name):
    """``x += h (A^H (y - A x) / tau^2 + (xhat - x) / r^2) + sqrt(2 h) z``; a step of the whole, to 1e-9."""
    problem = measured(name)
    world = world_of(problem.A)
    n, matrix, s = len(world.mean), dense(problem.A), 0.6
    sampler = DAPS(world, problem, langevin=3, ode_steps=1)
    h = float(sampler.langevin_size(problem.backprojection, s))
    precision = matrix.T @ matrix / 0.09 + eye(n) / s**2
    K, B = world.gain(s), eye(n) - h * precision
    M, c = K, (eye(n) - K) @ world.mean
    covariance = torch.zeros_like(K)
    pull = h * matrix.T @ flat(problem.y)[0] / 0.09
    D = (M, c)
    for _ in range(3):
        M, c = B @ M + h / s**2 * D[0], B @ c + h / s**2 * D[1] + pull
        covariance = B @ covariance @ B.T + 2 * h * eye(n)
    law = affine_walk(sampler, Euler(), [s, 0.0], world.domain, world.is_complex)
    close(law.matrix, M)
    close(law.offset, c)
    close(law.moments(law.offset, 0 * K)[1], covariance)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.95])
def test_langevin_is_stable_and_has_its_stationary_law(rate):
    """Mean of the Gaussian; variance ``1 / (k (1 - h k / 2))`` where the precision is k. Above the bound it diverges."""
    problem = measured("dense")
    world, matrix, r = world_of(problem.A), dense(problem.A), 0.2
    precision = matrix.T @ matrix / 0.09 + eye(4) / r**2
    sampler = DAPS(world, problem, langevin=500, ode_steps=1, rate=rate)
    h = float(sampler.langevin_size(problem.backprojection, r))
    assert h == pytest.approx(2 * rate / float(torch.linalg.eigvalsh(precision).max()), rel=1e-2)
    law = affine_walk(sampler, Euler(), [r, 0.0], (4,))
    D = world.mean + world.gain(r) @ (random(4, seed=8) - world.mean)
    found = law.moments(random(4, seed=8), 0 * precision)
    close(found[0], torch.linalg.solve(precision, matrix.T @ flat(problem.y)[0] / 0.09 + D / r**2), 1e-8)
    close(found[1], torch.linalg.inv(precision - h / 2 * precision @ precision), 1e-8)
    wild = DAPS(world, problem, langevin=500, step=1 / (rate / (1.05 * h) - 1 / r**2))
    wild = wild.langevin_walk(D[None], r, Injected().at(0))
    assert float(wild.abs().max()) > 1e6


@pytest.mark.parametrize("name", NAMES)
def test_the_norm_is_the_largest_singular_value(name):
    problem = measured(name)
    found = row_norms(problem.repeated(3))
    assert found.shape == (3, *[1] * len(problem.A.domain))
    assert float(found[0]) == pytest.approx(float(torch.linalg.matrix_norm(dense(problem.A), 2)), rel=1e-2)


def test_the_norm_has_the_precision_of_the_measurements():
    """An operator without tensors says float32, whatever it is given: its norm is not rounded to that."""
    problem = Problem(op.Identity((3,)), random(2, 3), 0.1)
    norm = row_norms(problem)
    assert norm.dtype == torch.float64 and float((norm - 1).abs().max()) < 1e-12


def test_inner_levels_scale_with_sigma_and_stay_in_the_priors_range():
    levels = inner_levels(half, 5, 3.0)
    assert len(levels) == 6 and levels[0] == 3.0 and levels[-2] == pytest.approx(0.03) and levels[-1] == 0
    limited = recon.priors.Prior(half, sigma_min=0.5)
    assert min(level for level in inner_levels(limited, 5, 3.0) if level > 0) == 0.5
    assert inner_levels(limited, 5, 0.5) == [0.5, 0.0]
    seen = []

    def prior(x, sigma):
        seen.append(sigma)
        return half(x, sigma)

    problem = measured("inpainting")
    limited = recon.priors.Prior(prior, sigma_min=0.5, sigma_max=8.0)
    result = recon.sample(problem, limited, DAPS(limited, langevin=2), "dpm++2m", steps=4, samples=2)
    assert min(seen) == 0.5 and max(seen) == 8.0
    assert result.network_calls == len(seen) == 3 * 5 + 1  # at the prior's lowest level one is all there is


class Squared(op.Operator):
    """Not linear."""

    domain = (4,)

    def forward(self, x):
        return (x @ random(3, 4, seed=21).T.to(x.dtype)) ** 2


def test_daps_walks_nonlinear_operators_with_steps_of_a_given_size():
    """Langevin's own gradient, by autograd: steps along that of ``||A(x) - y||^2 / (2 tau^2)``."""
    problem = Problem(Squared(), torch.ones(2, 3, dtype=torch.float64), 0.5)
    sampler, h = DAPS(half, problem, langevin=1, step=1e-3), 1 / (1e3 + 1 / 0.49)
    x = random(2, 4, seed=3).requires_grad_()
    loss = (problem.A.forward(x) - problem.y).square().sum() / (2 * 0.25)
    (gradient,) = torch.autograd.grad(loss, x)
    close(sampler.langevin_walk(x.detach(), 0.7, Injected().at(0)), (x - h * gradient).detach(), 1e-12)
    sampler = DAPS(half, langevin=5, step=1e-3)
    result = recon.sample(problem, half, sampler, "euler", grid=[2.0, 0.5, 0.002, 0.0], samples=2)
    assert result.samples.isfinite().all()


# --- all of them -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dense", "inpainting", "MRI"])
@pytest.mark.parametrize("kind", ALL)
def test_the_units_of_the_measurements_do_not_matter(kind, name):
    """A, y and sigma_y times c: the same samples."""
    problem = measured(name)
    world = world_of(problem.A)
    x = unflat(9 * random(1, len(world.mean)), world.domain, world.is_complex)
    ends = []
    for c in (1.0, 1e-3, 250.0):
        scaled = Problem(c * problem.A, c * problem.y, c * problem.sigma)
        ends.append(last(ALL[kind](world, scaled).run(Euler(), GRID, x, Noise(0))).x)
    close(ends[1], ends[0], 1e-7)
    close(ends[2], ends[0], 1e-7)


@pytest.mark.parametrize("name", ["dense", "MRI"])
@pytest.mark.parametrize("kind", ALL)
def test_a_row_does_not_depend_on_its_batch(kind, name):
    """Three images of very different scales together, and each alone."""
    A = MEASURED[name]()
    draw = random_complex if A.complex_domain else random
    scale = torch.tensor([1e-3, 1.0, 1e3], dtype=torch.float64)
    y = A.forward(draw(3, *A.domain, seed=5)) * scale.view(-1, *[1] * len(A.codomain))
    world, x = world_of(A), 9.0 * draw(3, *A.domain, seed=6)
    together = last(ALL[kind](world, Problem(A, y, 0.1)).run(Euler(), GRID, x, Noise(0, range(3)))).x
    for i in range(3):
        alone = ALL[kind](world, Problem(A, y[i : i + 1], 0.1))
        end = last(alone.run(Euler(), GRID, x[i : i + 1], Noise(0, (i,)))).x
        torch.testing.assert_close(together[i : i + 1], end, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", ALL)
def test_an_operator_an_image_changes_nothing(kind):
    """Images of other units and other masks in one batch: every row as if alone."""
    masks = [MASK, 1 - MASK]
    operators = [unit * op.Inpainting(m) for m, unit in zip(masks, (1.0, 30.0), strict=True)]
    world = isotropic((1, 2, 2), 0.7)
    y = torch.cat([A.forward(random(1, 1, 2, 2, seed=k)) for k, A in enumerate(operators)])
    x = 3.0 * random(6, 1, 2, 2, seed=3)
    together = Problem(op.PerImage(tuple(operators)), y, 0.2).repeated(3)
    end = last(ALL[kind](world, together).run(Euler(), GRID, x, Noise(0, (0, 1), 3))).x
    for i, A in enumerate(operators):
        rows = slice(3 * i, 3 * i + 3)
        alone = ALL[kind](world, Problem(A, y[i : i + 1], 0.2).repeated(3))
        expected = last(alone.run(Euler(), GRID, x[rows], Noise(0, (i,), 3))).x
        torch.testing.assert_close(end[rows], expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", ALL)
def test_nothing_is_replaced_by_zeros(kind):
    """A prior that gives NaN in one row: that row is NaN, and `recon.sample` stops there."""
    problem = measured("inpainting").repeated(2)

    def broken(x, sigma):
        bad = torch.tensor([0.0, math.nan], dtype=torch.float64).view(2, 1, 1, 1)
        return 0.5 * x + (bad if sigma < 2 else 0 * bad.nan_to_num())

    x = random(2, 1, 2, 2)
    end = last(ALL[kind](broken, problem).run(Euler(), [4.0, 1.5, 0.5, 0.0], x, Noise(0, (0,), 2))).x
    assert end[0].isfinite().all() and end[1].isnan().any()
    with pytest.raises(SamplingError, match="diverged"):
        recon.sample(measured("inpainting"), broken, ALL[kind](broken), "euler", steps=6, samples=2)


@pytest.mark.parametrize("kind", ALL)
def test_small_operators_and_large_ones_take_the_same_steps(kind, monkeypatch):
    """Without the decomposition as a matrix: CG, or refused; the structured operators do not notice."""
    problem = measured("inpainting")
    world, x = world_of(problem.A), 9 * random(1, 1, 2, 2)
    before = last(ALL[kind](world, problem).run(Euler(), GRID, x, Noise(0))).x
    monkeypatch.setattr("operators.spectral.DENSE", 0)
    close(last(ALL[kind](world, problem).run(Euler(), GRID, x, Noise(0))).x, before, 1e-12)
    if kind == "ddrm":
        with pytest.raises(ConfigError, match="no singular value decomposition"):
            DDRM(world, measured("dense"))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float32], ids=["complex", "real"])
@pytest.mark.parametrize("kind", ALL)
def test_nothing_waits_for_the_device(kind, dtype):
    with FakeTensorMode():
        like = empty(dtype)
        problem = Problem.__new__(Problem)  # without its check for NaN, which looks at numbers
        vars(problem).update(A=op.Identity((1, 8, 8), like.is_complex()), y=like, sigma=0.1)
        sampler = ALL[kind](half, problem)
        with StayThere():
            x = deque(sampler.run(Euler(), LEVELS, like, Given(0, (0, 1))), maxlen=1)[0].x
    assert x.device.type == "cuda" and x.dtype == dtype and x.shape == like.shape


# --- refusals ----------------------------------------------------------------------------------------------


def test_what_cannot_be_solved_is_refused():
    nonlinear = Problem(Squared(), torch.ones(1, 3, dtype=torch.float64), 0.1)
    quiet = Problem(MEASURED["dense"](), torch.ones(1, 3, dtype=torch.float64))
    for make in (DDNM, DDRM, DiffPIR):
        with pytest.raises(ConfigError, match="not linear"):
            make(half, nonlinear)
        with pytest.raises(ConfigError, match="not linear"):
            make(half).given(nonlinear)
    for make in (DDNM, DiffPIR, DAPS):
        with pytest.raises(ConfigError, match="steps"):
            make(half, steps=0)
    for options in ({}, {"kernel": "gaussian"}, {"kernel": "gaussian", "step": 1e-3}):
        with pytest.raises(ConfigError, match="not linear"):
            DAPS(half, nonlinear, **options)
    with pytest.raises(ConfigError, match=r"sigma 0(.|\n)*tau"):
        DAPS(half, quiet)
    DAPS(half, quiet, tau=0.01)
    for make in (DDNM, DDRM, DiffPIR, DAPS):
        with pytest.raises(ConfigError, match="no problem"):
            make(half).run(Euler(), GRID, torch.zeros(1, 4), Noise(0))


@pytest.mark.parametrize(
    "make, options",
    [
        (DDNM, {"keep": "both"}),
        (DiffPIR, {"lam": 0.0}),
        (DDRM, {"eta": 1.5}),
        (DDRM, {"eta_b": -0.1}),
        (DDRM, {"start": "prior"}),
        (DAPS, {"kernel": "metropolis"}),
        (DAPS, {"rate": 1.0}),
        (DAPS, {"tau": 0.0}),
        (DAPS, {"step": -1.0}),
        (DAPS, {"ode_steps": 0}),
        (DAPS, {"langevin": 0}),
    ],
)
def test_options_out_of_range_are_refused(make, options):
    with pytest.raises(ConfigError, match=str(next(iter(options.values())))):
        make(half, **options)


def test_daps_refuses_solvers_that_do_not_fit_inside():
    with pytest.raises(ConfigError, match="adds noise"):
        DAPS(half).pair(Renoise())
    with pytest.raises(ConfigError, match="inner steps"):
        DAPS(half, ode_steps=2).pair(DPMpp(nodes=3))
    DAPS(half).pair(DPMpp(nodes=3))
    asked = []

    def prior(x, sigma):
        asked.append(sigma)
        return half(x, sigma)

    with pytest.raises(ConfigError, match="adds noise"):
        recon.sample(measured("dense"), prior, "daps", "ddpm")
    assert not asked


def test_ddrm_refuses_what_it_cannot_decompose_and_says_what_to_take_instead():
    A = op.MRI((random(40) > 0).float(), random_complex(2, 40, 40).to(torch.complex64))
    with pytest.raises(ConfigError, match=r"no singular value decomposition(.|\n)*ddnm"):
        DDRM(half, Problem(A, torch.zeros(1, 2, 40, 40, dtype=torch.complex64), 0.1))


def test_samplers_with_loops_of_their_own_cannot_be_weighed():
    for make in (DDRM, DAPS):
        with pytest.raises(ConfigError, match="loop of its own"):
            recon.Ensemble(make(half))
