"""The laws of the samplers: on a Gaussian prior each is an affine map whose exact output law is linear algebra."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import pytest
import torch
from measurements import GRID, MASK, MEASURED, SCALAR, measured, world_of
from tables import POSTERIORS, SOLVERS, PosteriorRow, SolverRow, crossed
from worlds import (
    BIMODAL,
    CORRELATED,
    GaussianWorld,
    Injected,
    Matrix,
    MixtureWorld,
    affine_walk,
    dense,
    flat,
    isotropic,
    last,
    random,
    random_complex,
    random_levels,
    slopes,
    unflat,
)

import operators as op
import recon
from operators.mri import MRI
from recon import Problem, grids
from recon.errors import ConfigError
from recon.noise import Noise
from recon.posteriors import DAPS, DDS, Active, Ensemble, Posterior, REDDiff, constant, matched
from recon.priors import Prior
from recon.solvers import DDPM, DPMpp, Euler, Heun, Renoise
from recon.solvers.base import least_steps
from recon.state import Estimate
from recon.walk import walk


def setting(row: PosteriorRow, name: str) -> tuple[GaussianWorld, Problem, GaussianWorld]:
    """Prior, problem, and the law the row claims to be exact for."""
    problem = measured(name)
    if row.exact == "prior":
        world = world_of(problem.A)
        return world, problem, world
    world = world_of(problem.A, 0.7)
    return world, problem, world.posterior(problem.A, problem.y, problem.sigma)


class DenseDDS(Posterior):
    """DDS by inverted dense matrices: ``x0 = Q (D + gamma A^H y)``, ``Q = (I + gamma A^H A)^-1``, noise kept."""

    def __init__(self, world: GaussianWorld, problem: Problem, gamma: float):
        super().__init__(world)
        matrix = dense(problem.A)
        self.Q = torch.linalg.inv(torch.eye(matrix.shape[1], dtype=torch.float64) + gamma * matrix.T @ matrix)
        self.pull = gamma * matrix.T @ flat(problem.y)[0]
        self.world = world

    def denoise(self, x, sigma, memo=None):
        D = self.world(x, sigma)
        x0 = unflat((flat(D) + self.pull) @ self.Q, self.world.domain, self.world.is_complex)
        return Estimate(x0, (x - D) / sigma, D, consistent=False)


def rows(table, keep=lambda row: True):
    return [pytest.param(row, id=label) for label, row in table.items() if keep(row)]


# --- the table itself --------------------------------------------------------------------------------------


def test_every_registered_posterior_is_a_row():
    assert {row.name for row in POSTERIORS.values()} == set(recon.POSTERIORS)


@pytest.mark.parametrize("row", rows(POSTERIORS))
def test_declarations(row: PosteriorRow):
    problem = measured("dense")
    sampler = row.make(world_of(problem.A), problem)
    assert type(sampler) is type(recon.POSTERIORS[row.name](world_of(problem.A), problem=problem))
    assert (sampler.calls, sampler.level_calls) == (row.calls, row.level_calls)
    assert sampler.given(problem).problem is problem and type(sampler.given(problem)) is type(sampler)


# --- exactness ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", rows(POSTERIORS, lambda row: row.exact))
@pytest.mark.parametrize("name", MEASURED)
def test_the_estimate_is_the_conditional_mean(row: PosteriorRow, name):
    """In the row's setting ``x0 = E[x0 | x, y]`` at every level, and ``x = x0 + s eps``."""
    world, problem, target = setting(row, name)
    x = unflat(random(5, len(world.mean)), world.domain, world.is_complex)
    sampler = row.make(world, problem.repeated(5))
    for sigma in (30.0, 2.0, 0.3, 0.01):
        est = sampler.denoise(sigma * x, sigma)
        torch.testing.assert_close(est.x0, target(sigma * x, sigma), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(est.x0 + sigma * est.eps, sigma * x, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(est.prior, world(sigma * x, sigma), rtol=1e-12, atol=1e-12)
        assert est.consistent


EXACT = [
    (name, label)
    for name in ("inpainting", "dense", "dense, complex")
    for label, row in POSTERIORS.items()
    if row.exact
]
WHOLE = [("dense", "prior"), ("dense", "dds, matched, keep state")]


@pytest.mark.parametrize("where, solver", crossed(EXACT, WHOLE, lambda row: row.weak_order))
def test_laws_converge_to_the_posterior_with_the_solvers_order(where, solver):
    """Mean and covariance at sigma = .1, from the exact ones at sigma = 10, against the exact ones there."""
    name, row, solver = where[0], POSTERIORS[where[1]], SOLVERS[solver]
    world, problem, target = setting(row, name)
    errors = []
    for n in (solver.settled, 2 * solver.settled):
        grid = [10 * (0.1 / 10) ** (i / n) for i in range(n + 1)]
        law = affine_walk(row.make(world, problem), solver.make(), grid, world.domain, world.is_complex)
        mean, covariance = law.moments(target.mean, target.marginal(grid[0]))
        if solver.mean_exact:
            torch.testing.assert_close(mean, target.mean, rtol=0, atol=1e-8)
        errors.append(float((covariance - target.marginal(grid[-1])).abs().max()))
    assert solver.weak_order is not None
    assert slopes(errors)[-1] >= solver.weak_order - 0.15, errors


@pytest.mark.parametrize("where, solver", crossed(EXACT, WHOLE, lambda row: row.order))
def test_paths_converge_to_the_posteriors_flow_with_the_solvers_order(where, solver):
    """From sigma = 10 to .3, against the exact flow; multistep methods primed with exact points."""
    name, row, solver = where[0], POSTERIORS[where[1]], SOLVERS[solver]
    world, problem, target = setting(row, name)
    start = unflat(10 * random(4, len(world.mean), seed=2), world.domain, world.is_complex)
    sampler = row.make(world, None if problem is None else problem.repeated(len(start)))
    made, errors = solver.make(), []
    for n in (64, 128):
        grid = [10 * (0.3 / 10) ** (i / n) for i in range(n + 1)]
        x, past = start, ()
        for index, (s, t) in enumerate(pairwise(grid)):
            x = target.flow(start, grid[0], s) if index < solver.prime else x
            step = made.step(sampler.denoise, x, s, t, past, Injected().at(0))
            x, past = step.mean, step.past
        errors.append(float((x - target.flow(start, grid[0], grid[-1])).abs().max()))
    assert solver.order is not None
    assert slopes(errors)[0] >= solver.order - (0.25 if solver.order == 4 else 0.15), errors


# --- DDS: the affine master law ----------------------------------------------------------------------------


@pytest.mark.parametrize("solver", rows(SOLVERS, lambda row: row.level))
@pytest.mark.parametrize("name", MEASURED)
def test_dds_follows_its_moment_recursion(name, solver: SolverRow):
    """One-step solvers, keep="noise": ``B = Q K + r (I - K)``, ``c = Q ((I - K) m + gamma A^H y) - r (I - K) m``,
    ``r = sqrt(t^2 - q^2) / s``, noise q; mean and covariance of the whole walk to 1e-9.
    """
    problem, gamma = measured(name), 1.7
    world = world_of(problem.A)
    eye = torch.eye(len(world.mean), dtype=torch.float64)
    matrix = dense(problem.A)
    Q = torch.linalg.inv(eye + gamma * matrix.T @ matrix)
    pull = gamma * matrix.T @ flat(problem.y)[0]
    mean, covariance = torch.zeros_like(world.mean), GRID[0] ** 2 * eye
    for s, t in pairwise(GRID):
        q = solver.level(s, t) if t > 0 else 0.0
        r, rest = math.sqrt(t * t - q * q) / s, eye - world.gain(s)
        B = Q @ world.gain(s) + r * rest
        mean = B @ mean + Q @ (rest @ world.mean + pull) - r * rest @ world.mean
        covariance = B @ covariance @ B.T + q * q * eye
    sampler = DDS(world, problem, weight=constant(gamma), steps=12, tol=0.0)
    law = affine_walk(sampler, solver.make(), GRID, world.domain, world.is_complex)
    found = law.moments(torch.zeros_like(mean), GRID[0] ** 2 * eye)
    torch.testing.assert_close(found[0], mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found[1], covariance, rtol=1e-9, atol=1e-9)


def test_dds_follows_its_moment_recursion_under_heun():
    """The second stage gives the network's noise at the corrected Euler point, and nothing else."""
    problem, gamma = measured("dense"), 1.7
    world, eye = world_of(problem.A), torch.eye(4, dtype=torch.float64)
    matrix = dense(problem.A)
    Q = torch.linalg.inv(eye + gamma * matrix.T @ matrix)
    pull = gamma * matrix.T @ flat(problem.y)[0]
    M, c = eye, torch.zeros(4, dtype=torch.float64)
    for s, t in pairwise(GRID):
        rest = eye - world.gain(s)  # s eps = rest (x - m)
        clean = (Q @ world.gain(s), Q @ (rest @ world.mean + pull))
        stage = (clean[0] + t / s * rest, clean[1] - t / s * rest @ world.mean)
        B, b = stage
        if t > 0:
            second = (eye - world.gain(t)) / t
            slope = (rest / s + second @ stage[0], second @ (stage[1] - world.mean) - rest / s @ world.mean)
            B = clean[0] + rest + (t - s) / 2 * slope[0]
            b = clean[1] - rest @ world.mean + (t - s) / 2 * slope[1]
        M, c = B @ M, B @ c + b
    sampler = DDS(world, problem, weight=constant(gamma), steps=12, tol=0.0)
    law = affine_walk(sampler, Heun(), GRID, world.domain)
    torch.testing.assert_close(law.matrix, M, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(law.offset, c, rtol=1e-9, atol=1e-9)


def test_dds_follows_its_recursion_under_a_multistep_solver():
    """2M: the prior's estimates are extrapolated, the correction enters once, through the base point."""
    problem, gamma = measured("dense"), 1.7
    world, eye = world_of(problem.A), torch.eye(4, dtype=torch.float64)
    matrix = dense(problem.A)
    Q = torch.linalg.inv(eye + gamma * matrix.T @ matrix)
    pull = gamma * matrix.T @ flat(problem.y)[0]
    M, c, before = eye, torch.zeros(4, dtype=torch.float64), None
    for s, t in pairwise(GRID):
        K = world.gain(s)
        D = (K @ M, K @ c + (eye - K) @ world.mean)
        correction = ((Q - eye) @ D[0], (Q - eye) @ D[1] + Q @ pull)
        step = [t / s * (M + correction[0]) + (1 - t / s) * (D[0] + correction[0]),
                t / s * (c + correction[1]) + (1 - t / s) * (D[1] + correction[1])]  # fmt: skip
        if before is not None and t > 0:
            (M_old, c_old), s_old = before
            r = math.log(s_old / s) / math.log(s / t)
            step[0] = step[0] + (1 - t / s) / (2 * r) * (D[0] - M_old)
            step[1] = step[1] + (1 - t / s) / (2 * r) * (D[1] - c_old)
        before, (M, c) = (D, s), step
    sampler = DDS(world, problem, weight=constant(gamma), steps=12, tol=0.0)
    law = affine_walk(sampler, DPMpp(rule="midpoint"), GRID, world.domain)
    torch.testing.assert_close(law.matrix, M, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(law.offset, c, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name, solver", crossed(MEASURED, ["dense"]))
def test_dds_is_its_dense_form_under_every_solver(name, solver):
    problem, gamma, solver = measured(name), 0.6, SOLVERS[solver]
    world = world_of(problem.A)
    sampler = DDS(world, problem, weight=constant(gamma), steps=12, tol=0.0)
    form = DenseDDS(world, problem, gamma)
    if "nonlinear" in solver.laws:  # no affine map to read off: the walk itself
        x = unflat(10 * random(3, len(world.mean), seed=2), world.domain, world.is_complex)
        found, wanted = (
            last(walk(s.given(problem.repeated(3)), solver.make(), GRID, x, Noise(0, range(3)))).x
            for s in (sampler, form)
        )
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
        return
    law = affine_walk(sampler, solver.make(), GRID, world.domain, world.is_complex)
    expected = affine_walk(form, solver.make(), GRID, world.domain, world.is_complex)
    for found, wanted in zip(law, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


# --- DDS: golden numbers, bias, structure ------------------------------------------------------------------


def scalar_law(solver, n: int, **options) -> tuple[float, float]:
    """Prior N(0, 1), A = 1, sigma_y = .5, y = 1; from N(0, 80^2) on n Karras levels, then 0."""
    problem = Problem(op.Identity((1,)), torch.ones(1, 1, dtype=torch.float64), 0.5)
    law = affine_walk(DDS(SCALAR, problem, **options), solver, grids.karras(n), (1,))
    mean, variance = law.moments(
        torch.zeros(1, dtype=torch.float64), 6400 * torch.eye(1, dtype=torch.float64)
    )
    return float(mean), float(variance)


@pytest.mark.parametrize(
    "solver, n, mean, variance",
    [
        (Euler(), 25, 0.7960, 0.1572),
        (Euler(), 50, 0.7958, 0.1778),
        (Euler(), 100, 0.7957, 0.1887),
        (Euler(), 400, 0.7956, 0.1971),
        (Heun(), 10, 0.7945, 0.3006),
        (Heun(), 18, 0.7953, 0.2235),
        (Heun(), 25, 0.7954, 0.2112),
        (Heun(), 50, 0.7955, 0.2025),
    ],
)
def test_matched_dds_has_the_golden_moments(solver, n, mean, variance):
    """Exact posterior N(.8, .2); the mean misses .8 by ``.8 std / 80``, what N(0, 80^2) leaves out at the start."""
    found = scalar_law(solver, n, keep="state")
    assert found == pytest.approx((mean, variance), abs=5.1e-5)


def test_matched_dds_with_many_steps_is_exact_but_for_the_start():
    mean, variance = scalar_law(Heun(), 800, keep="state")
    assert mean == pytest.approx(0.8 - 0.8 * math.sqrt(0.2) / 80, abs=1e-4)
    assert variance == pytest.approx(0.2, abs=1e-4)


@pytest.mark.parametrize(
    "eta, mean, variance, digits", [(0.0, 1.00002, 6e-13, 5e-14), (0.85, 0.99998, 1.9e-6, 5e-8)]
)
def test_paper_dds_has_the_golden_moments(eta, mean, variance, digits):
    """gamma = 1, 50 steps: the noisy measurement itself, variance gone."""
    found = scalar_law(Renoise(eta), 50, weight=constant(1.0))
    assert found[0] == pytest.approx(mean, abs=5.1e-6)
    assert found[1] == pytest.approx(variance, abs=digits)


@pytest.mark.parametrize("eta", [0.0, 0.85])
def test_fixed_gamma_overfits_the_noise_more_with_every_step(eta):
    """The pull is a share a step: residual and variance in the measured subspace go to 0, there is no limit."""
    problem, world = measured("inpainting"), GaussianWorld(CORRELATED.mean, CORRELATED.covariance, (1, 2, 2))
    residuals, spreads = [], []
    for n in (12, 25, 50, 100):
        sampler = DDS(world, problem, weight=constant(1.0), steps=4, tol=0.0)
        law = affine_walk(sampler, Renoise(eta), grids.karras(n), world.domain)
        mean, covariance = law.moments(
            torch.zeros(4, dtype=torch.float64), 6400 * torch.eye(4, dtype=torch.float64)
        )
        difference = problem.A.forward(mean.reshape(1, 1, 2, 2)) - problem.y
        residuals.append(float(difference.norm()) / (problem.sigma * math.sqrt(2)))
        seen = MASK.flatten() > 0
        spreads.append(float(covariance.diagonal()[seen].max()))
    assert all(b < a for a, b in pairwise(residuals)) and residuals[-2] < 0.005, residuals
    assert all(b < a for a, b in pairwise(spreads)) and spreads[-2] < 1e-4, spreads
    exact = world.posterior(problem.A, problem.y, problem.sigma)
    assert float(exact.covariance.diagonal()[seen].min()) > 0.02


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("weight", [0.0, 0.8], ids=["noiseless", "noisy"])
@pytest.mark.parametrize("name", MEASURED)
def test_dds_leaves_the_null_space_alone(name, weight, steps):
    problem = measured(name)
    world = world_of(problem.A)
    x = unflat(random(3, len(world.mean)), world.domain, world.is_complex)
    est = DDS(world, problem.repeated(3), weight=weight, steps=steps).denoise(x, 1.3)
    matrix = dense(problem.A)
    null = torch.eye(matrix.shape[1], dtype=torch.float64) - torch.linalg.pinv(matrix) @ matrix
    assert float((flat(est.x0 - est.prior) @ null).abs().max()) <= 1e-12
    assert float((est.x0 - est.prior).abs().max()) > 1e-3


@pytest.mark.parametrize("name", MEASURED)
def test_cg_is_exact_after_as_many_steps_as_the_rank(name):
    problem, gamma = measured(name), 1.7
    world = world_of(problem.A)
    x = unflat(random(3, len(world.mean)), world.domain, world.is_complex)
    rank = int(torch.linalg.matrix_rank(dense(problem.A)))
    rank += 1 if problem.A.complex_domain else 0  # pairs of equal eigenvalues, rounding
    est = DDS(world, problem.repeated(3), weight=constant(gamma), steps=rank, tol=0.0).denoise(x, 1.3)
    expected = DenseDDS(world, problem, gamma).denoise(x, 1.3)
    torch.testing.assert_close(est.x0, expected.x0, rtol=0, atol=1e-10)


@pytest.mark.parametrize("solver", rows(SOLVERS))
def test_noiseless_single_coil_mri_ends_on_its_measurements(solver: SolverRow):
    """``M F x0 = y``; without noise the weight is 0 and one CG step is exact, since ``A^H A`` is a projection."""
    A = MRI(torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0], dtype=torch.float64), shape=(4, 6))
    y = A.forward(random_complex(1, *A.domain, seed=2))
    world = isotropic(tuple(A.domain), 0.5, True)
    sampler = DDS(world, Problem(A, y).repeated(2), steps=1)
    x = 9.0 * random_complex(2, *A.domain, seed=3)
    state = last(walk(sampler, solver.make(), GRID, x, Noise(0, (0,), 2)))
    torch.testing.assert_close(A.forward(state.x), y.expand(2, -1, -1, -1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("row", rows(POSTERIORS))
def test_a_row_does_not_depend_on_its_batch(row: PosteriorRow):
    """Three images of very different scales together, and each alone: step sizes and stopping are per sample."""
    A = MEASURED["dense"]()
    y = random(3, 3, seed=5) * torch.tensor([[1e-3], [1.0], [1e3]], dtype=torch.float64)
    world, x = world_of(A), 9.0 * random(3, 4, seed=6)
    together = row.make(world, Problem(A, y, 0.1)).run(DPMpp(rule="midpoint"), GRID, x, Noise(0, range(3)))
    together = last(together).x
    for i in range(3):
        alone = row.make(world, Problem(A, y[i : i + 1], 0.1))
        state = last(alone.run(DPMpp(rule="midpoint"), GRID, x[i : i + 1], Noise(0, (i,))))
        torch.testing.assert_close(together[i : i + 1], state.x, rtol=1e-12, atol=1e-12)


def test_unconverged_cg_has_step_sizes_a_sample():
    """Two CG steps of many: where a global inner product would show."""
    A = Matrix(random(6, 6, seed=12))
    y = random(3, 6, seed=13) * torch.tensor([[1e-2], [1.0], [1e2]], dtype=torch.float64)
    world, x = world_of(A), random(3, 6, seed=14)
    together = DDS(world, Problem(A, y, 0.1), steps=2).denoise(x, 0.5)
    converged = DDS(world, Problem(A, y, 0.1), steps=50, tol=0.0).denoise(x, 0.5)
    assert float((together.x0 - converged.x0).abs().min(0).values.max()) > 1e-2
    for i in range(3):
        alone = DDS(world, Problem(A, y[i : i + 1], 0.1), steps=2).denoise(x[i : i + 1], 0.5)
        torch.testing.assert_close(together.x0[i : i + 1], alone.x0, rtol=1e-12, atol=1e-12)


def test_weights():
    assert constant(4.0)(123.0) == 0.25
    s, v, sigma_y = 0.7, 0.3, 0.2
    assert matched(sigma_y, v)(s) == pytest.approx(sigma_y**2 * (s * s + v) / (s * s * v), rel=1e-14)
    problem = measured("dense")
    world = world_of(problem.A, 0.7)
    assert DDS(world, problem).lam(0.4) == pytest.approx(matched(0.3, 0.7)(0.4))  # the prior's own variance
    assert DDS(lambda x, sigma: x, problem).lam(0.4) == pytest.approx(matched(0.3, 1.0)(0.4))
    assert DDS(world, problem, weight=2.5).lam(0.4) == 2.5


@pytest.mark.parametrize("sampler, solver", crossed(POSTERIORS, ["prior", "dds"]))
def test_network_calls_are_counted(sampler, solver):
    """Solver evaluations times the sampler's calls, and its own at every level, whatever the number of samples and images."""
    row, solver = POSTERIORS[sampler], SOLVERS[solver]
    problem = measured("inpainting")
    twice = Problem(problem.A, problem.y.repeat(2, 1, 1, 1), problem.sigma)
    counted = []

    def prior(x, sigma):
        counted.append(len(x))
        return x / (1 + sigma**2)

    try:
        row.make(prior, None).pair(solver.make())
    except ConfigError as refusal:  # and sample refuses it before the first call
        with pytest.raises(ConfigError, match=re.escape(refusal.what)):
            recon.sample(twice, prior, row.make(prior, None), solver.make(), steps=5, samples=3)
        assert not counted
        return
    result = recon.sample(twice, prior, row.make(prior, None), solver.make(), steps=5, samples=3)
    own = row.calls * solver.make().calls(5) + 5 * row.level_calls  # five levels above zero
    expected = row.total(solver.make(), 5) if row.total else own
    assert result.network_calls == len(counted) == expected
    assert row.make(prior, None).network_calls(solver.make(), 5) == expected
    assert set(counted) == {6}


@pytest.mark.parametrize("row", rows(POSTERIORS))
@pytest.mark.parametrize("name", ["euler", "heun", "dpm++3m", "fpndm", "pc"])
def test_steps_for_a_budget_of_network_calls(row: PosteriorRow, name):
    """The most that fit: one more would not. Fewer than the solver's least are none."""
    sampler, solver = row.make(isotropic((4,), 1.0), None), SOLVERS[name].make()
    least = max(least_steps(solver), 1)
    fewest = sampler.network_calls(solver, least)
    for calls in (fewest, fewest + 1, fewest + 30, 157, 158, 200):
        steps = sampler.steps_for(solver, calls)
        assert steps >= least
        assert sampler.network_calls(solver, steps) <= calls < sampler.network_calls(solver, steps + 1)
    with pytest.raises(ConfigError, match="network calls"):
        sampler.steps_for(solver, fewest - 1)


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("end", [0.05, 0.1])
@pytest.mark.parametrize("inner", [lambda *a: DAPS(*a, langevin=2), lambda *a: REDDiff(*a, flow=4)])
def test_a_walk_inside_the_steps_ends_at_the_lowest_level_of_the_prior(inner, end, steps):
    """Where the last level is the prior's own lowest, a single call is left there."""
    problem, solver = measured("inpainting"), Heun() if steps > 1 else Euler()
    world = Prior(lambda x, sigma: x / (1 + sigma**2), sigma_min=0.05, sigma_max=20.0)
    grid = grids.karras(steps, 20.0, end)
    counted = recon.sample(problem, world, inner(world), solver, samples=1, grid=grid).network_calls
    assert inner(world).network_calls(solver, steps, grid[-2]) == counted
    if end == 0.05:
        assert inner(world).network_calls(solver, steps) == counted


@pytest.mark.parametrize("langevin", [0, 2])
def test_network_calls_of_samplers_around_samplers(langevin):
    problem = measured("inpainting")
    world, full = world_of(problem.A, 0.7), op.Inpainting(torch.ones_like(MASK))

    def around(problem):
        inner = Ensemble(DDS(world, problem, keep="state"), langevin=langevin, temper=0.0)
        return Active(inner, measure=lambda chosen: full.forward(torch.ones(1, 1, 2, 2)) * chosen, budget=3)

    result = recon.sample(problem, world, around(problem), DDPM(), steps=6, samples=4)
    assert around(problem).network_calls(DDPM(), 6) == result.network_calls == 6 + 5 * langevin
    with pytest.raises(ConfigError, match="restarts after"):
        around(problem).network_calls(SOLVERS["fpndm"].make(), 6)


# --- refusals, and the worlds themselves -------------------------------------------------------------------


def test_dds_refuses_what_it_cannot_solve():
    with pytest.raises(ConfigError, match="newton"):
        DDS(lambda x, sigma: x, newton=0)
    with pytest.raises(ConfigError, match="keep"):
        DDS(lambda x, sigma: x, keep="both")
    with pytest.raises(ConfigError, match="steps"):
        DDS(lambda x, sigma: x, steps=0)
    with pytest.raises(ConfigError, match="no problem"):
        DDS(lambda x, sigma: x).run(Euler(), GRID, torch.zeros(1, 4), Injected())


def test_the_worlds_agree_with_each_other():
    A = Matrix(random(2, 4, seed=50))
    problem = Problem(A, random(1, 2, seed=51), 0.4)
    world = CORRELATED
    target = world.posterior(A, problem.y, 0.4)
    x = random(3, 4, seed=52)
    # conditional mean at a level: D + R A^T (A R A^T + s_y^2)^-1 (y - A D), R = s^2 K
    s, matrix = 0.8, dense(A)
    R, D = s * s * world.gain(s), world(x, s)
    G = R @ matrix.T @ torch.linalg.inv(matrix @ R @ matrix.T + 0.4**2 * torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(target(x, s), D + (problem.y - D @ matrix.T) @ G.T, rtol=1e-10, atol=1e-10)
    # the flow solves dx/ds = (x - D) / s
    step = 1e-5
    rate = (world.flow(x, s, s + step) - world.flow(x, s, s - step)) / (2 * step)
    torch.testing.assert_close(rate, (x - D) / s, rtol=1e-8, atol=1e-8)
    # a mixture of one is a Gaussian
    one = MixtureWorld(torch.ones(1, dtype=torch.float64), world.mean[None], world.covariance[None])
    torch.testing.assert_close(one(x, s), D, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(one.posterior(A, problem.y, 0.4)(x, s), target(x, s), rtol=1e-10, atol=1e-10)


def test_the_mixtures_posterior_is_prior_times_likelihood():
    A, y, sigma_y = (
        Matrix(torch.tensor([[1.5]], dtype=torch.float64)),
        torch.tensor([[0.4]], dtype=torch.float64),
        0.7,
    )
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    likelihood = -((y - A.forward(x)) ** 2).sum(1) / (2 * sigma_y**2)
    evidence = BIMODAL.log_density(x, 0.0) + likelihood - BIMODAL.posterior(A, y, sigma_y).log_density(x, 0.0)
    torch.testing.assert_close(evidence, evidence[:1].expand(9), rtol=0, atol=1e-12)
    step, z = 1e-5, random_levels(3, 0)[1]
    rate = (BIMODAL.flow(x, z, z + step) - BIMODAL.flow(x, z, z - step)) / (2 * step)
    torch.testing.assert_close(rate, (x - BIMODAL(x, z)) / z, rtol=1e-6, atol=1e-6)
