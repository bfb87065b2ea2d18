"""The laws of STSL: its gradient, where its second-order term vanishes and where it is known, and the affine walk."""

from __future__ import annotations

import math
import warnings
from collections import deque

import pytest
import torch
from dense_forms import DenseSTSL as Dense
from fake_cuda import LEVELS, Given, StayThere, empty, half
from measurements import GRID, MEASURED, measured, world_of
from torch import Tensor
from torch._subclasses import FakeTensorMode
from worlds import Injected, affine_walk, flat, last, random, unflat

import operators as op
import recon
from recon import Problem
from recon.errors import ConfigError
from recon.jobs.list import samplers
from recon.noise import Noise
from recon.posteriors import DPS, STSL
from recon.posteriors.stsl import signs
from recon.priors import Mixture
from recon.solvers import DDIM, DPMpp, Euler, Heun, Solver, UniPC
from recon.state import State
from recon.walk import walk

SOLVERS: dict[str, Solver] = {
    "euler": Euler(),
    "ddim, eta 1": DDIM(eta=1.0),
    "heun": Heun(),
    "dpm++2m": DPMpp(rule="midpoint"),
    "unipc2": UniPC(nodes=2),
}
MODES = Mixture(random(3, 3, seed=81) * 1.5, torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), 0.6)
NOTHING = Problem(op.Identity((3,)), torch.zeros(1, 3, dtype=torch.float64), 0.3)


def curvature(prior, n: int, **options) -> STSL:
    """STSL without its first term: the gradient is that of the estimated trace, weight 1."""
    A = op.Identity((n,))
    problem = Problem(A, torch.zeros(1, n, dtype=torch.float64), 0.3)
    return STSL(prior, problem, lam=0.0, eta=float(n), **options)


def trace_gradient(prior: Mixture, x: Tensor, sigma: float) -> Tensor:
    """``grad tr Hess ln p_s = sum_k r_k ||m_k - mbar||^2 (m_k - mbar) / v^3``, ``v = t^2 + s^2``."""
    v = prior.std**2 + sigma**2
    r = torch.softmax(prior.log_weights - (x[:, None] - prior.means).square().sum(2) / (2 * v), 1)
    apart = prior.means - (r @ prior.means)[:, None]
    return torch.einsum("bk,bk,bkn->bn", r, apart.square().sum(2), apart) / v**3


def surrogate(sampler: STSL, x: Tensor, sigma: float, v: Tensor, detach: str = "") -> Tensor:
    """Its gradient by autograd of the formula as it is written; ``detach`` one of the two scores."""
    x = x.detach().requires_grad_()

    def score(z):
        return (sampler.prior(z, sigma) - z) / sigma**2

    with torch.enable_grad():
        far, near = score(x + sampler.reach(sigma) * v), score(x)
        clean = sampler.prior(x, sigma)
        r = flat(sampler.problem.y - sampler.problem.A.forward(clean))
        lam = sampler.zeta / r.detach().norm(dim=1) if sampler.lam is None else sampler.lam
        n = flat(x).shape[1]
        w = lam * sigma**4 if sampler.trace_weight == "bound" else sampler.eta / n  # ||A|| = 1
        far = far.detach() if detach == "far" else far
        near = near.detach() if detach == "near" else near
        hutchinson = (flat(v) * flat(far - near)).sum(1) / sampler.reach(sigma)
        (gradient,) = torch.autograd.grad((lam * r.square().sum(1) + w * hutchinson).sum(), x)
    return gradient


def curved(x: Tensor, sigma: float) -> Tensor:
    """A prior whose Jacobian is not symmetric, of complex images too."""
    both = torch.view_as_real(x) if x.is_complex() else x
    mixed = both.tanh() + 0.3 * both.roll(1, dims=1).sin() * both.cos() / (1 + sigma)
    return torch.view_as_complex(mixed) if x.is_complex() else mixed


# --- the gradient ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lam": 0.3, "eta": 2.0, "scale": "small"},
        {"trace_weight": "bound", "probes": "rademacher"},
        {"zeta": 0.5, "eta": 0.0},
        {"scale": lambda s: math.sqrt(1 + s * s)},
    ],
    ids=["default", "small", "bound", "first order", "scaled"],
)
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_it_is_the_gradient_of_the_surrogate(kind, options):
    """Two separate pullbacks against autograd through the whole formula; a step size a row."""
    mask = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    A = op.Inpainting(mask) if kind == "real" else op.MRI(mask)
    draw = Noise(3, range(4)).at(0)
    x = draw(A._zeros(4, torch.float64, torch.device("cpu")), "x")
    sampler = STSL(curved, Problem(A, A.forward(10.0 ** draw(x, "y").real * draw(x, "z")), 0.3), **options)
    v = sampler.probe(x, draw, 0)
    for sigma in (3.0, 0.4):
        found = sampler.gradient(x, sigma, v if sampler.second_order else None)
        torch.testing.assert_close(found, surrogate(sampler, x, sigma, v), rtol=1e-9, atol=1e-11)
        assert not found.requires_grad


def test_half_of_zeta_is_the_step_of_dps():
    """``lam grad ||r||^2 = 2 zeta grad ||r||``."""
    world, problem = world_of(MEASURED["dense"]()), measured("dense").repeated(3)
    x = random(3, 4, seed=82)
    est = DPS(world, problem).denoise(x, 0.7)
    step = STSL(world, problem, zeta=0.5, eta=0.0).gradient(x, 0.7, None)
    torch.testing.assert_close(est.prior - est.x0, step, rtol=1e-12, atol=1e-14)


def test_fitted_measurements_leave_nothing_to_do():
    world, x = world_of(MEASURED["dense"]()), random(2, 4, seed=83)
    A = MEASURED["dense"]()
    step = STSL(world, Problem(A, A.forward(world(x, 0.5)), 0.3), eta=0.0).gradient(x, 0.5, None)
    assert torch.equal(step, torch.zeros_like(x))


@pytest.mark.parametrize("is_complex", [False, True])
def test_probes_have_unit_variance_a_real_component(is_complex):
    like = torch.zeros(2, 5000, dtype=torch.complex128 if is_complex else torch.float64)
    gauss, sign = (
        STSL(half, probes=p).probe(like, Noise(1, (0, 1)).at(0), 0) for p in ("gaussian", "rademacher")
    )
    assert torch.equal(flat(sign), flat(gauss).sign()) and sign.dtype == like.dtype
    assert float(flat(gauss).var()) == pytest.approx(1.0, abs=0.05)
    assert torch.equal(signs(torch.zeros(1)), torch.ones(1))


def test_probes_go_as_far_as_they_should():
    assert [STSL(half).reach(s) for s in (9.0, 0.1)] == [1.0, 1.0]
    small = STSL(half, scale="small", c=0.5)
    assert [small.reach(s) for s in (9.0, 0.1)] == [1.0, 0.05]


# --- Gaussian priors: the second-order term vanishes -------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"scale": "small"}, {"trace_weight": "bound"}], ids=["paper", "small", "bound"]
)
@pytest.mark.parametrize("name", MEASURED)
def test_on_a_gaussian_the_second_order_term_vanishes_for_every_probe(name, options):
    problem = measured(name).repeated(50)
    world = world_of(problem.A)
    x = unflat(3 * random(50, len(world.mean)), world.domain, world.is_complex)
    v = unflat(random(50, len(world.mean), seed=84), world.domain, world.is_complex)
    sampler = STSL(world, problem, lam=0.1, **options)
    for sigma in (9.0, 0.9, 0.1):
        both, first = sampler.gradient(x, sigma, v), sampler.gradient(x, sigma, None)
        assert float((both - first).abs().max()) <= 1e-10
        if name != "MRI":  # negative control: one of the two scores detached
            detached = surrogate(replace_norm(sampler), x, sigma, v, detach="near") - first
            assert float(detached.abs().max()) > 1e-6


def replace_norm(sampler: STSL) -> STSL:
    """Under the paper's weight, which needs no norm of A."""
    return STSL(sampler.prior, sampler.problem, lam=0.1, scale=sampler.scale)


@pytest.mark.parametrize("name", MEASURED)
def test_on_a_gaussian_whole_runs_agree_with_the_first_order(name):
    problem = measured(name)
    world = world_of(problem.A)
    common = dict(solver="ddpm", grid=GRID, samples=3, seed=2)
    second, first = (
        recon.sample(problem, world, STSL(world, lam=0.05, inner=3, eta=eta), **common) for eta in (0.02, 0.0)
    )
    torch.testing.assert_close(second.samples, first.samples, rtol=0, atol=1e-10)
    assert second.network_calls - first.network_calls == 3 * 6


# --- mixtures: the second-order term is known --------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.3, 0.8, 2.0])
def test_on_a_mixture_the_term_is_the_closed_form(sigma):
    """The closed form against autograd of the exact trace; and STSL's own code, all directions, back and forth."""
    x = random(4, 3, seed=85)
    closed = trace_gradient(MODES, x, sigma)
    with torch.enable_grad():
        point = x.clone().requires_grad_()
        score = (MODES(point, sigma) - point) / sigma**2
        rows = [torch.autograd.grad(score[:, i].sum(), point, create_graph=True)[0][:, i] for i in range(3)]
        (exact,) = torch.autograd.grad(torch.stack(rows).sum(), point)
    torch.testing.assert_close(closed, exact, rtol=1e-6, atol=1e-12)
    sampler = curvature(MODES, 3, scale=lambda s: 1e-4)
    probes = torch.cat([torch.eye(3, dtype=torch.float64), -torch.eye(3, dtype=torch.float64)])
    found = sum(sampler.gradient(x, sigma, v.expand(4, 3)) for v in probes) / 2
    assert isinstance(found, Tensor)
    torch.testing.assert_close(found, closed, rtol=1e-6, atol=1e-6 * float(closed.abs().max()))


def estimated(sampler: STSL, x: Tensor, sigma: float, seed: int, count: int = 100_000):
    """Mean and standard error over so many probes."""
    v = random(count, 3, seed=seed)
    v = signs(v) if sampler.probes == "rademacher" else v
    found = sampler.gradient(x.expand(count, 3), sigma, v)
    return found.mean(0), found.std(0) / math.sqrt(count)


@pytest.mark.parametrize("probes", ["gaussian", "rademacher"])
def test_probes_estimate_the_trace_without_bias(probes):
    x, sigma = random(1, 3, seed=86), 0.8
    mean, error = estimated(curvature(MODES, 3, probes=probes, scale=lambda s: 1e-3), x, sigma, seed=87)
    closed = trace_gradient(MODES, x, sigma)[0]
    assert bool(((mean - closed).abs() <= 3 * error).all()), (mean, closed, error)
    assert float(error.max()) < 0.05 * float(closed.abs().max())


def test_unit_probes_estimate_the_trace_around_x():
    """Stein's lemma: with h = 1 the mean is that of the gradients at x + u, u ~ N(0, I), far from the one at x."""
    x, sigma = random(1, 3, seed=86), 0.8
    mean, error = estimated(curvature(MODES, 3), x, sigma, seed=88)
    around = trace_gradient(MODES, x + random(100_000, 3, seed=89), sigma)
    both = (error.square() + around.var(0) / len(around)).sqrt()
    assert bool(((mean - around.mean(0)).abs() <= 3 * both).all())
    assert float(((mean - trace_gradient(MODES, x, sigma)[0]).abs() / both).max()) > 10


def test_a_detached_score_loses_the_term():
    """Negative controls: without the far score nothing is left but noise of mean zero; without the near one
    the mean survives and the noise explodes.
    """
    x, sigma, count = random(1, 3, seed=86).expand(100_000, 3), 0.8, 100_000
    sampler, v = curvature(MODES, 3, scale=lambda s: 1e-3), random(count, 3, seed=87)
    closed = trace_gradient(MODES, x[:1], sigma)[0]
    whole = surrogate(sampler, x, sigma, v)
    torch.testing.assert_close(whole, sampler.gradient(x, sigma, v), rtol=1e-6, atol=1e-8)
    killed = surrogate(sampler, x, sigma, torch.cat([v[: count // 2], -v[: count // 2]]), detach="far").mean(
        0
    )
    assert float(killed.abs().max()) < 1e-6 * float(closed.abs().max())
    assert float((surrogate(sampler, x, sigma, v, detach="near").std(0) / whole.std(0)).min()) > 100


def test_between_two_modes_it_sharpens():
    """Modes +-a: ``8 r (1 - r) (1 - 2 r) |a|^2 a / v^3``; the step goes to the nearer mode, nowhere at the midpoint."""
    a = torch.tensor([0.9, -0.4], dtype=torch.float64)
    prior, sigma = Mixture(torch.stack([a, -a]), torch.tensor([0.5, 0.5], dtype=torch.float64), 0.5), 0.6
    v = 0.25 + sigma**2
    x = torch.tensor([0.3, -0.2, 0.0], dtype=torch.float64)[:, None] * a
    r = torch.sigmoid(2 * x @ a / v)[:, None]
    wanted = 8 * r * (1 - r) * (1 - 2 * r) * (a @ a) * a / v**3
    sampler = curvature(prior, 2, scale=lambda s: 1e-4)
    eye = torch.eye(2, dtype=torch.float64)
    found = sum(sampler.gradient(x, sigma, p.expand(3, 2)) for p in torch.cat([eye, -eye])) / 2
    assert isinstance(found, Tensor)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)
    assert (-found @ a).sign().tolist()[:2] == [1.0, -1.0] and float(found[2].abs().max()) < 1e-9

    def entropy(z):
        p = torch.sigmoid(2 * z @ a / v)
        return -(p * p.log() + (1 - p) * (1 - p).log())

    assert bool((entropy(x - 0.01 * found)[:2] < entropy(x)[:2]).all())


def test_the_bound_is_that_of_jensen():
    """A = 1, ``lam = 1 / (2 sigma_y^2)``: the gradient of ``(||y - D||^2 + tr Cov) / (2 sigma_y^2)``, ``Cov = s^2 J``."""
    x, y, sigma, sigma_y = random(2, 3, seed=90), random(2, 3, seed=91), 0.7, 0.4
    with torch.enable_grad():
        point = x.clone().requires_grad_()
        clean = MODES(point, sigma)
        rows = [torch.autograd.grad(clean[:, i].sum(), point, create_graph=True)[0][:, i] for i in range(3)]
        bound = ((y - clean).square().sum() + sigma**2 * torch.stack(rows).sum()) / (2 * sigma_y**2)
        (wanted,) = torch.autograd.grad(bound, point)
    problem = Problem(op.Identity((3,)), y, sigma_y)
    sampler = STSL(MODES, problem, lam=1 / (2 * sigma_y**2), trace_weight="bound", scale=lambda s: 1e-4)
    eye = torch.eye(3, dtype=torch.float64)
    fit = sampler.gradient(x, sigma, torch.zeros_like(x))
    parts = [sampler.gradient(x, sigma, v.expand(2, 3)) - fit for v in torch.cat([eye, -eye])]
    torch.testing.assert_close(fit + sum(parts) / 2, wanted, rtol=1e-6, atol=1e-8)


# --- the affine master law ---------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("init", ["inversion", "noise"])
@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.filterwarnings("ignore:STSL moves")
def test_stsl_follows_its_dense_form(name, init, solver):
    """The exact law of the walk, to 1e-9; no probe leaves a trace in it, and no start an inversion."""
    problem, lam = measured(name), 0.07
    world = world_of(problem.A)
    sampler = STSL(world, problem, lam=lam, inner=2, init=init)
    form = Dense(world, problem, lam, 2, GRID if init == "inversion" else None)
    of = (SOLVERS[solver], GRID, world.domain, world.is_complex)
    found, wanted = affine_walk(sampler, *of), affine_walk(form, *of)
    torch.testing.assert_close(found.matrix, wanted.matrix, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.offset, wanted.offset, rtol=1e-9, atol=1e-9)
    n = len(world.mean)
    law = [one.moments(torch.zeros(n).double(), torch.zeros(n, n).double())[1] for one in (found, wanted)]
    torch.testing.assert_close(*law, rtol=1e-9, atol=1e-9)
    assert len(found.noises) == len(wanted.noises) + 2 * 6
    assert (float(found.matrix.abs().max()) == 0) == (init == "inversion")


# --- the walk ----------------------------------------------------------------------------------------------


def test_multistep_solvers_are_euler_and_say_so():
    problem = measured("dense").repeated(2)
    sampler, x = STSL(world_of(problem.A), problem, inner=1), 9.0 * random(2, 4, seed=92)
    for name in ("dpm++2m", "dpm++3m", "unipc1", "deis-t3", "bdia", "hb"):
        with pytest.warns(UserWarning, match="order one"):
            sampler.pair(recon.SOLVERS[name]())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("euler", "ddim", "ddpm", "heun", "dpm++2s", "flow-rk4"):
            sampler.pair(recon.SOLVERS[name]())
    ends = [last(sampler.run(s, GRID, x, Noise(0, range(2)))).x for s in (Euler(), DPMpp(rule="midpoint"))]
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-12)
    states = list(sampler.run(DPMpp(rule="midpoint"), GRID, x, Noise(0, range(2))))
    assert all(state.past == () for state in states[:-1])


def test_every_inner_step_draws_a_probe_of_its_own():
    """By name of the stream, so that no two are one draw; at every level above zero, first in `start`."""
    problem, noise = measured("dense"), Injected()
    last(STSL(half, problem, inner=3).run(Euler(), GRID, random(1, 4), noise))
    steps = range(-1, len(GRID) - 2)
    assert list(noise.asked) == [(step, f"probe {k}", 0) for step in steps for k in range(3)]


def test_it_acts_at_every_level_but_zero():
    asked: list[float] = []

    def prior(x, sigma):
        asked.append(sigma)
        return 0.5 * x

    problem = measured("dense")
    last(STSL(prior, problem, inner=2).run(Euler(), GRID, random(1, 4), Noise(0, (0,))))
    rising = [s for s in GRID[::-1] if s > 0]
    climb = [rising[0], *rising[:-1]]
    assert asked == climb + [s for s in GRID[:-1] for _ in range(5)]


def test_runs_replay_and_rows_are_their_own():
    A = MEASURED["dense"]()
    problem, world = Problem(A, random(3, 3, seed=93), 0.3), world_of(A)
    common = dict(posterior="stsl", solver="ddpm", steps=5, samples=2, seed=7)
    all_three = recon.sample(problem, world, **common)
    assert torch.equal(all_three.samples, recon.sample(problem, world, **common).samples)
    alone = recon.sample(Problem(A, problem.y[2:], 0.3), world, images=[2], **common)
    torch.testing.assert_close(alone.samples[0], all_three.samples[2], rtol=1e-12, atol=1e-12)
    assert not torch.equal(all_three.samples[:, 0], all_three.samples[:, 1])


def test_inverted_samples_differ_by_their_probes_only():
    """First order under a deterministic solver: all samples of an image are one."""
    A = MEASURED["dense"]()
    problem = Problem(A, random(1, 3, seed=93), 0.3)
    common = dict(solver="euler", steps=5, samples=3)
    first = recon.sample(problem, MODES_4, STSL(MODES_4, eta=0.0), **common).samples[0]
    assert torch.equal(first[0], first[1]) and torch.equal(first[0], first[2])
    second = recon.sample(problem, MODES_4, STSL(MODES_4), **common).samples[0]
    assert float((second[0] - second[1]).abs().max()) > 1e-6


MODES_4 = Mixture(random(3, 4, seed=94), torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), 0.6)


def test_the_list_says_what_it_costs():
    (row,) = [row for row in samplers()[1] if row[0] == "stsl"]
    assert row[1:3] == ("1 + 2", "any")
    declared = [
        STSL(half, **options).level_calls
        for options in (
            {},
            {"inner": 2},
            {"eta": 0.0},
            {"init": "noise"},
            {"eta": 0.0, "trace_weight": "bound"},
        )
    ]
    assert declared == [11, 5, 6, 10, 11]


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float32], ids=["complex", "real"])
def test_nothing_waits_for_the_device(dtype, monkeypatch):
    """But for autograd, which has no fake device; the gradient of ``x / 2`` is put in its place."""

    def with_pullback(prior, x, sigma):
        return prior(x, sigma), lambda v, again=False: 0.5 * v

    monkeypatch.setattr(recon.posteriors.stsl, "with_pullback", with_pullback)
    with FakeTensorMode(), StayThere():
        like = empty(dtype)
        problem = Problem.__new__(Problem)  # without its check for NaN, which looks at numbers
        vars(problem).update(A=op.Identity((1, 8, 8), like.is_complex()), y=like, sigma=0.1)
        walked = STSL(half, problem, probes="rademacher").run(Euler(), LEVELS, like, Given(0, (0, 1)))
        x = deque(walked, maxlen=1)[0].x
    assert x.device.type == "cuda" and x.dtype == dtype and x.shape == like.shape


# --- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, match",
    [
        ({"inner": 0}, "inner"),
        ({"eta": -0.1}, "eta"),
        ({"eta": math.nan}, "eta"),
        ({"c": 0.0}, "c is"),
        ({"trace_weight": "papers"}, "paper"),
        ({"probes": "uniform"}, "probes"),
        ({"scale": "smal"}, "small"),
        ({"init": "noisy"}, "noise"),
    ],
)
def test_unknown_settings_are_refused(options, match):
    with pytest.raises(ConfigError, match=match):
        STSL(half, **options)


def test_what_cannot_be_walked_is_refused():
    class Squared(op.Operator):
        domain = (3,)

        def forward(self, x):
            return x**2

    problem = Problem(Squared(), torch.ones(1, 3))
    with pytest.raises(ConfigError, match='init="noise"'):
        STSL(half, problem)
    with pytest.raises(ConfigError, match="norm of the operator"):
        STSL(half, problem, init="noise", trace_weight="bound")
    STSL(half, problem, init="noise")
    for name in ("pndm", "fpndm"):
        with pytest.raises(ConfigError, match="Runge-Kutta"):
            STSL(half).pair(recon.SOLVERS[name]())
    with pytest.raises(ConfigError, match="no problem"):
        STSL(half).run(Euler(), GRID, torch.zeros(1, 3), Noise(0))
    with pytest.raises(ConfigError, match="levels of its walk"):
        last(walk(STSL(half, NOTHING), Euler(), GRID, torch.zeros(1, 3), Noise(0)))
    with pytest.raises(ConfigError, match="without a gradient"):
        STSL(lambda x, s: 0.5 * x.detach(), NOTHING).gradient(torch.zeros(1, 3).double(), 0.5, None)


def test_a_second_start_is_refused():
    """An inversion would overwrite the image it was told to start from."""
    problem, world = measured("dense"), world_of(MEASURED["dense"]())
    init = random(1, 4, seed=95)
    common = dict(solver="euler", steps=4, init=init, sigma_start=0.5)
    with pytest.raises(ConfigError, match="makes its own start"):
        recon.sample(problem, world, "stsl", form="paper", **common)
    assert recon.sample(problem, world, STSL(world, init="noise"), **common).samples.isfinite().all()

    class Starting:
        data_var = 1.0
        __call__ = staticmethod(half)

        def start(self, noise, top, counted):
            raise AssertionError

    with pytest.raises(ConfigError, match="a prior with one"):
        recon.sample(problem, Starting(), "stsl", "euler", steps=4, form="paper")


def test_a_run_that_diverges_says_so():
    problem, world = measured("dense"), world_of(MEASURED["dense"]())
    with pytest.raises(recon.errors.SamplingError, match="STSL"):
        recon.sample(problem, world, STSL(world, lam=1e60), "euler", steps=8)


def test_the_state_goes_through_untouched_at_zero():
    state = State(random(1, 3), 0.0, past=(1.0,))
    assert STSL(half, NOTHING).correct(state, None, Noise(0).at(0)) is state  # type: ignore[arg-type]
