"""The laws of RED-diff: its gradient, its recursion under SGD, its fixed point, and what it must not do."""

from __future__ import annotations

import math
from collections import deque
from itertools import pairwise
from typing import Any

import pytest
import torch
from fake_cuda import LEVELS, Given, StayThere, empty, half
from measurements import GRID, MASK, MEASURED, SCALAR, measured, world_of
from torch import Tensor
from torch._subclasses import FakeTensorMode
from worlds import (
    CORRELATED,
    GaussianWorld,
    Injected,
    Matrix,
    affine_walk,
    dense,
    flat,
    isotropic,
    label,
    last,
    levels,
    random,
    random_complex,
    unflat,
)

import operators as op
import recon
from operators.differences import Difference
from operators.krylov import cg
from recon import Problem
from recon.errors import ConfigError, SamplingError
from recon.noise import Noise
from recon.posteriors import REDDiff
from recon.posteriors.reddiff import WEIGHTINGS
from recon.solvers import DPMpp, Euler, Heun, Renoise

NAMES = [*MEASURED]
STEPS = len(GRID) - 1
SGD: dict[str, Any] = dict(optimizer="sgd", obs_weight=1.0)


def eye(n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


def close(a, b, tol=1e-10):
    torch.testing.assert_close(a, b, rtol=tol, atol=tol)


def curvature(
    world: GaussianWorld, problem: Problem, s: float, w: float, v: float = 1.0
) -> tuple[Tensor, Tensor]:
    """``G = v A^H A + w s (C + s^2)^-1`` and ``b = v A^H y + w s (C + s^2)^-1 m`` of the mean gradient ``G mu - b``."""
    matrix, stiff = dense(problem.A), s * torch.linalg.inv(world.marginal(s))
    return v * matrix.T @ matrix + w * stiff, v * matrix.T @ flat(problem.y)[0] + w * stiff @ world.mean


# --- the recursion (T-RED-1) -------------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True], ids=["sums", "means"])
@pytest.mark.parametrize("weighting", ["linear", "const"])
@pytest.mark.parametrize("name", NAMES)
def test_sgd_is_its_affine_recursion(name, weighting, legacy):
    """``mu' = (I - lr G_k) mu + lr b_k - lr w_k s (C + s^2)^-1 s eps``; with eps = 0 the recursion of the mean."""
    problem, weight, lr = measured(name), 0.4, 0.03
    world = world_of(problem.A)
    n, phi = len(world.mean), {"linear": lambda s: s, "const": lambda s: 1.0}[weighting]
    v = 1 / problem.measurements if legacy else 1.0
    share = weight / n if legacy else weight
    M, c, covariance = eye(n), torch.zeros(n, dtype=torch.float64), 0 * eye(n)
    for s in GRID[:-1]:
        G, b = curvature(world, problem, s, share * phi(s), v)
        B = eye(n) - lr * G
        N = lr * share * phi(s) * (s * torch.linalg.inv(world.marginal(s)) * s - eye(n))
        M, c, covariance = B @ M, B @ c + lr * b, B @ covariance @ B.T + N @ N.T
    sampler = REDDiff(
        world, problem, weighting=weighting, weight=weight, lr=lr, legacy_mean=legacy, init="zeros", **SGD
    )
    law = affine_walk(sampler, None, GRID, world.domain, world.is_complex)
    close(law.matrix, 0 * M)  # the state that is given does not enter
    close(law.offset, c)
    close(law.moments(torch.zeros_like(c), eye(n))[1], covariance)


def test_noise_on_the_image_enters_both_gradients():
    """``sigma_x0``: ``x0 = mu + sigma_x0 xi``; a step from zeros has ``-lr (G sigma_x0 xi + N eps - b)``."""
    problem, s, sigma_x0 = measured("dense"), 0.9, 0.2
    world = world_of(problem.A)
    G, b = curvature(world, problem, s, 0.25 * s)
    sampler = REDDiff(world, problem, sigma_x0=sigma_x0, lr=0.1, init="zeros", **SGD)
    law = affine_walk(sampler, None, [s, 0.0], world.domain)
    N = 0.25 * s * (s * s * torch.linalg.inv(world.marginal(s)) - eye(4))
    close(law.offset, 0.1 * b)
    close(law.noises, torch.stack([-0.1 * sigma_x0 * G, -0.1 * N]))


# --- its fixed point (T-RED-2, 4) --------------------------------------------------------------------------

FIXED = {
    "linear": 0.8467, "sqrt": 0.9250, "log": 0.9452, "trunc_linear": 0.9544, "power2over3": 0.9091, "const": 0.9464,
    "square": 0.1853,
}  # fmt: skip
VP = [math.sqrt((1 - a) / a) for a in torch.cumprod(1 - torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64), 0).tolist()]  # fmt: skip


@pytest.mark.parametrize("weighting", FIXED)
def test_the_scalar_fixed_points_are_golden(weighting):
    """Prior N(0, 1), A = 1, levels of the linear VP chain: ``mu* / y = 1 / (1 + avg w s / (1 + s^2))``; MAP is .8."""
    problem = Problem(op.Identity((1,)), torch.ones(1, 1, dtype=torch.float64), 0.5)
    sampler = REDDiff(SCALAR, problem, weighting=weighting)
    at = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    both = REDDiff(SCALAR, problem.repeated(2), weighting=weighting)
    gradients = (
        torch.stack([both.gradient(at, s, SCALAR, Injected().at(0)) for s in VP]).mean(0).flatten().tolist()
    )
    assert gradients[0] / (gradients[0] - gradients[1]) == pytest.approx(FIXED[weighting], abs=5.1e-5)
    assert sampler.weighting(1.0) == WEIGHTINGS[weighting](1.0)


@pytest.mark.parametrize("name", ["dense", "dense, complex"])
def test_random_levels_and_a_falling_rate_find_it(name):
    """``(v A^H A + Gamma) mu* = v A^H y + Gamma m``, ``Gamma = avg w s (C + s^2)^-1``, to 2 %, from noisy gradients."""
    problem = measured(name).repeated(64)
    world = world_of(problem.A)
    sampler = REDDiff(world, problem, obs_weight=1.0)
    sigmas = [0.05, 0.2, 0.6, 1.5, 4.0]
    parts = [curvature(world, problem, s, 0.25 * s) for s in sigmas]
    G, b = (sum(p[i] for p in parts) / len(parts) for i in (0, 1))
    expected = torch.linalg.solve(G, b)
    order = torch.randint(len(sigmas), (12000,), generator=torch.Generator().manual_seed(1)).tolist()
    mu = unflat(torch.zeros(64, len(world.mean), dtype=torch.float64), world.domain, world.is_complex)
    fast = torch.Generator().manual_seed(2)

    def draw(like, stream="step"):
        eps = torch.randn(flat(like).shape, generator=fast, dtype=torch.float64)
        return unflat(eps, like.shape[1:], like.is_complex())

    for k, index in enumerate(order):
        mu = mu - 0.1 / (1 + k / 300) * sampler.gradient(mu, sigmas[index], world, draw)
    error = (flat(mu).mean(0) - expected).norm() / expected.norm()
    assert float(error) < 0.02


def test_without_the_regulariser_it_is_least_squares():
    problem = measured("dense")
    world = world_of(problem.A)
    grid = [*levels("lam", 4000), 0.0]
    sampler = REDDiff(world, problem, weight=0.0, lr=0.9, init="zeros", optimizer="sgd")
    end = last(sampler.run(None, grid, random(1, 4), Noise(0))).x
    close(flat(end), flat(problem.y) @ torch.linalg.pinv(dense(problem.A)).T, 1e-6)


def test_without_data_it_goes_to_the_prior_mean():
    """``v = 0``: every step contracts to m, with the exact denoiser and eps = 0."""
    problem = Problem(op.Identity((4,)), random(1, 4, seed=9), 0.3)
    sampler = REDDiff(
        CORRELATED, problem, obs_weight=0.0, weighting="const", weight=1.0, lr=0.3, **{"optimizer": "sgd"}
    )
    grid = [2.0 * 0.999**i for i in range(600)] + [0.0]
    states = list(sampler.run(None, grid, random(1, 4), Injected()))
    distance = [float((s.x - CORRELATED.mean).norm()) for s in states]
    assert all(b < a or b < 1e-12 for a, b in pairwise(distance)) and distance[-1] < 1e-6


# --- weightings and options (T-RED-3) ----------------------------------------------------------------------


@pytest.mark.parametrize("s", [0.01, 1.0, 100.0])
def test_all_seven_weightings(s):
    expected = {
        "linear": s, "sqrt": s**0.5, "square": s**2, "log": math.log(1 + s), "trunc_linear": min(s, 1.0),
        "power2over3": s ** (2 / 3), "const": 1.0,
    }  # fmt: skip
    assert WEIGHTINGS.keys() == expected.keys()
    mu, problem = random(1, 4), measured("dense")
    world = world_of(problem.A)
    for name, phi in expected.items():
        assert WEIGHTINGS[name](s) == pytest.approx(phi, rel=1e-14)
        sampler = REDDiff(world, problem, weighting=name, obs_weight=0.0, weight=0.4)
        draws = Injected({(0, "eps", 0): random(1, 4, seed=7)})
        eps = random(1, 4, seed=7)
        x = mu + s * eps
        excess = (x - world(x, s)) / s - eps
        close(sampler.gradient(mu, s, world, draws.at(0)), 0.4 * phi * excess, 1e-9)
    own = REDDiff(world, problem, weighting=lambda s: 3 * s, obs_weight=0.0, weight=1.0)
    close(own.gradient(mu, s, world, Injected().at(0)), 3 * (mu - world(mu, s)), 1e-12)


@pytest.mark.parametrize(
    "options", [{}, {"legacy_mean": True}, {"optimizer": "sgd"}, {"sigma_x0": 0.1}], ids=label
)
def test_doubling_the_batch_changes_nothing(options):
    """Means and optimisers are a row's own."""
    A = MEASURED["dense"]()
    y = random(2, 3, seed=5) * torch.tensor([[1.0], [1e3]], dtype=torch.float64)
    world, x = world_of(A), random(2, 4)
    ends = [
        last(REDDiff(world, Problem(A, y.repeat(n, 1), 0.1), **options).run(None, GRID, x.repeat(n, 1), Noise(0, (0, 1) * n))).x
        for n in (1, 2)
    ]  # fmt: skip
    torch.testing.assert_close(ends[1], ends[0].repeat(2, 1), rtol=1e-12, atol=1e-12)
    alone = REDDiff(world, Problem(A, y[1:], 0.1), **options)
    torch.testing.assert_close(
        ends[0][1:], last(alone.run(None, GRID, x[1:], Noise(0, (1,)))).x, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("name", ["dense", "MRI"])
def test_the_units_of_the_measurements_do_not_matter(name):
    """``v = 1 / ||A||^2`` by default; with a weight of your own they do."""
    problem = measured(name)
    world = world_of(problem.A)
    x = unflat(random(1, len(world.mean)), world.domain, world.is_complex)

    def end(c: float, **options) -> Tensor:
        scaled = Problem(c * problem.A, c * problem.y, c * problem.sigma)
        return last(REDDiff(world, scaled, **options).run(None, GRID, x, Noise(0))).x

    for c in (1e-3, 250.0):
        close(end(c), end(1.0), 1e-7)
    assert float((end(250.0, obs_weight=1.0) - end(1.0, obs_weight=1.0)).abs().max()) > 1e-3


def test_an_operator_an_image_changes_nothing():
    operators = [unit * op.Inpainting(m) for m, unit in ((MASK, 1.0), (1 - MASK, 30.0))]
    world = isotropic((1, 2, 2), 0.7)
    y = torch.cat([A.forward(random(1, 1, 2, 2, seed=k)) for k, A in enumerate(operators)])
    x = random(6, 1, 2, 2, seed=3)
    together = Problem(op.PerImage(tuple(operators)), y, 0.2).repeated(3)
    end = last(REDDiff(world, together).run(None, GRID, x, Noise(0, (0, 1), 3))).x
    for i, A in enumerate(operators):
        rows = slice(3 * i, 3 * i + 3)
        alone = REDDiff(world, Problem(A, y[i : i + 1], 0.2).repeated(3))
        close(end[rows], last(alone.run(None, GRID, x[rows], Noise(0, (i,), 3))).x, 1e-11)


def test_complex_is_its_real_view():
    A = Matrix(random_complex(2, 3, seed=22))
    world = world_of(A)
    problem = measured("dense, complex")
    real = Problem(Matrix(dense(A)), flat(problem.y), problem.sigma)
    flattened = GaussianWorld(world.mean, world.covariance, (6,))
    eps = {(k, "eps", 0): random(1, 6, seed=k) for k in range(STEPS)}
    for optimizer in ("adam", "sgd"):
        options = dict(optimizer=optimizer, obs_weight=0.1, legacy_mean=True)
        found = last(
            REDDiff(world, problem, **options).run(None, GRID, random_complex(1, 3), Injected(eps))
        ).x
        wanted = last(REDDiff(flattened, real, **options).run(None, GRID, random(1, 6), Injected(eps))).x
        close(flat(found), wanted)


@pytest.mark.parametrize(
    "kind", ["adam", "sgd", torch.optim.RMSprop, torch.optim.NAdam, torch.optim.Adafactor]
)
def test_any_optimiser_moves_every_row_on_its_own(kind):
    """Against torch's own on one row with autograd's gradient of the loss."""
    problem, options = measured("inpainting"), {"weight_decay": 0.0} if kind == torch.optim.RMSprop else None
    world = world_of(problem.A)
    eps = {(k, "eps", 0): random(2, 4, seed=k) for k in range(STEPS)}
    sampler = REDDiff(
        world,
        problem.repeated(2),
        optimizer=kind,
        optimizer_options=options,
        lr=0.05,
        init="zeros",
        obs_weight=1.0,
    )
    end = last(sampler.run(None, GRID, random(2, 1, 2, 2), Injected(eps))).x
    for row in range(2):
        mu = torch.zeros(1, 2, 2, dtype=torch.float64, requires_grad=True)
        made = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}.get(kind, kind)
        optimizer = made([mu], lr=0.05, **({"betas": (0.9, 0.99)} if kind == "adam" else {}))
        for k, s in enumerate(GRID[:-1]):
            noise = eps[k, "eps", 0][row].view(1, 2, 2)
            x = mu + s * noise
            e = ((x - world(x[None], s)[0]) / s).detach()
            loss = (problem.y[0] - problem.A.forward(mu[None])[0]).square().sum() / 2
            loss = loss + 0.25 * s * ((e - noise) * mu).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        close(end[row], mu.detach(), 1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_it_starts_where_it_is_told(name):
    problem = measured(name).repeated(2)
    world = world_of(problem.A)
    x = unflat(random(2, len(world.mean)), world.domain, world.is_complex)
    inverse = torch.linalg.pinv(dense(problem.A))
    starts = {
        init: REDDiff(world, problem, init=init, steps=12).first(x)
        for init in ("pinv", "backprojection", "zeros")
    }
    close(flat(starts["pinv"]), flat(problem.y) @ inverse.T, 1e-6)
    assert torch.equal(starts["backprojection"], problem.backprojection)
    assert starts["backprojection"].data_ptr() != problem.backprojection.data_ptr()  # which it would move
    assert not starts["zeros"].any()
    assert torch.equal(REDDiff(world, problem, steps=12).first(x), starts["pinv"])
    matrix, domain = dense(problem.A), tuple(problem.A.domain)
    axes = (-2, -1) if len(domain) > 2 else (-1,)
    rough = dense(Difference(domain, axes, complex_domain=problem.A.complex_domain))
    size = torch.linalg.matrix_norm(matrix, 2) ** 2
    normal = matrix.T @ matrix / size + 0.03 * rough.T @ rough
    smooth = flat(problem.y) @ (matrix / size) @ torch.linalg.pinv(normal)
    close(flat(REDDiff(world, problem, init="smooth").first(x)), smooth, 1e-3)


def test_the_answer_is_the_image_after_the_last_step():
    """And every state its own: what a caller keeps does not move on."""
    problem = measured("dense")
    world = world_of(problem.A)
    sampler = REDDiff(world, problem, init="zeros", lr=0.05, **SGD)
    states = list(sampler.run(None, GRID, random(1, 4), Injected()))
    assert [s.sigma for s in states] == GRID[1:]
    for state, before, s in zip(states[1:], states, GRID[1:-1], strict=False):
        G, b = curvature(world, problem, s, 0.25 * s)
        close(flat(state.x), flat(before.x) @ (eye(4) - 0.05 * G).T + 0.05 * b, 1e-9)
        assert torch.equal(state.x, state.x0)


# --- the network (T-RED-5) ---------------------------------------------------------------------------------


@pytest.mark.parametrize("enabled", [True, False])
def test_nothing_is_differentiated_through_the_network(enabled):
    seen = []
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)

    def prior(x, sigma):
        clean = weight * x / (1 + sigma**2)
        seen.append((torch.is_grad_enabled(), clean.requires_grad))
        return clean

    sampler = REDDiff(prior, measured("dense").repeated(2))
    with torch.set_grad_enabled(enabled):
        states = list(sampler.run(None, GRID, random(2, 4), Noise(0, (0,), 2)))
        assert torch.is_grad_enabled() == enabled
    assert len(seen) == STEPS and set(seen) == {(False, False)}
    assert not any(s.x.requires_grad for s in states)


def test_a_flow_may_be_its_denoiser():
    """n steps of the solver that was given, from the level of the step; deterministic ones only."""
    problem, s = measured("inpainting"), 0.8
    world = isotropic((1, 2, 2), 0.7)
    eps = {(0, "eps", 0): random(1, 4, seed=1)}
    sampler = REDDiff(world, problem, flow=60, init="zeros", lr=1.0, obs_weight=0.0, optimizer="sgd")
    end = last(sampler.run(Heun(), [s, 0.0], random(1, 1, 2, 2), Injected(eps))).x
    clean = world.flow(s * eps[0, "eps", 0].view(1, 1, 2, 2), s, 0.0)
    close(end, 0.25 * clean, 1e-3)
    calls = []

    def prior(x, sigma):
        calls.append(sigma)
        return half(x, sigma)

    result = recon.sample(problem, prior, REDDiff(prior, flow=4), "dpm++2m", steps=5, samples=2)
    assert result.network_calls == len(calls) == 20
    for solver, match in ((Renoise(), "adds noise"), (DPMpp(nodes=3), "inner steps")):
        with pytest.raises(ConfigError, match=match):
            REDDiff(half, flow=2 if match == "adds noise" else 1).pair(solver)
        REDDiff(half).pair(solver)  # which is not asked


def test_nonlinear_operators_have_their_own_gradient():
    class Squared(op.Operator):
        domain = (4,)

        def forward(self, x):
            return (x @ random(3, 4, seed=21).T.to(x.dtype)) ** 2

    problem = Problem(Squared(), random(2, 3, seed=3).abs(), 0.1)
    sampler, mu = REDDiff(half, problem, weight=0.0), random(2, 4, seed=4).requires_grad_()
    loss = (problem.A.forward(mu) - problem.y).square().sum() / 2
    (gradient,) = torch.autograd.grad(loss, mu)
    close(sampler.gradient(mu.detach(), 0.5, half, Injected().at(0)), gradient, 1e-12)
    assert recon.sample(problem, half, REDDiff(half, lr=0.01), steps=8, samples=2).samples.isfinite().all()
    for init in ("pinv", "backprojection"):
        with pytest.raises(ConfigError, match="not linear"):
            REDDiff(half, problem, init=init)


# --- structure and refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float32], ids=["complex", "real"])
def test_nothing_waits_for_the_device(dtype):
    with FakeTensorMode():
        like = empty(dtype)
        problem = Problem.__new__(Problem)  # without its check for NaN, which looks at numbers
        vars(problem).update(A=op.Identity((1, 8, 8), like.is_complex()), y=like, sigma=0.1)
        for options in ({}, {"optimizer": "sgd", "flow": 2}):
            sampler = REDDiff(half, problem, **options)
            with StayThere():
                x = deque(sampler.run(Euler(), LEVELS, like, Given(0, (0, 1))), maxlen=1)[0].x
            assert x.device.type == "cuda" and x.dtype == dtype and x.shape == like.shape


def test_nothing_is_replaced_by_zeros():
    def broken(x, sigma):
        return x * (math.nan if sigma < 2 else 0.5)

    with pytest.raises(SamplingError, match="diverged"):
        recon.sample(measured("inpainting"), broken, REDDiff(broken), steps=6, samples=2)


@pytest.mark.parametrize(
    "options",
    [
        {"weighting": "snr"},
        {"init": "noise"},
        {"weight": -0.25},
        {"obs_weight": math.inf},
        {"lr": math.nan},
        {"sigma_x0": -1.0},
        {"flow": -2},
        {"steps": 0},
        {"optimizer": "muon"},
        {"optimizer": torch.optim.LBFGS},
        {"optimizer": cg},
    ],
    ids=label,
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options)).split("_")[0].replace("optimizer", "optimiser").replace("init", "start")):  # fmt: skip
        REDDiff(half, **options)


def test_it_needs_a_problem_and_cannot_be_weighed():
    with pytest.raises(ConfigError, match="no problem"):
        REDDiff(half).run(Euler(), GRID, torch.zeros(1, 4), Noise(0))
    with pytest.raises(ConfigError, match="loop of its own"):
        recon.Ensemble(REDDiff(half))
