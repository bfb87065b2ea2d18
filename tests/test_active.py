"""Active subsampling: scores against the exact oracle, budgets kept exactly, problems that grow, records that replay."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor
from worlds import GaussianWorld, last, random, random_complex

import operators as op
import recon
from recon import Problem
from recon.actions import Actions, Lines, Points, Views, offered
from recon.errors import ConfigError, SamplingError
from recon.noise import Noise
from recon.posteriors import DAPS, DDS, DPS, Active, Ensemble, PiGDM, Posterior
from recon.posteriors.active.choosing import POLICIES, Belief, Entropy, LogDet, Variance
from recon.posteriors.active.picture import draw_record
from recon.posteriors.active.record import Record
from recon.priors import Gaussian
from recon.solvers import DDPM, DPMpp, Euler
from recon.state import State

F64 = torch.float64
SCORES = {
    "element": Entropy(bandwidth=0.3),
    "element-own": Entropy(),
    "line": Entropy("line", 1.5),
    "line-own": Entropy("line"),
    "official": Entropy("official", 1.5),
    "variance": Variance(),
    "logdet": LogDet(),
}


def belief(z: Tensor, weights: Tensor | None = None, open: Tensor | None = None, **about) -> Belief:
    S, n, _ = z.shape
    weights = torch.full((S,), 1 / S, dtype=F64) if weights is None else weights
    open = torch.ones(n, dtype=torch.bool) if open is None else open
    known = {
        "sigma": 0.3, "first_open": open, "places": torch.arange(n)[:, None], "total": 1, "done": 0,
        "image": 0, "uniform": lambda: random(n).abs(),
    }  # fmt: skip
    return Belief(z=z, weights=weights, open=open, **{**known, **about})


def covariance(n: int, seed: int, scale: Tensor | None = None) -> Tensor:
    b = random(n, 2 * n, seed=seed)
    C = b @ b.T / (2 * n)
    return C if scale is None else scale[:, None] * C * scale


def rank(values: Tensor) -> Tensor:
    return values.argsort().argsort().double()


# --- the scores (spec 6.6) -----------------------------------------------------------------------------------


@cache
def oracle_problems(elements: int, is_complex: bool) -> list[tuple[Tensor, Tensor]]:
    """Information of 8 lines in nats, exact; and 512 exact samples."""
    found = []
    size = elements * (2 if is_complex else 1)
    for seed in range(100 if size == 1 else 50):  # of larger lines four in five are told apart, of these two
        C = covariance(8 * size, seed, torch.exp(0.5 * random(8, seed=500 + seed)).repeat_interleave(size))
        lines = C.view(8, size, 8, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        exact = torch.logdet(torch.eye(size, dtype=F64) + lines / 0.3**2) / 2
        z = random(512, 8 * size, seed=1000 + seed) @ torch.linalg.cholesky(C).T
        z = torch.view_as_complex(z.view(512, 8, elements, 2)) if is_complex else z.view(512, 8, elements)
        found.append((exact, z))
    return found


@pytest.mark.parametrize("elements, is_complex", [(1, False), (3, False), (2, True)])
@pytest.mark.parametrize("score", ["element", "element-own", "logdet"])
def test_the_choice_is_the_oracles(score, elements, is_complex):
    """T-ADS-1: in at least 95 % of the cases with a gap of .3 nats; rank correlation above .95."""
    agreed, ranks = [], []
    for exact, z in oracle_problems(elements, is_complex):
        (chosen,), scores = SCORES[score].pick(belief(z), 1)
        first, second = exact.topk(2).values
        if first - second > 0.3:
            agreed.append(chosen == int(exact.argmax()))
        ranks.append(torch.corrcoef(torch.stack([rank(exact), rank(scores)]))[0, 1])
    assert len(agreed) >= 30
    assert sum(agreed) / len(agreed) >= 0.95
    assert torch.stack(ranks).mean() > 0.95


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("is_complex", [False, True])
def test_invariances(score, is_complex):
    """T-ADS-2: order of the particles, a constant image, a global phase, duplicates."""
    z = (random_complex if is_complex else random)(7, 5, 3, seed=2)
    w = random(7, seed=3).softmax(0)
    policy = SCORES[score]
    scores = policy.scores(belief(z, w))
    order = torch.tensor([3, 0, 6, 1, 2, 5, 4])
    same = [(z[order], w[order]), (z + z[:1], w)]
    double = torch.tensor([0, 0, 1, 2, 3, 4, 5, 6])
    share = torch.tensor([0.3, 0.7, 1, 1, 1, 1, 1, 1], dtype=F64)
    same.append((z[double], w[double] * share))
    if is_complex:
        same.append((z * complex(math.cos(1.0), math.sin(1.0)), w))
    for other, weights in same:
        torch.testing.assert_close(policy.scores(belief(other, weights)), scores, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("score", SCORES)
def test_twice_the_spread_raises_the_rank(score):
    z = random(16, 6, 2, seed=4)
    before = rank(SCORES[score].scores(belief(z)))
    middle = int((before == 2).nonzero())
    wide = z.clone()
    wide[:, middle] *= 2
    assert rank(SCORES[score].scores(belief(wide)))[middle] > before[middle]


def test_two_particles_all_line_scores_agree():
    """T-ADS-3: with N = 2 the line forms, both bounds, and the published sign have one argmax."""
    forms = [Entropy("line", 1.0), Entropy("line", 2.0), Entropy("official", 1.0), LogDet(), Variance()]
    for seed in range(30):
        z = random(2, 6, 3, seed=seed)
        assert len({form.pick(belief(z), 1)[0][0] for form in forms}) == 1
        single = random(2, 6, 1, seed=seed)
        assert Entropy().pick(belief(single), 1)[0] == Entropy("line").pick(belief(single), 1)[0]


@pytest.mark.parametrize("score", SCORES)
def test_identical_particles_tie_at_zero(score):
    """T-ADS-4: no spread, no NaN; the first open action is taken."""
    z = random(1, 5, 3, seed=5).expand(6, 5, 3)
    open = torch.tensor([False, False, True, True, True])
    picked, scores = SCORES[score].pick(belief(z, open=open), 2)
    torch.testing.assert_close(scores, torch.zeros(5, dtype=F64), rtol=0, atol=1e-9)
    assert picked[0] == 2 and len(set(picked)) == 2 and open[picked].all()


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_large_distances_stay_finite(score, dtype):
    """T-ADS-7: d = 1e6 s^2 and more, also where a particle has no weight."""
    z = (300 * random(8, 4, 3, seed=6)).to(dtype)
    w = torch.tensor([0.5, 0, 0.25, 0.25, 0, 0, 0, 0], dtype=F64)
    for weights in (None, w):
        assert torch.isfinite(SCORES[score].scores(belief(z, weights))).all()


def test_entropy_by_hand():
    """Two equal particles and one apart by d: ``-2/3 ln(2/3 + e/3) - 1/3 ln(1/3 + 2 e/3)``."""
    z = torch.tensor([0.0, 0.0, 1.2], dtype=F64).view(3, 1, 1)
    e = math.exp(-(1.2**2) / (2 * 0.5**2))
    wanted = -2 / 3 * math.log(2 / 3 + e / 3) - 1 / 3 * math.log(1 / 3 + 2 * e / 3)
    for form in ("element", "line"):
        assert float(Entropy(form, 0.5).scores(belief(z))) == pytest.approx(wanted, rel=1e-12)


def test_elements_do_not_saturate_and_a_line_does():
    z = torch.cat([100 * random(4, 1, 6, seed=7), 50 * random(4, 1, 12, seed=8)[..., :6]], 1)
    assert (Entropy("line", 0.1).scores(belief(z)) - math.log(4)).abs().max() < 1e-9
    assert Entropy("element", 0.1).scores(belief(z)).max() > 2 * math.log(4)


def test_blocks_of_actions_change_nothing(monkeypatch):
    z = random(5, 7, 3, seed=9)
    whole = {name: policy.scores(belief(z)) for name, policy in SCORES.items()}
    monkeypatch.setattr("recon.posteriors.active.disagreement.DIFFERENCES_AT_ONCE", 20)
    for name, policy in SCORES.items():
        torch.testing.assert_close(policy.scores(belief(z)), whole[name], rtol=1e-12, atol=1e-12)


def test_several_at_once_avoid_neighbours_and_repeats():
    z = random(16, 9, 1, seed=10) * 0.1
    z[:, 4] = 3 * random(16, 1, seed=11)
    z[:, 5] = 0.9 * z[:, 4]  # tells the same
    z[:, 0] = 1.5 * random(16, 1, seed=12)
    for policy in (Entropy(), LogDet()):
        picked, _ = policy.pick(belief(z), 4)
        assert picked[:2] == [4, 0] and len(set(picked)) == 4


def test_diverged_particles_are_named():
    with pytest.raises(SamplingError, match="not finite"):
        Entropy().pick(belief(random(4, 3, 1) * math.nan), 1)


def test_an_active_run_that_diverges_names_step_and_knob():
    def broken(x, sigma):
        return x * math.nan if sigma < 2 else x

    _, problem, scanner, _, _ = setting("mri")
    active = Active(DDS(broken), measure=scanner, budget=6)
    with pytest.raises(SamplingError, match=r"Active around DDS diverged at step \d+, sigma") as error:
        recon.sample(problem, broken, active, "ddpm", steps=8, samples=4)
    assert error.value.do == DDS.knob


def test_the_trace_is_of_what_is_measured_by_then():
    """The residual of a state is that under the problem it has, not under the one the walk began with."""
    prior, problem, scanner, _, _ = setting("mri")
    sampler, found = Active(DDS(prior), measure=scanner, budget=7), []

    def watch(index, state, residual):
        found.append((residual, float(state.memo.problem.residual(state.x0).median())))

    recon.sample(problem, prior, sampler, "ddpm", steps=8, samples=4, watch=watch)
    assert all(residual == pytest.approx(own) for residual, own in found) and len(found) == 8


def test_greedy_choices_shrink_the_posterior_at_least_as_fast_as_random():
    """T-ADS-6: tr(P) after each of 5 of 12 pixels, a mean over 100 Gaussian problems, exact particles."""
    traces = {name: torch.zeros(5, dtype=F64) for name in ("entropy", "variance", "logdet", "random")}
    for name in traces:
        policy = POLICIES[name]()
        for seed in range(100):
            P = covariance(12, seed, torch.exp(0.5 * random(12, seed=300 + seed)))
            open = torch.ones(12, dtype=torch.bool)
            for k in range(5):
                values, basis = torch.linalg.eigh(P)
                z = random(32, 12, seed=1000 * k + seed) * values.clamp_min(0).sqrt() @ basis.T
                noise = torch.rand(12, dtype=F64, generator=torch.Generator().manual_seed(1000 * k + seed))
                known = belief(z[..., None], open=open, uniform=lambda noise=noise: noise)
                ((chosen,), _) = policy.pick(known, 1)
                open[chosen] = False
                P = P - P[:, chosen, None] * P[chosen] / (P[chosen, chosen] + 0.3**2)
                traces[name][k] += P.trace() / 100
    for name in ("entropy", "variance", "logdet"):
        assert (traces[name] < traces["random"]).all(), traces
    assert traces["entropy"][-1] < 0.85 * traces["random"][-1], traces


# --- problems that grow ----------------------------------------------------------------------------------


def columns(*on: int, width: int = 8) -> Tensor:
    mask = torch.zeros(width, dtype=F64)
    mask[list(on)] = 1
    return mask


MAPS = random_complex(3, 4, 8, seed=20)


@cache
def scan(size: int = 6) -> op.CT:
    return op.CT(size, torch.arange(0, 180, 20.0)).to(F64)


def views(*on: int) -> op.CT:
    return scan().of_views(columns(*on, width=9).bool())


# small, what it measures at the start, what everything, and the actions asked for
OFFERS = {
    "mri": (lambda *on: op.MRI(columns(*on), shape=(4, 8)), range(8), None),
    "coils": (lambda *on: op.MRI(columns(*on), MAPS), range(8), None),
    "scaled": (
        lambda *on: op.MRI(columns(*on), MAPS) @ op.Scale(0.5, (1, 4, 8), complex_domain=True),
        range(8),
        None,
    ),
    "mri points": (
        lambda *on: op.MRI(columns(*on, width=32).view(4, 8), MAPS),
        range(32),
        "points",
    ),
    "pixels": (lambda *on: op.Inpainting(columns(*on, width=16).view(4, 4), channels=2), range(16), None),
    "image lines": (lambda *on: op.Inpainting(columns(*on).expand(4, 8)), range(8), "lines"),
    "views": (views, range(9), scan()),
}


def images(A, batch: int, seed: int = 30) -> Tensor:
    return (random_complex if A.complex_domain else random)(batch, *A.domain, seed=seed)


def marks(A, asked, *rows: tuple[int, ...]) -> Tensor:
    offer = offered(A, asked)
    part = A.outer if hasattr(A, "outer") else A
    chosen = torch.zeros(len(rows), math.prod(offer.shape(part)), dtype=torch.bool)
    for own, row in zip(chosen, rows, strict=True):
        own[list(row)] = True
    return chosen.view(len(rows), *offer.shape(part))


@pytest.mark.parametrize("name", OFFERS)
def test_acquire_is_the_larger_problem(name):
    """A batch of two, each with its own choice, against operators built for it; the old problem is as it was."""
    make, everything, asked = OFFERS[name]
    A, x = make(1, 2), images(make(1, 2), 2)
    full = make(*everything)
    problem = Problem(A, A(x), 0.1)
    kept = problem.y.clone()
    larger = problem.acquire(marks(A, asked, (5, 3), (0, 6)), full(x), asked)
    for b, wanted in enumerate([make(1, 2, 3, 5), make(0, 1, 2, 6)]):
        one = x[b : b + 1]
        torch.testing.assert_close(larger.y[b : b + 1], wanted(one), rtol=1e-12, atol=1e-12)
        own = larger.A.operators[b]
        torch.testing.assert_close(own(one), wanted(one), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(
            own.adjoint(wanted(one)), wanted.adjoint(wanted(one)), rtol=1e-12, atol=1e-12
        )
    torch.testing.assert_close(larger.backprojection, larger.A.adjoint(larger.y))
    assert larger.sigma == 0.1 and problem.A is A
    assert torch.equal(problem.y, kept) and torch.equal(problem.y, A(x))
    again = larger.acquire(marks(A, asked, (0,), (5,)), full(x), asked)
    torch.testing.assert_close(again.y, again.A(x), rtol=1e-12, atol=1e-12)
    assert again.A.measured > larger.A.measured > A.measured


@pytest.mark.parametrize("name", OFFERS)
def test_equal_choices_keep_one_operator(name):
    """And y may have several rows an image; what is not chosen is never read."""
    make, everything, asked = OFFERS[name]
    A, x = make(1, 2), images(make(1, 2), 2)
    chosen = marks(A, asked, (5,), (5,))
    full = make(*everything)(x)
    values = torch.where(chosen, full, torch.full_like(full, math.nan))
    problem = Problem(A, A(x), 0.1).repeated(3).acquire(chosen, values, asked)
    assert type(problem.A) is type(A)
    torch.testing.assert_close(problem.y, make(1, 2, 5)(x.repeat_interleave(3, 0)), rtol=1e-12, atol=1e-12)


def test_some_views_is_the_ct_of_those_angles():
    size, angles = 9, torch.arange(0, 180, 15.0)
    keep = torch.tensor([0, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1], dtype=torch.bool)
    some, whole = op.CT(size, angles).of_views(keep), op.CT(size, angles[keep])
    assert some.angles == whole.angles and some.codomain == whole.codomain
    assert torch.equal(some.matrix.to_dense(), whole.matrix.to_dense())
    assert torch.equal(some.transpose.to_dense(), whole.transpose.to_dense())
    op.check(some.to(F64))


def test_acquire_refuses():
    make, everything, _ = OFFERS["mri"]
    A, x = make(1, 2), images(make(1, 2), 2)
    problem, full = Problem(A, A(x), 0.1), make(*everything)(x)
    good = marks(A, None, (3,), (4,))
    with pytest.raises(ConfigError, match="already"):
        problem.acquire(marks(A, None, (3,), (2,)), full)
    with pytest.raises(ConfigError, match="bool"):
        problem.acquire(good.double(), full)
    with pytest.raises(ConfigError, match="full size"):
        problem.acquire(good, full[..., :3])
    with pytest.raises(ConfigError, match="complex"):
        problem.acquire(good, full.real)
    with pytest.raises(ConfigError, match="rows"):
        problem.acquire(good[:1].expand(3, 1, 1, 8), full)
    with pytest.raises(ConfigError, match="NaN"):
        problem.acquire(good, full * math.nan)
    with pytest.raises(ConfigError, match="all angles"):
        Problem(views(1, 2), views(1, 2)(random(1, 1, 6, 6))).acquire(good, full)
    with pytest.raises(ConfigError, match="not among"):
        Views(scan()).taken(op.CT(6, [0.0, 11.0]))
    with pytest.raises(ConfigError, match="parts of columns"):
        Lines().taken(op.MRI((random(4, 8) > 0).double()))
    with pytest.raises(ConfigError, match="each channel"):
        Points().taken(op.Inpainting((random(2, 4, 4) > 0).double()))
    with pytest.raises(ConfigError, match="offers no actions"):
        offered(op.Identity((1, 4, 4)))
    with pytest.raises(ConfigError, match="points"):
        offered(A, "point")


# --- walks -----------------------------------------------------------------------------------------------


def world(A, seed: int = 40) -> GaussianWorld:
    n = math.prod(A.domain) * (2 if A.complex_domain else 1)
    decay = torch.linspace(0.2, 1.4, n, dtype=F64)
    return GaussianWorld(torch.zeros(n, dtype=F64), covariance(n, seed, decay), A.domain, A.complex_domain)


class Scanner:
    """Measures, and remembers what it was asked."""

    def __init__(self, full: Tensor):
        self.full, self.asked = full, []

    def __call__(self, chosen: Tensor) -> Tensor:
        self.asked.append(chosen)
        return self.full * chosen


def setting(name: str, batch: int = 2):
    """An active problem: prior, problem, scanner, number of actions, asked."""
    make, everything, asked = OFFERS[name]
    A, x = make(1, 2), images(make(1, 2), batch)
    full = make(*everything)(x)
    return world(A), Problem(A, A(x), 0.05), Scanner(full), len(everything), asked


def run(inner=DDS, name="mri", batch=2, budget=6, samples=4, solver="ddpm", steps=6, active=None, **options):
    prior, problem, scanner, _, asked = setting(name, batch)
    sampler = Active(inner(prior), measure=scanner, budget=budget, actions=asked, **(active or {}))
    return recon.sample(problem, prior, sampler, solver, steps=steps, samples=samples, **options), scanner


@pytest.mark.parametrize("name", OFFERS)
@pytest.mark.parametrize("choose", POLICIES)
def test_the_budget_is_kept_and_nothing_is_measured_twice(name, choose):
    """T-ADS-5, in a batch of two; one network call a step, as without."""
    result, scanner = run(name=name, budget=8, active={"choose": choose})
    record = result.acquired
    asked = torch.stack(scanner.asked).flatten(2)
    assert (asked.sum(0) <= 1).all() and not (asked.any(0) & record.initial.flatten(1)).any()
    assert record.mask.flatten(1).sum(1).tolist() == [8, 8]
    assert asked.sum((0, 2)).tolist() == [6, 6]
    assert torch.equal(record.mask.flatten(1), record.initial.flatten(1) | asked.any(0))
    assert result.network_calls == 6 and torch.isfinite(result.samples.abs()).all()


@pytest.mark.parametrize("budget, steps", [(8, 3), (8, 40), (2, 5), (3, 2)])
def test_any_budget_at_any_number_of_steps(budget, steps):
    result, scanner = run(budget=budget, steps=steps)
    assert result.acquired.mask.sum((1, 2, 3)).tolist() == [budget] * 2
    assert sum(int(mask[0].sum()) for mask in scanner.asked) == budget - 2


def test_the_window():
    grid = [10.0, 6.0, 4.0, 2.0, 1.0, 0.5, 0.2, 0.0]
    for options, wanted in [
        ({"window": (0.0, 1.0)}, [0, 1, 4, 5]),
        ({"window": (0.0, 0.5)}, [0, 1, 1, 2]),
        ({"sigmas": (4.0, 0.6)}, [1, 2, 2, 3]),
        ({"sigmas": (1.0, 1.0 - 1e-9)}, [3, 3, 3, 3]),
    ]:
        result, _ = run(grid=grid, active=options)
        taken = [(a.step, a.sigma) for a in result.acquired.choices for _ in a.chosen[0]]
        assert len(taken) == 4 and all(sigma == grid[step + 1] for step, sigma in taken)
        if options != {"window": (0.0, 1.0)}:
            assert [step for step, _ in taken] == wanted
        else:
            assert taken[0][0] == 0 and taken[-1][0] == 5
    with pytest.raises(ConfigError, match="No step"):
        run(grid=grid, active={"sigmas": (0.4, 0.3)})


@pytest.mark.parametrize("inner", [DDS, PiGDM, DPS, lambda prior: Ensemble(DDS(prior, keep="state"))])
def test_without_anything_to_measure_it_is_the_inner_sampler(inner):
    prior, problem, scanner, _, _ = setting("mri")
    options = {"solver": "ddpm", "steps": 6, "samples": 3}
    active = recon.sample(problem, prior, Active(inner(prior), measure=scanner, budget=2), **options)
    alone = recon.sample(problem, prior, inner(prior), **options)
    assert torch.equal(active.samples, alone.samples) and not scanner.asked
    assert active.network_calls == alone.network_calls
    if alone.log_weights is not None:
        torch.testing.assert_close(active.log_weights, alone.log_weights)


def test_the_rest_of_the_walk_is_the_inner_samplers_on_the_larger_problem():
    """And a multistep solver restarts: the walk after the only acquisition, by hand from its state."""
    prior, problem, scanner, _, _ = setting("mri", batch=1)
    grid, noise, S = [10.0, 5.0, 2.0, 1.0, 0.4, 0.0], Noise(0, (0,), 4), 4
    rows = problem.repeated(S)
    sampler = Active(DDS(prior), rows, measure=scanner, budget=4, sigmas=(2.0, 1.5))
    start = grid[0] * noise(images(problem.A, S), -1, "start")
    states = list(sampler.run(DPMpp(nodes=2), grid, start, noise))
    assert [len(state.past) > 0 for state in states[:3]] == [True, False, True]
    (acquisition,) = states[-1].memo.record.choices
    assert acquisition.step == 1 and len(acquisition.chosen[0]) == 2
    larger = states[1].memo.problem
    wanted = OFFERS["mri"][0](1, 2, *acquisition.chosen[0])
    torch.testing.assert_close(larger.y, scanner.full.repeat(S, 1, 1, 1) * wanted.mask, rtol=0, atol=0)
    by_hand = last(DDS(prior, larger).run(DPMpp(nodes=2), grid[2:], states[1].x, noise))
    torch.testing.assert_close(states[-1].x, by_hand.x, rtol=1e-12, atol=1e-12)
    assert sampler.problem is rows and torch.equal(sampler.inner.problem.y, rows.y)


def test_an_image_does_not_depend_on_its_batch():
    for choose in ("entropy", "random"):
        both, _ = run(batch=2, active={"choose": choose})
        prior, problem, scanner, _, _ = setting("mri", 2)
        alone = Problem(problem.A, problem.y[1:], problem.sigma)
        sampler = Active(DDS(prior), measure=Scanner(scanner.full[1:]), budget=6, choose=choose)
        one = recon.sample(alone, prior, sampler, "ddpm", steps=6, images=(1,))
        assert one.acquired.chosen[0] == both.acquired.chosen[1]
        torch.testing.assert_close(one.samples[0], both.samples[1], rtol=1e-10, atol=1e-10)
        assert both.acquired.chosen[0] != both.acquired.chosen[1]


@pytest.mark.parametrize("inner", [DDS, PiGDM])
def test_choosing_pays_in_the_end(inner):
    """Where k-space falls off towards its edges: less than half the error of lines at random, or evenly spaced."""
    height, width = 4, 24
    f, g = (torch.arange(n, dtype=F64).sub(n // 2).abs() for n in (width, height))
    power = (1 + f / 2) ** -2 / (1 + g[:, None])

    class Spectral:
        data_var = float(power.mean())

        def __call__(self, x, sigma):
            return op.ifft2c(op.fft2c(x) * (power / (power + sigma**2)))

    x = op.ifft2c(random_complex(12, 1, height, width, seed=1) * power.sqrt())
    full = op.fft2c(x) + 0.02 * random_complex(12, 1, height, width, seed=2)
    A = op.MRI(columns(width // 2, width=width), shape=(height, width))
    problem, error = Problem(A, full * A.mask, 0.02), {}
    for choose in ("entropy", "random", "equispaced"):
        sampler = Active(inner(), choose=choose, measure=lambda chosen: full * chosen, budget=8)
        result = recon.sample(problem, Spectral(), sampler, steps=12, samples=6)
        error[choose] = float((result.mean - x).abs().square().mean())
    assert error["entropy"] < 0.5 * min(error["random"], error["equispaced"]), error


def test_images_that_start_from_different_lines():
    make, everything, _ = OFFERS["mri"]
    A = op.PerImage((make(1, 2), make(4, 5, 6)))
    x = images(A, 2)
    scanner = Scanner(make(*everything)(x))
    prior = world(make(1))
    sampler = Active(DDS(prior), measure=scanner, budget=6)
    result = recon.sample(Problem(A, A(x), 0.05), prior, sampler, steps=8)
    assert result.acquired.mask.sum((1, 2, 3)).tolist() == [6, 6]
    assert [len(actions) for actions in result.acquired.chosen] == [4, 3]


@pytest.mark.parametrize("name", ["mri", "pixels"])
def test_nothing_measured_at_the_start(name):
    make, everything, _ = OFFERS[name]
    A, prior = make(), world(make())
    x = images(A, 1)
    sampler = Active(DDS(prior), measure=Scanner(make(*everything)(x)), budget=5)
    result = recon.sample(Problem(A, A(x), 0.05), prior, sampler, steps=8)
    assert int(result.acquired.mask.sum()) == 5


# --- around an ensemble ----------------------------------------------------------------------------------


def test_weights_telescope_over_an_acquisition():
    """Unguided and deterministic: in the end a particle weighs ``exp(-mu(x))`` of all that was measured."""
    prior, problem, scanner, _, _ = setting("mri")
    problem = Problem(problem.A, problem.y, 1.0)
    inner = Ensemble(Posterior(prior), temper=0.0, ess=0.0, initial="prior")
    sampler = Active(inner, measure=scanner, budget=6)
    result = recon.sample(problem, prior, sampler, "euler", steps=8, samples=5)
    full = scanner.full * result.acquired.mask
    A = [OFFERS["mri"][0](*mask.flatten().nonzero()[:, 0].tolist()) for mask in result.acquired.mask]
    for b in range(2):
        misfit = A[b](result.samples[b]) - full[b]
        mu = misfit.abs().square().sum((1, 2, 3)) / 2
        torch.testing.assert_close(result.log_weights[b], -mu, rtol=1e-9, atol=1e-9)


def test_particles_count_by_their_weights():
    prior, problem, scanner, _, _ = setting("mri")
    for log_w in (torch.tensor([0.0, -50, -50, 0, 1, 2, 3, 4], dtype=F64), None):
        sampler = Active(DDS(prior), problem.repeated(4), measure=scanner, budget=6)
        sampler = sampler.prepared(DDPM(), [4.0, 2.0, 1.0, 0.5, 0.0], 4)
        noise = Noise(0, (0, 1), 4)
        state = sampler.start(State(images(problem.A, 8), 4.0), noise.at(-1))
        first, second = sampler.beliefs(replace(state, log_w=log_w), noise.at(0))
        if log_w is None:
            assert torch.equal(first.weights, torch.full((4,), 0.25, dtype=F64))
        else:
            torch.testing.assert_close(first.weights, torch.tensor([0.5, 0, 0, 0.5], dtype=F64))
            torch.testing.assert_close(second.weights, log_w[4:].softmax(0))
        assert first.z.shape == (4, 8, 4)
        full = OFFERS["mri"][0](*range(8))(state.x[:4])
        torch.testing.assert_close(first.z[:, 3], full[:, 0, :, 3])


def test_an_ensemble_inside_is_found():
    result, _ = run(inner=lambda prior: Ensemble(DDS(prior, keep="state"), temper=0.5))
    assert result.weights is not None and "ess" in result.trace[0]
    assert result.acquired.mask.sum((1, 2, 3)).tolist() == [6, 6]


# --- the record ------------------------------------------------------------------------------------------


def test_a_record_replays_and_is_saved():
    first, scanner = run(steps=12)
    record = first.acquired
    again, other = run(steps=12, active={"choose": record.replay()})
    assert torch.equal(first.samples, again.samples) and again.acquired.chosen == record.chosen
    assert all(torch.equal(a, b) for a, b in zip(scanner.asked, other.asked, strict=True))
    back = Record.read(json.loads(json.dumps(record.plain())))
    assert back.chosen == record.chosen and back.actions == "lines" and back.shape == (1, 1, 8)
    assert torch.equal(back.masks, record.masks)
    for a, b in zip(back.choices, record.choices, strict=True):
        assert (a.step, a.sigma) == (b.step, b.sigma) and torch.equal(a.scores, b.scores)
    assert record.masks.flatten(2).sum(2)[:, 0].tolist() == list(range(2, 7))
    with pytest.raises(ConfigError, match="another problem"):
        run(budget=8, active={"choose": record.replay()})


def test_the_record_says_why():
    """The chosen action has the largest of the scores written down, among those open."""
    result, _ = run(steps=12)
    record = result.acquired
    for before, acquisition in zip(record.masks, record.choices, strict=False):
        for b, (chosen, *_) in enumerate(acquisition.chosen):
            open = ~before[b].flatten()
            assert open[chosen] and acquisition.scores[b, chosen] == acquisition.scores[b][open].max()


@pytest.mark.parametrize("name", ["mri", "pixels", "views"])
def test_the_picture(name, tmp_path):
    result, _ = run(name=name)
    path = draw_record(result.acquired, tmp_path / "acquired.png", image=1)
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 3000


def test_equispaced_is_evenly_spaced():
    result, _ = run(budget=5, active={"choose": "equispaced"})
    assert result.acquired.chosen[0] == (3, 5, 7) == result.acquired.chosen[1]


def test_actions_of_ones_own():
    """An operator offers actions by a method; here the rows of a matrix, full size and zero where not measured."""

    class Rows(Actions):
        name = "rows"

        def shape(self, A):
            return (len(A.kept),)

        def taken(self, A):
            return A.kept

        def measuring(self, A, taken):
            return Measured(A.matrix, taken)

    class Measured(op.Linear):
        def __init__(self, matrix, kept):
            self.matrix, self.kept, self.domain = matrix, kept, (matrix.shape[1],)

        def forward(self, x):
            return x @ self.matrix.T * self.kept

        def actions(self):
            return Rows()

    A = Measured(random(6, 4, seed=50), torch.tensor([1, 0, 0, 0, 0, 0], dtype=torch.bool))
    x, prior = random(2, 4, seed=51), Gaussian(torch.zeros(4, dtype=F64), 1.0)
    scanner = Scanner(x @ A.matrix.T)
    result = recon.sample(Problem(A, A(x), 0.05), prior, Active(DDS(prior), measure=scanner, budget=4))
    assert result.acquired.mask.sum(1).tolist() == [4, 4] and result.acquired.actions == "rows"


# --- what is refused -------------------------------------------------------------------------------------


class Uncalled(Gaussian):
    def __call__(self, x, sigma):
        raise AssertionError("The network was called.")


@pytest.mark.parametrize(
    "change, said",
    [
        ({"samples": 1}, "one sample"),
        ({"budget": 9}, "has 8"),
        ({"budget": 1}, "measured already"),
        ({"choose": "entropie"}, "entropy"),
        ({"measure": 3}, "measure is 3"),
        ({"window": (0.5, 0.2)}, "window"),
        ({"sigmas": (0.5, 2.0)}, "sigmas"),
        ({"actions": "views"}, "views"),
        ({"steps": 1, "solver": "euler"}, "No step"),
        ({"inner": DAPS}, "loop of its own"),
        ({"inner": lambda p: Active(DDS(p), measure=len, budget=3)}, "active already"),
    ],
)
def test_refused_before_the_first_network_call(change, said):
    prior = Uncalled(torch.zeros(1, 4, 8, dtype=torch.complex128), 1.0)
    _, problem, scanner, _, _ = setting("mri")
    walk = {key: change.pop(key) for key in ("samples", "steps", "solver") if key in change}
    inner = change.pop("inner", DDS)
    with pytest.raises(ConfigError, match=said):
        recon.sample(
            problem, prior, Active(inner(prior), **{"measure": scanner, "budget": 4, **change}), **walk
        )
    assert not scanner.asked


def test_one_sample_is_enough_for_who_does_not_look():
    for choose in ("random", "equispaced"):
        result, _ = run(samples=1, active={"choose": choose})
        assert result.acquired.mask.sum((1, 2, 3)).tolist() == [6, 6]


def test_logdet_needs_noise():
    with pytest.raises(ConfigError, match="without noise"):
        LogDet().check_noise(0.0)
    prior, problem, scanner, _, _ = setting("mri")
    quiet, prior = Problem(problem.A, problem.y), Uncalled(torch.zeros(1, 4, 8, dtype=torch.complex128), 1.0)
    with pytest.raises(ConfigError, match="without noise"):
        recon.sample(quiet, prior, Active(DDS(prior), measure=scanner, budget=4, choose="logdet"))
    assert torch.isfinite(LogDet(noise=0.1).scores(belief(random(4, 3, 2), sigma=0.0))).all()
    for bad in ({"form": "lines"}, {"bandwidth": 0.0}):
        with pytest.raises(ConfigError):
            Entropy(**bad)


@pytest.mark.parametrize(
    "wrong", [lambda c: None, lambda c: torch.zeros(2, 1, 4, 8), lambda c: c * 1j * math.nan]
)
def test_what_measure_returns_is_checked(wrong):
    prior, problem, _, _, _ = setting("mri")
    with pytest.raises(ConfigError):
        recon.sample(problem, prior, Active(DDS(prior), measure=wrong, budget=4), steps=6)


def test_pairs_are_refused_as_the_inner_sampler_does():
    prior, problem, scanner, _, _ = setting("mri")
    with pytest.raises(ConfigError, match="not prepared"):
        Active(DDS(prior), problem, measure=scanner, budget=4).start(State(problem.y, 1.0), Noise(0).at(-1))
    with pytest.raises(ConfigError, match="stochastic"):
        recon.sample(problem, prior, Active(Ensemble(DDS(prior)), measure=scanner, budget=4), Euler())
    with pytest.raises(ConfigError, match="moves the state"):
        Ensemble(Active(DDS(prior), measure=scanner, budget=4))
