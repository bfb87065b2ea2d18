"""The affine master law in full: every sampler that is affine on a Gaussian, under every solver that may walk it.

The dense forms are those of the samplers' own tests, where they are also held against moment recursions.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from dense_forms import AFFINE, CG, PATHS, DenseGuided, DensePath, DenseSTSL
from measurements import GRID, measured, world_of
from tables import SOLVERS, crossed, under
from worlds import GaussianWorld, Injected, affine_walk, dense, flat, last, random, unflat

from recon import Problem
from recon.errors import ConfigError
from recon.noise import Noise
from recon.posteriors import DAPS, MCG, STSL, Posterior, REDDiff
from recon.posteriors.shared.loops import inner_levels
from recon.solvers import Solver
from recon.walk import walk

STEPS = 0.07  # STSL's lam


def stsl(init: str):
    return (
        lambda world, problem: STSL(world, problem, lam=STEPS, inner=2, init=init, trace_weight="bound"),
        lambda world, problem: DenseSTSL(world, problem, STEPS, 2, GRID if init == "inversion" else None),
    )


# name -> (the sampler, its dense form), of prior and problem
PAIRS = {
    **{kind: (make, lambda *a, kind=kind: DenseGuided(*a, kind)) for kind, make in AFFINE.items()},
    **{
        kind: (PATHS[kind], lambda *a, kind=kind: DensePath(*a, kind))
        for kind in ("ddnm", "ddnm, noise", "diffpir")
    },
    "mcg, score": (
        lambda *a: MCG(*a, form="score", zeta=0.3, steps=8),
        lambda *a: DenseGuided(*a, "mcg, score"),
    ),
    "stsl": stsl("inversion"),
    "stsl, from noise": stsl("noise"),
}


def agree(sampler, form, solver: str, world: GaussianWorld, problem: Problem) -> None:
    """One law; or one walk, where the solver itself is not affine."""
    row, of = SOLVERS[solver], (GRID, world.domain, world.is_complex)
    if "nonlinear" in row.laws:
        x = unflat(9.0 * random(3, len(world.mean), seed=2), world.domain, world.is_complex)
        ends = [
            last(s.given(problem.repeated(3)).run(row.make(), GRID, x, Noise(0, range(3)))).x
            for s in (sampler, form)
        ]
        torch.testing.assert_close(ends[0], ends[1], rtol=1e-9, atol=1e-9)
        return
    found, wanted = affine_walk(sampler, row.make(), *of), affine_walk(form, row.make(), *of)
    n, nothing = len(world.mean), torch.zeros(len(world.mean), dtype=torch.float64)
    scale = max(1.0, float(wanted.matrix.abs().max()))
    torch.testing.assert_close(found.matrix / scale, wanted.matrix / scale, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.offset / scale, wanted.offset / scale, rtol=1e-9, atol=1e-9)
    spread = [law.moments(nothing, torch.zeros(n, n).double())[1] for law in (found, wanted)]
    scale = max(1.0, float(spread[1].abs().max()))
    torch.testing.assert_close(spread[0] / scale, spread[1] / scale, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore:STSL moves")
@pytest.mark.parametrize("name, solver", crossed(PAIRS, ()))
def test_the_law_is_that_of_the_dense_form(name, solver):
    """Mean map and covariance to 1e-9; a pair that is refused says so."""
    problem = measured("dense")
    world = world_of(problem.A)
    sampler, form = (make(world, problem) for make in PAIRS[name])
    made = SOLVERS[solver].make()
    try:
        sampler.pair(made)
    except ConfigError as refusal:
        assert made.warmup and "Runge-Kutta" in refusal.why
        return
    agree(sampler, form, solver, world, problem)


@pytest.mark.parametrize("name, solver", crossed(["mmps", "ddnm"], ()))
def test_complex_coils_too(name, solver):
    problem = measured("MRI")
    world = world_of(problem.A)
    sampler, form = (make(world, problem) for make in PAIRS[name])
    agree(sampler, form, solver, world, problem)


# --- samplers with a flow inside ---------------------------------------------------------------------------


def flow_law(world: GaussianWorld, solver: Solver, sigma: float):
    return affine_walk(Posterior(world), solver, inner_levels(world, 4, sigma), world.domain)


def fits(sampler, solver: Solver) -> bool:
    """Whether it may walk inside four steps."""
    try:
        sampler.pair(solver)
    except ConfigError as refusal:
        assert "adds noise" in refusal.what or "order" in refusal.why
        return False
    return True


@pytest.mark.parametrize("solver", under(lambda row: not row.stochastic))
def test_daps_under_every_flow(solver):
    """``x0 = S (xhat / r^2 + A^H y / tau^2) + S^(1/2) z``, xhat the end of the solver's own flow."""
    problem, make = measured("dense"), SOLVERS[solver].make
    world, matrix, eye = world_of(problem.A), dense(problem.A), torch.eye(4, dtype=torch.float64)
    sampler = DAPS(world, problem, kernel="gaussian", ode_steps=4, **CG)
    if not fits(sampler, make()):
        return
    mean, covariance = torch.zeros(4, dtype=torch.float64), GRID[0] ** 2 * eye
    for s, t in pairwise(GRID):
        inner = flow_law(world, make(), s)
        S = torch.linalg.inv(matrix.T @ matrix / problem.sigma**2 + eye / s**2)
        B = S @ inner.matrix / s**2
        b = S @ (inner.offset / s**2 + matrix.T @ flat(problem.y)[0] / problem.sigma**2)
        mean, covariance = B @ mean + b, B @ covariance @ B.T + S + t * t * eye
    law = affine_walk(sampler, make(), GRID, world.domain)
    found = law.moments(torch.zeros_like(mean), GRID[0] ** 2 * eye)
    torch.testing.assert_close(found[0], mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found[1], covariance, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("solver", under(lambda row: not row.stochastic))
def test_reddiff_under_every_flow(solver):
    """``mu' = mu - lr (v A^H (A mu - y) + w s (mu - F (mu + s eps)) / s)`` by gradient descent."""
    problem, make = measured("dense"), SOLVERS[solver].make
    world, matrix, eye = world_of(problem.A), dense(problem.A), torch.eye(4, dtype=torch.float64)
    sampler = REDDiff(world, problem, flow=4, optimizer="sgd", lr=0.05, obs_weight=0.3, init="zeros")
    if not fits(sampler, make()):
        return
    mean, noises = torch.zeros(4, dtype=torch.float64), []
    for s, _ in pairwise(GRID):
        inner, share = flow_law(world, make(), s), 0.05 * 0.25
        kept = eye - 0.05 * 0.3 * matrix.T @ matrix - share * (eye - inner.matrix)
        mean = kept @ mean + 0.05 * 0.3 * matrix.T @ flat(problem.y)[0] + share * inner.offset
        noises = [kept @ one for one in noises] + [share * s * inner.matrix]
    law = affine_walk(sampler, make(), GRID, world.domain)
    torch.testing.assert_close(law.offset, mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(law.noises, torch.stack(noises), rtol=1e-9, atol=1e-9)


def test_a_prior_walk_is_not_touched_by_its_problem():
    """Negative control: the unconditional sampler's law holds nothing of y."""
    problem = measured("dense")
    world, solver = world_of(problem.A), SOLVERS["heun"].make()
    laws = [affine_walk(Posterior(world, p), solver, GRID, (4,)) for p in (problem, None)]
    assert torch.equal(laws[0].matrix, laws[1].matrix) and torch.equal(laws[0].offset, laws[1].offset)
    x = random(1, 4)
    end = last(walk(Posterior(world), solver, GRID, x, Injected())).x
    torch.testing.assert_close(end[0], laws[0].matrix @ x[0] + laws[0].offset, rtol=1e-9, atol=1e-9)
