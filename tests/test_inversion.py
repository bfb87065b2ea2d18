"""Ways back up: BDIA's is exact as far as rounding lets it, DDIM's is of first order. Numbers: spec of the solvers, 10.5."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from tables import SOLVERS
from worlds import (
    ANISOTROPIC,
    GaussianWorld,
    Matrix,
    identity_denoiser,
    isotropic,
    last,
    levels,
    random,
    random_levels,
    slopes,
    vp_scale,
)

import recon
from recon import grids
from recon.errors import ConfigError
from recon.inversion import bdia_inversion, ddim_inversion, estimating, retraced, rounding_growth
from recon.noise import Noise
from recon.posteriors import DDS, Posterior
from recon.solvers import BDIA, DDIM, DPM3, DPMpp, Euler, Heun
from recon.state import Estimate, State
from recon.walk import walk

INVERTIBLE = [pytest.param(row, id=label) for label, row in SOLVERS.items() if "invertible" in row.laws]


def diagonal(x, sigma):
    """The anisotropic Gaussian's denoiser, element by element, in the dtype of x."""
    c, m = ANISOTROPIC.covariance.diagonal().to(x.dtype), ANISOTROPIC.mean.to(x.dtype)
    return m + c / (c + sigma**2) * (x - m)


def start(sigma: float, dtype=torch.float64):
    spread = (ANISOTROPIC.covariance.diagonal() + sigma**2).sqrt()
    return (ANISOTROPIC.mean + torch.arange(-2.0, 3.0, dtype=torch.float64)[:, None] * spread).to(dtype)


def walked(solver, grid, x, posterior=None) -> list[State]:
    """The states of a walk at all levels of the grid, the start included."""
    posterior = Posterior(diagonal) if posterior is None else posterior
    return [State(x, grid[0]), *walk(posterior, solver, grid, x, Noise(0, range(len(x))))]


def as_vp(x, sigma: float):
    """The variance-preserving state ``a x``: of size one at every level."""
    return x / math.sqrt(1 + sigma**2)


def round_trip(solver, grid, dtype=torch.float64) -> tuple[float, float]:
    """Largest error over the states of the way back, and the largest state, both as VP states."""
    down = walked(solver, grid, start(grid[0], dtype))
    up = list(retraced(estimating(diagonal), down[-1], grid, solver))
    assert [state.sigma for state in up] == grid[::-1]
    errors = [float(as_vp(a.x - b.x, a.sigma).abs().max()) for a, b in zip(down, reversed(up), strict=True)]
    return max(errors), max(float(as_vp(a.x, a.sigma).abs().max()) for a in down)


# --- BDIA --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["t", "lam"])
@pytest.mark.parametrize("steps", [1, 2, 10, 50, 100])
def test_bdia_comes_back_to_where_it_started(kind, steps):
    grid = levels(kind, steps)
    error, _ = round_trip(BDIA(), grid)
    assert error <= 1e-13, error
    error, size = round_trip(BDIA(), grid, torch.float32)
    assert error <= 1e-6 * size, error


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [10, 20, 50, 100])
@pytest.mark.parametrize("row", INVERTIBLE)
def test_rounding_grows_as_said(row, steps, dtype):
    """``|error| <= 50 u gamma^-N |z|``."""
    solver = row.make()
    assert isinstance(solver, BDIA)
    for grid in (levels("t", steps), levels("lam", steps)):
        error, size = round_trip(solver, grid, dtype)
        assert error <= 50 * torch.finfo(dtype).eps * rounding_growth(solver.gamma, steps + 1) * size


@pytest.mark.parametrize("row", INVERTIBLE)
def test_every_state_is_found_again_on_an_irregular_grid(row):
    solver, grid = row.make(), random_levels(8, 4)
    error, size = round_trip(solver, grid)
    assert error <= 50 * torch.finfo(torch.float64).eps * rounding_growth(solver.gamma, 9) * size


def never(x, sigma):
    raise AssertionError("the network was called")


@pytest.mark.parametrize(
    ("gamma", "steps", "dtype"),
    [
        (0.5, 50, torch.float64),
        (0.5, 100, torch.float64),
        (0.5, 20, torch.float32),
        (0.9, 100, torch.float32),
    ],
)
def test_a_way_back_that_rounding_spoils_is_refused(gamma, steps, dtype):
    grid, solver = levels("t", steps), BDIA(gamma)
    end = walked(solver, grid, start(grid[0], dtype))[-1]
    with pytest.raises(ConfigError, match=r"gamma=1, fewer steps, or float64") as refused:
        bdia_inversion(never, end, grid, solver)
    assert str(dtype)[6:] in str(refused.value) and f"gamma={gamma:g}" in str(refused.value)


@pytest.mark.parametrize(
    ("gamma", "steps", "dtype"),
    [
        (1.0, 100, torch.float32),
        (0.5, 10, torch.float32),
        (0.5, 20, torch.float64),
        (0.9, 100, torch.float64),
    ],
)
def test_a_way_back_that_works_is_not_refused(gamma, steps, dtype):
    grid, solver = levels("t", steps), BDIA(gamma)
    down = walked(solver, grid, start(grid[0], dtype))
    noise = last(bdia_inversion(diagonal, down[-1], grid, solver)).x
    assert float(as_vp(noise - down[0].x, grid[0]).abs().max()) <= 1e-2


def test_without_the_refusal_the_way_back_is_lost():
    """gamma = .5 in float64: the error is .001 after 50 steps, and beyond 10^3 after 100."""
    assert round_trip(BDIA(0.5), levels("t", 50))[0] > 1e-4
    assert round_trip(BDIA(0.5), levels("t", 100))[0] > 1e3


def test_growth_is_that_of_the_two_step_moves():
    assert rounding_growth(0.5, 11) == 2.0**9
    assert rounding_growth(0.5, 2) == rounding_growth(0.5, 1) == rounding_growth(1.0, 1000) == 1.0


def test_one_call_a_level_and_none_at_the_ends():
    asked = []

    def counting(x, sigma):
        asked.append(sigma)
        return diagonal(x, sigma)

    grid = levels("lam", 7)
    end = walked(BDIA(), grid, start(grid[0]))[-1]
    assert len(list(bdia_inversion(counting, end, grid))) == 8
    assert asked == grid[-2:0:-1]


def test_a_walk_to_zero_goes_back_from_its_last_positive_level():
    grid, x = grids.karras(12, 20.0, 0.05), start(20.0)
    states = walked(BDIA(), grid, x)
    assert states[-1].past == () and grid[-1] == 0
    noise = last(bdia_inversion(diagonal, states[-2], grid)).x
    torch.testing.assert_close(noise, x, rtol=0, atol=1e-12)
    with pytest.raises(ConfigError, match="not the end of a walk"):
        bdia_inversion(never, states[-1], grid)


@pytest.mark.parametrize(
    "changed",
    [
        lambda s, grid: (State(s.x, s.sigma), grid),  # an edit clears the past
        lambda s, grid: (s, grid[:-1]),  # another end
        lambda s, grid: (s, [*grid[:-2], grid[-1]]),  # another way there
    ],
    ids=["past cleared", "other end", "other way"],
)
def test_a_state_that_is_not_the_end_of_the_walk_is_refused(changed):
    grid = levels("lam", 6)
    end = walked(BDIA(), grid, start(grid[0]))[-1]
    with pytest.raises(ConfigError, match="not the end of a walk with BDIA"):
        bdia_inversion(never, *changed(end, grid))


def small_problem(world: GaussianWorld):
    A = Matrix(random(3, 4, seed=2))
    return recon.Problem(A, A(random(1, 4, seed=3)).expand(2, 3), sigma=0.1)


def test_bdia_goes_back_through_a_posterior_that_keeps_the_state():
    """DDS with ``keep="state"`` is a deterministic function of (x, sigma), so its walk can be retraced."""
    world = isotropic((4,), 0.5)
    sampler = DDS(world, small_problem(world), steps=6, keep="state", tol=0.0)
    grid, x = grids.karras(20, 20.0, 0.05), 20 * random(2, 4, seed=6)
    states = walked(BDIA(), grid, x, sampler)
    noise = last(bdia_inversion(sampler.denoise, states[-2], grid)).x
    torch.testing.assert_close(noise, x, rtol=0, atol=1e-11)


def test_bdia_does_not_go_back_through_a_posterior_that_moves_the_point():
    world = isotropic((4,), 0.5)
    sampler = DDS(world, small_problem(world), keep="noise")
    grid = grids.karras(6, 20.0, 0.05)
    states = walked(BDIA(), grid, 20 * random(2, 4, seed=6), sampler)
    with pytest.raises(ConfigError, match='keep="state"'):
        list(bdia_inversion(sampler.denoise, states[-2], grid))


def test_complex_states_come_back():
    def shrunk(x, sigma):
        return x / (1 + sigma**2)

    grid = levels("lam", 9)
    x = grid[0] * torch.complex(random(2, 3, seed=1), random(2, 3, seed=2))
    end = walked(BDIA(), grid, x, Posterior(shrunk))[-1]
    torch.testing.assert_close(last(bdia_inversion(shrunk, end, grid)).x, x, rtol=1e-14, atol=0)


def test_one_level_is_its_own_noise():
    state = State(random(2, 3), 0.5)
    assert [s.x is state.x for s in bdia_inversion(never, state, [0.5, 0.0])] == [True]
    assert [s.x is state.x for s in ddim_inversion(never, state.x, [0.5, 0.0])] == [True]


@pytest.mark.parametrize("bad", [[0.0], [], [1.0, 1.0, 0.0], [0.5, 1.0]])
def test_grids_that_cannot_be_walked_back(bad):
    with pytest.raises(ConfigError, match="cannot be walked back"):
        ddim_inversion(never, random(1, 3), bad)


# --- DDIM inversion ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("solver", "order"),
    [(None, 1), (DDIM(0.0), 1), (Heun(), 2), (DPMpp(rule="midpoint"), 2), (DPM3(), 3)],
    ids=["default", "ddim", "heun", "2m", "dpm3"],
)
def test_the_order_upwards_is_the_order_downwards(solver, order):
    """Error against the exact flow, from t = .05 up to .9, as VP states."""
    errors = []
    for steps in (32, 64, 128):
        grid = levels("lam", steps)
        x = start(grid[-1])
        noise = last(ddim_inversion(diagonal, x, [*grid, 0.0], solver)).x
        errors.append(vp_scale(0.9) * float((noise - ANISOTROPIC.flow(x, grid[-1], grid[0])).abs().max()))
    assert order - 0.15 <= slopes(errors)[-1] <= order + 0.35, errors


def test_ddim_down_and_up_is_wrong_to_first_order():
    errors = []
    for steps in (64, 128, 256):
        grid = levels("lam", steps)
        down = walked(Euler(), grid, start(grid[0]))
        up = last(ddim_inversion(diagonal, down[-1].x, grid)).x
        errors.append(vp_scale(0.9) * float((up - down[0].x).abs().max()))
    assert 0.85 <= slopes(errors)[-1] <= 1.15, errors


def test_heun_down_and_up():
    grid = levels("t", 256)
    down = walked(Heun(), grid, start(grid[0]))
    up = last(ddim_inversion(diagonal, down[-1].x, grid, Heun())).x
    assert vp_scale(0.9) * float((up - down[0].x).abs().max()) <= 2e-4


def test_states_rise_through_the_levels():
    grid = [*levels("lam", 5), 0.0]
    x = start(grid[-2])
    states = list(ddim_inversion(diagonal, x, grid))
    assert [s.sigma for s in states] == grid[-2::-1] and states[0].x is x
    for lower, upper in pairwise(states):
        eps = (lower.x - diagonal(lower.x, lower.sigma)) / lower.sigma
        torch.testing.assert_close(
            upper.x, lower.x + (upper.sigma - lower.sigma) * eps, rtol=1e-13, atol=1e-13
        )


def test_an_estimate_and_an_image_are_both_understood():
    grid, x = levels("lam", 4), start(0.5)
    bare = last(ddim_inversion(diagonal, x, grid)).x
    assert torch.equal(bare, last(ddim_inversion(identity_denoiser(diagonal), x, grid)).x)
    assert isinstance(estimating(diagonal)(x, 1.0), Estimate)


def test_noise_has_no_way_back():
    with pytest.raises(ConfigError, match="adds noise"):
        ddim_inversion(never, random(1, 3), [1.0, 0.5], DDIM(eta=1.0))
