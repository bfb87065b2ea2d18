"""Single-step, PNDM, momentum and BDIA methods against their papers' formulas, in the papers' own state z = a x."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from tables import SOLVERS
from worlds import (
    ANISOTROPIC,
    Injected,
    identity_denoiser,
    label,
    levels,
    random,
    random_levels,
    slopes,
    vp_scale,
)

import recon
from recon import solvers
from recon.errors import ConfigError
from recon.processes import VP, Cosine, Process
from recon.solvers import BDIA, DPM1, DPM2, DPM3, FPNDM, GHVB, HB, IPNDM, PNDM, Euler, Heun
from recon.solvers.momentum import ghvb_weights
from recon.solvers.pndm import ADAMS_BASHFORTH
from recon.solvers.quadrature import adams_weights
from recon.state import Estimate

NAMES = ("dpm1", "dpm2", "dpm3", "dpm++2s", "dpm++3s", "pndm", "fpndm", "ipndm", "ghvb", "hb", "bdia")
ROWS = [pytest.param(row, id=label) for label, row in SOLVERS.items() if row.name in NAMES]
SILENT = Injected()


def diagonal(x, sigma):
    c = ANISOTROPIC.covariance.diagonal()
    return ANISOTROPIC.mean + c / (c + sigma**2) * (x - ANISOTROPIC.mean)


SEE = identity_denoiser(diagonal)


def noise(x, sigma):
    return (x - diagonal(x, sigma)) / sigma


def scale(sigma):
    """a of the variance-preserving state; its s is ``a sigma``."""
    return 1 / math.sqrt(1 + sigma**2)


def walked(solver, grid, x, see=SEE):
    """All states of a bare walk, the start included."""
    states, past = [x], ()
    for s, t in pairwise(grid):
        step = solver.step(see, states[-1], s, t, past, SILENT.at(0))
        assert step.std == 0 and step.mean.dtype == x.dtype
        states.append(step.mean)
        past = step.past
    return states


def agree(one, other, atol=1e-12):
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


# --- single-step methods ---------------------------------------------------------------------------------


def test_dpm1_is_euler_and_dpm2_with_its_stage_at_the_end_is_heun():
    grid, x = random_levels(6, 1), random(3, 3)
    agree(walked(DPM1(), grid, x), walked(Euler(), grid, x), atol=0)
    agree(walked(DPM2(r1=1.0), grid, x), walked(Heun(), grid, x))


def dpm_solver_by_hand(stages, r1, r2, x, s, t):
    """Noise form in z = a x: Lu et al. 2022 (DPM-Solver), algorithms 1 and 2."""
    h = math.log(s / t)
    u, w = s * math.exp(-r1 * h), s * math.exp(-r2 * h)
    z, a, a_u, a_w, a_t = scale(s) * x, *map(scale, (s, u, w, t))
    e = noise(x, s)
    z_u = a_u / a * z - a_u * u * math.expm1(r1 * h) * e
    e_u = noise(z_u / a_u, u)
    if stages == 2:
        z_t = a_t / a * z - a_t * t * math.expm1(h) * (e + (e_u - e) / (2 * r1))
    else:
        H = r2 * h
        z_w = a_w / a * z - a_w * w * math.expm1(H) * e
        z_w = z_w - a_w * w * r2 / r1 * (math.expm1(H) / H - 1) * (e_u - e)
        e_w = noise(z_w / a_w, w)
        z_t = a_t / a * z - a_t * t * math.expm1(h) * e - a_t * t / r2 * (math.expm1(h) / h - 1) * (e_w - e)
    return z_t / a_t


def dpm_solver_pp_by_hand(stages, r1, r2, x, s, t):
    """Data form in z = a x, s_t = a sigma: Lu et al. 2022 (DPM-Solver++), algorithm 1 and its third order."""
    h = math.log(s / t)
    u, w = s * math.exp(-r1 * h), s * math.exp(-r2 * h)
    z, (a_u, a_w, a_t) = scale(s) * x, map(scale, (u, w, t))
    std = {level: scale(level) * level for level in (s, u, w, t)}
    D = diagonal(x, s)
    z_u = std[u] / std[s] * z - a_u * math.expm1(-r1 * h) * D
    D_u = diagonal(z_u / a_u, u)
    if stages == 2:
        z_t = std[t] / std[s] * z - a_t * math.expm1(-h) * (D + (D_u - D) / (2 * r1))
    else:
        H = r2 * h
        z_w = std[w] / std[s] * z - a_w * math.expm1(-H) * D
        z_w = z_w + a_w * r2 / r1 * (math.expm1(-H) / H + 1) * (D_u - D)
        D_w = diagonal(z_w / a_w, w)
        z_t = std[t] / std[s] * z - a_t * math.expm1(-h) * D
        z_t = z_t + a_t / r2 * (math.expm1(-h) / h + 1) * (D_w - D)
    return z_t / a_t


@pytest.mark.parametrize(
    ("solver", "by_hand", "shares"),
    [
        (DPM2(), dpm_solver_by_hand, (2, 0.5, 1.0)),
        (DPM2(r1=0.3), dpm_solver_by_hand, (2, 0.3, 1.0)),
        (DPM3(), dpm_solver_by_hand, (3, 1 / 3, 2 / 3)),
        (DPM3(r1=0.2, r2=0.9), dpm_solver_by_hand, (3, 0.2, 0.9)),
        (DPM2("data"), dpm_solver_pp_by_hand, (2, 0.5, 1.0)),
        (DPM2("data", r1=0.8), dpm_solver_pp_by_hand, (2, 0.8, 1.0)),
        (DPM3("data"), dpm_solver_pp_by_hand, (3, 1 / 3, 2 / 3)),
        (DPM3("data", r1=0.4, r2=0.5), dpm_solver_pp_by_hand, (3, 0.4, 0.5)),
    ],
    ids=label,
)
def test_single_steps_are_those_of_the_papers(solver, by_hand, shares):
    x = random(4, 3, seed=2)
    for s, t in pairwise(random_levels(6, 3)):
        step = solver.step(SEE, x, s, t, (), SILENT.at(0))
        torch.testing.assert_close(step.mean, by_hand(*shares, x, s, t), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda: DPM2(r1=0.0),
        lambda: DPM2(r1=1.5),
        lambda: DPM3(r1=0.7, r2=0.6),
        lambda: DPM3(r2=1.1),
        lambda: DPM2(form="v"),
        lambda: IPNDM(nodes=0),
        lambda: IPNDM(nodes=6),
        lambda: GHVB(beta=0.0),
        lambda: HB(beta=1.2),
        lambda: GHVB(nodes=9),
        lambda: BDIA(gamma=0.0),
        lambda: BDIA(gamma=1.1),
    ],
)
def test_options_out_of_range_are_refused(make):
    with pytest.raises(ConfigError):
        make()


# --- Adams-Bashforth and its starts ------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_weights_integrate_polynomials_over_the_next_step(count):
    expected = adams_weights([-float(j) for j in range(count)], 0.0, 1.0, lambda u: 1.0)
    assert ADAMS_BASHFORTH[count - 1] == pytest.approx(expected, abs=1e-13)


def transfer(x, s, t, e):
    """DDIM with a given noise: ``z' = a' (z / a + (t - s) e)``, in x = z / a."""
    return x + (t - s) * e


def test_s_pndm_by_hand():
    grid, x = random_levels(4, 5), random(2, 3)
    states, e_last = [x], None
    for s, t in pairwise(grid):
        e = noise(states[-1], s)
        if e_last is None:
            total = (e + noise(transfer(x, s, t, e), t)) / 2
        else:
            total = (3 * e - e_last) / 2
        states.append(transfer(states[-1], s, t, total))
        e_last = e
    agree(walked(PNDM(), grid, x), states)
    agree(walked(PNDM(), grid[:2], x), walked(Heun(), grid[:2], x))


@dataclass(frozen=True)
class EqualTime(Process):
    """``sigma = t``: the middle of a step in time is its middle in sigma."""

    def scale(self, t):
        return 1.0

    def std(self, t):
        return t

    def time(self, sigma):
        return sigma


@pytest.mark.parametrize("process", [VP(), EqualTime()], ids=["vp", "sigma"])
def test_f_pndm_by_hand(process):
    grid, x = random_levels(6, 6), random(2, 3)
    states, past = [x], []
    for s, t in pairwise(grid):
        v, m = states[-1], process.sigma((process.time(s) + process.time(t)) / 2)
        e1 = noise(v, s)
        past.insert(0, e1)
        if len(past) < 4:
            e2 = noise(transfer(v, s, m, e1), m)
            e3 = noise(transfer(v, s, m, e2), m)
            e4 = noise(transfer(v, s, t, e3), t)
            total = (e1 + 2 * e2 + 2 * e3 + e4) / 6
        else:
            total = (55 * past[0] - 59 * past[1] + 37 * past[2] - 9 * past[3]) / 24
        states.append(transfer(v, s, t, total))
    agree(walked(FPNDM(process=process), grid, x), states, atol=1e-11)


def test_f_pndm_starts_with_runge_kutta_of_order_four_where_time_is_sigma():
    errors = []
    for n in (8, 16, 32):
        grid = [3.0 - 2.0 * i / n for i in range(n + 1)]
        x = start = random(3, 3)
        for s, t in pairwise(grid):
            x = FPNDM(process=EqualTime()).step(SEE, x, s, t, (), SILENT.at(0)).mean
        errors.append(float((x - ANISOTROPIC.flow(start, 3.0, 1.0)).abs().max()))
    assert 3.75 <= slopes(errors)[-1] <= 4.35, errors


@pytest.mark.parametrize("steps", [2, 7])
def test_f_pndm_is_exact_for_a_point_mass(steps):
    point = random(1, 3, seed=1)
    see = identity_denoiser(lambda x, sigma: point.expand_as(x))
    for seed in range(3):
        grid = random_levels(steps, seed)
        x = point + grid[0] * random(5, 3, seed=2)
        exact = [point + level / grid[0] * (x - point) for level in grid]
        agree(walked(FPNDM(), grid, x, see), exact)


@pytest.mark.parametrize("process", [Cosine()], ids=["cosine"])
@pytest.mark.parametrize("solver", [FPNDM, BDIA])
def test_levels_that_a_process_lacks_are_refused_before_the_walk(solver, process):
    with pytest.raises(ConfigError, match="sigma_start"):
        solver(process=process).check_levels([1e4, 1.0, 0.0], 1e-16)
    solver(process=process).check_levels([100.0, 1.0, 0.0], 1e-16)


def primed_error(solver, steps, exact_nodes):
    """Error on a grid uniform in sigma from t = .4 to .2, as a VP state; exact until node ``exact_nodes``.

    Those nodes precede the grid: the method arrives at its start with a history of the exact solution.
    """
    grid = levels("sigma", steps)
    gap = grid[0] - grid[1]
    grid = [grid[0] + (exact_nodes - i) * gap for i in range(exact_nodes)] + grid
    spread = (ANISOTROPIC.covariance.diagonal() + grid[0] ** 2).sqrt()
    start = ANISOTROPIC.mean + torch.arange(-2.0, 3.0, dtype=torch.float64)[:, None] * spread
    x, past = start, ()
    for index, (s, t) in enumerate(pairwise(grid)):
        if index <= exact_nodes:
            x = ANISOTROPIC.flow(start, grid[0], s)
        step = solver.step(SEE, x, s, t, past, SILENT.at(0))
        x, past = step.mean, step.past
    return vp_scale(0.2) * float((x - ANISOTROPIC.flow(start, grid[0], grid[-1])).abs().max())


@pytest.mark.parametrize(("nodes", "bound"), [(2, 3 * 3.4e-6), (3, 3 * 2.9e-8), (4, 3 * 6.6e-10)])
def test_primed_ipndm_has_the_order_of_its_weights_on_equal_steps(nodes, bound):
    errors = [primed_error(IPNDM(nodes), steps, nodes - 1) for steps in (32, 64, 128, 256)]
    assert nodes - (0.25 if nodes == 4 else 0.15) <= slopes(errors)[-1] <= nodes + 0.35, errors
    assert errors[-1] <= bound, errors


# --- momentum ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [1, 2, 3, 4, 5])
def test_without_momentum_both_are_plms(nodes):
    grid, x = random_levels(8, 2), random(3, 3)
    plms = walked(IPNDM(nodes), grid, x)
    agree(walked(GHVB(nodes, beta=1.0), grid, x), plms)
    agree(walked(HB(nodes, beta=1.0), grid, x), plms)


@pytest.mark.parametrize("b", [0.3, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_ghvb_weights_integrate_polynomials_in_steady_state(count, b):
    """For e = n^d the steady velocity is ``b sum_k (1 - b)^k e_{n-k}``; the step is ``int_0^1 u^d du``, d < count."""
    weights = ghvb_weights(count, b)
    assert sum(weights) == pytest.approx(1.0, abs=1e-13)

    def steady(n, d):
        return b * math.fsum((1 - b) ** k * (n - k) ** d for k in range(400))

    for d in range(count):
        found = sum(w * steady(-j, d) for j, w in enumerate(weights))
        assert found == pytest.approx(1 / (d + 1), abs=1e-9 / b**d), d
    beyond = sum(w * steady(-j, count) for j, w in enumerate(weights))
    assert abs(beyond - 1 / (count + 1)) > 1e-2


@pytest.mark.parametrize("nodes", [2, 3, 4])
def test_ghvb_in_steady_state_keeps_its_order_on_equal_steps(nodes):
    errors = [primed_error(GHVB(nodes, beta=0.5), steps, 60) for steps in (128, 256, 512)]
    assert nodes - (0.25 if nodes == 4 else 0.15) <= slopes(errors)[-1] <= nodes + 0.35, errors


def test_hb_loses_an_order_even_in_steady_state():
    errors = [primed_error(HB(4, beta=0.8), steps, 60) for steps in (64, 128, 256)]
    assert 0.9 <= slopes(errors)[-1] <= 1.2, errors


def test_ghvb_38_by_hand():
    """Four nodes, b = .8, with its velocities one after another."""
    grid, x, b = random_levels(5, 7), random(2, 3), 0.8
    states, m = [x], []
    for s, t in pairwise(grid):
        e = noise(states[-1], s)
        m.insert(0, (1 - b) * m[0] + b * e if m else e)
        if len(m) == 1:
            total = m[0]
        elif len(m) == 2:
            total = ((2 + b) * m[0] - (2 - b) * m[1]) / (2 * b)
        elif len(m) == 3:
            total = ((18 + 5 * b) * m[0] - (24 - 8 * b) * m[1] + (6 - b) * m[2]) / (12 * b)
        else:
            total = (46 + 9 * b) * m[0] - (78 - 19 * b) * m[1] + (42 - 5 * b) * m[2] - (10 - b) * m[3]
            total = total / (24 * b)
        states.append(states[-1] + (t - s) * total)
    agree(walked(GHVB(), grid, x), states)


def test_hb_by_hand():
    grid, x, b = random_levels(5, 8), random(2, 3), 0.6
    states, past, m = [x], [], None
    for s, t in pairwise(grid):
        past.insert(0, noise(states[-1], s))
        p = past[0] if len(past) == 1 else (3 * past[0] - past[1]) / 2
        m = p if m is None else (1 - b) * m + b * p
        states.append(states[-1] + (t - s) * m)
    agree(walked(HB(2, beta=b), grid, x), states)


# --- BDIA --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [1.0, 0.7])
def test_bdia_by_hand(gamma):
    """Its formula in z = a x, from the places of two states."""

    def ddim(z, s, t):
        return scale(t) * (z / scale(s) + (t - s) * noise(z / scale(s), s))

    grid, x = random_levels(7, 9), random(2, 3)
    z = [scale(grid[0]) * x]
    z.append(ddim(z[0], grid[0], grid[1]))
    for p, s, t in zip(grid, grid[1:], grid[2:], strict=False):
        z.append(gamma * (z[-2] - ddim(z[-1], s, p)) + ddim(z[-1], s, t))
    agree(walked(BDIA(gamma), grid, x), [value / scale(s) for value, s in zip(z, grid, strict=True)])


def test_a_moved_state_takes_the_chain_of_bdia_with_it():
    """Where eps does not depend on x, a state moved by d between two steps ends moved by d: no alternating mode."""
    e, d, grid = random(1, 3, seed=4), random(2, 3, seed=5), random_levels(9, 3)

    def see(x, sigma):
        return Estimate.keep_state(x, sigma, x - sigma * e * (1 + sigma))

    ends = []
    for moved in (torch.zeros_like(d), d):
        x, past = random(2, 3), ()
        for index, (s, t) in enumerate(pairwise(grid)):
            step = BDIA().step(see, x if index != 3 else x + moved, s, t, past, SILENT.at(0))
            x, past = step.mean, step.past
        ends.append(x)
    torch.testing.assert_close(ends[1], ends[0] + d, rtol=0, atol=1e-12)


# --- what all of them share --------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("grid", [[2.0, 0.0], [2.0, 0.7, 0.0], [2.0, 0.7, 0.3, 0.0]])
def test_grids_shorter_than_the_start(row, grid):
    states = walked(row.make(), grid, random(2, 3))
    assert torch.equal(states[-1], diagonal(states[-2], grid[-2]))
    assert all(torch.isfinite(state).all() for state in states)


@pytest.mark.parametrize("row", ROWS)
def test_complex_states(row):
    """A real linear denoiser acts on both parts alike."""
    see = identity_denoiser(lambda x, sigma: x / (1 + sigma**2))
    grid, real, imaginary = random_levels(5, 2), random(2, 3, seed=1), random(2, 3, seed=2)
    together = walked(row.make(), grid, torch.complex(real, imaginary), see)[-1]
    apart = [walked(row.make(), grid, part, see)[-1] for part in (real, imaginary)]
    torch.testing.assert_close(together, torch.complex(*apart), rtol=0, atol=1e-12)


@pytest.mark.parametrize("row", ROWS)
def test_single_precision_is_kept_and_gradients_flow(row):
    grid = [3.0, 1.5, 0.9, 0.5, 0.3]
    see = identity_denoiser(lambda x, sigma: x.tanh() / (1 + sigma**2))
    assert walked(row.make(), grid, random(2, 3).float(), see)[-1].dtype == torch.float32

    def end(x):
        return walked(row.make(), grid, x, see)[-1]

    assert torch.autograd.gradcheck(end, random(2, 3, seed=3).requires_grad_())


def test_names_and_options():
    assert recon.SOLVERS["dpm++2s"]() == DPM2(form="data", r1=0.5)
    assert recon.SOLVERS["dpm++3s"]() == DPM3(form="data", r1=1 / 3, r2=2 / 3)
    assert recon.SOLVERS["ghvb"]() == GHVB(nodes=4, beta=0.8)
    assert recon.SOLVERS["bdia"]() == solvers.BDIA(gamma=1.0, process=VP())
