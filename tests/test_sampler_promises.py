"""What every registered sampler promises: its price, its refusals, its independence of the batch, and how it fails."""

from __future__ import annotations

import inspect
import math
import re
import warnings
from itertools import pairwise

import pytest
import torch
from measurements import MASK, measured
from tables import POSTERIORS, PosteriorRow
from torch import Tensor
from worlds import isotropic, random, random_complex

import operators as op
import recon
from recon import Problem, grids
from recon.errors import ConfigError, SamplingError
from recon.jobs.list import samplers
from recon.posteriors import DDS, DPS, MMPS, STSL, Active, Ensemble, PiGDM, Posterior, REDDiff
from recon.posteriors.active.active import Measure
from recon.priors import Prior
from recon.problem import refuse_no_numbers
from recon.registry.objects import make_solver
from recon.restoration import RDDM, RestorationPrior
from recon.solvers import DDPM, Euler
from recon.state import Move, State

ROWS = [pytest.param(row, id=label) for label, row in POSTERIORS.items()]


def untouched(x: Tensor, sigma: float) -> Tensor:
    raise AssertionError("the network was called")


# --- the price ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", recon.POSTERIORS)
def test_the_list_tells_the_price(name):
    """``recon list samplers``: calls a step under a one-call solver, as a run of the defaults counts them."""
    told = next(row for row in samplers()[1] if row[0] == name)[1]
    calls, level = (int(part) for part in ([*told.split(" + "), "0"])[:2])
    problem, prior = measured("inpainting"), isotropic((1, 2, 2), 0.7)
    counted = []

    def counting(x, sigma):
        counted.append(sigma)
        return prior(x, sigma)

    result = recon.sample(problem, counting, name, "ddpm" if name == "smc" else "euler", steps=6, samples=2)
    assert result.network_calls == len(counted) == 6 * (calls + level)


# --- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "y, said",
    [
        (torch.zeros(1, 1, 2, 2, device="meta"), "y is on meta"),
        (torch.zeros(1, 1, 2, 2, dtype=torch.int64), r"y is torch.int64"),
        (torch.zeros(1, 1, 2, 2, dtype=torch.bool), r"y is torch.bool"),
        (torch.zeros(1, 1, 2, 2, dtype=torch.complex64), r"y is torch.complex64"),
        (torch.zeros(0, 1, 2, 2), "y holds no image"),
        (torch.zeros(1, 1, 2, 3), r"y is \(1, 1, 2, 3\)"),
        (torch.full((1, 1, 2, 2), math.nan), "y contains NaN"),
    ],
    ids=["device", "whole numbers", "bool", "complex", "empty", "shape", "NaN"],
)
@pytest.mark.parametrize("A", [op.Inpainting(MASK.float()), op.Identity((1, 2, 2))], ids=["tensors", "none"])
def test_measurements_that_cannot_be_used(A, y, said):
    """What, why, and what to do; whether or not the operator has tensors of its own."""
    with pytest.raises(ConfigError, match=said) as error:
        Problem(A, y, 0.1)
    assert error.value.why and error.value.do
    if y.device.type == "meta":
        with pytest.raises(ConfigError, match="meta"):
            Problem(A.to("meta"), y, 0.1)


@pytest.mark.parametrize(
    "init, said",
    [(torch.full((1, 1, 2, 2), math.nan), "init contains NaN"), (torch.zeros(1, 1, 2, 2, device="meta"), "meta")],
    ids=["NaN", "device"],
)  # fmt: skip
def test_starts_that_cannot_be_used(init, said):
    with pytest.raises(ConfigError, match=said) as error:
        recon.sample(measured("inpainting"), untouched, "dds", init=init, sigma_start=0.3)
    assert error.value.why and error.value.do
    refuse_no_numbers("x", random_complex(2, 2))


class Squared(op.Operator):
    domain = (4,)

    def forward(self, x: Tensor) -> Tensor:
        return x.square()


@pytest.mark.parametrize("row", ROWS)
def test_nonlinear_operators_are_walked_or_refused_before_the_first_call(row: PosteriorRow):
    problem = Problem(Squared(), random(1, 4).square(), 0.1)
    kind = recon.POSTERIORS[row.name]
    if kind.linear_only:
        with pytest.raises(ConfigError, match="not linear") as error:
            recon.sample(problem, untouched, row.make(untouched, None), "ddpm", steps=4)
        assert error.value.why and error.value.do
        return
    sampler = {
        "daps": lambda p: kind(p, step=1e-4),
        "stsl": lambda p: STSL(p, init="noise", zeta=1e-3),
        "smc": lambda p: kind(p, guide=None),  # explicit guidance knows no bound of this operator
    }
    prior = isotropic((4,), 0.7)
    made = sampler.get(row.name, lambda p: row.make(p, None))(prior)
    grid = grids.karras(12, 2.0)
    solver = "ddpm" if row.name == "smc" else "euler"
    assert recon.sample(problem, prior, made, solver, grid=grid, samples=2).samples.isfinite().all()


def measuring(A) -> Measure:
    return lambda chosen: A.forward(torch.ones(1, *A.domain, dtype=torch.float64)) * chosen


@pytest.mark.parametrize("samples, budget, said", [(1, 3, "one sample"), (3, 9, "has 4"), (3, 1, "already")])
def test_active_is_refused_before_a_prior_that_starts_by_itself_is_asked(samples, budget, said):
    """A restoration prior asks its network for the start: nothing is left to refuse by then."""
    problem, full = measured("inpainting"), op.Inpainting(torch.ones_like(MASK))
    prior = RestorationPrior(lambda *a: untouched(*a[:2]), RDDM(), torch.zeros(1, 1, 2, 2).double())
    sampler = Active(DDS(prior), measure=measuring(full), budget=budget)
    with pytest.raises(ConfigError, match=said):
        recon.sample(problem, prior, sampler, DDPM(), steps=5, samples=samples)


# --- the seams ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row", [r for r in ROWS if type(r.values[0].make(untouched, None)).run is Posterior.run]
)
def test_the_seams_keep_what_they_promise(row: PosteriorRow):
    """``denoise`` is pure; who moves the state restarts the solver; ``correct`` keeps the level, shape and dtype."""
    prior, grid, noise = isotropic((1, 2, 2), 0.7), grids.karras(6, 9.0), recon.noise.Noise(0, (0,), 3)
    solver = make_solver("sde-dpm++2m" if row.name == "smc" else "dpm++2m")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # some lose their order under a multistep solver
        sampler = row.make(prior, measured("inpainting").repeated(3))
        sampler.pair(solver)
        sampler = sampler.prepared(solver, grid, 3)
    state = sampler.start(State(9.0 * random(3, 1, 2, 2, seed=6), grid[0]), noise.at(-1))
    for index, (sigma, target) in enumerate(pairwise(grid)):
        x, held, memo = state.x.clone(), dict(vars(sampler)), state.memo
        first, second = (sampler.denoise(state.x, sigma, memo) for _ in range(2))
        for name in ("x0", "eps", "prior"):
            assert torch.equal(getattr(first, name), getattr(second, name))
            assert getattr(first, name).shape == x.shape and getattr(first, name).dtype == x.dtype
        assert torch.equal(state.x, x) and vars(sampler) == held and state.memo is memo
        draw = noise.at(index)
        step = solver.step(lambda x, s, m=memo: sampler.denoise(x, s, m), x, sigma, target, state.past, draw)
        reached = State(step.mean + step.std * draw(x), target, step.est.x0, state.log_w, step.past, memo)
        before, state = state, sampler.correct(reached, Move(state, step, solver, sigma, target), draw)
        assert state.sigma == target and state.x.shape == x.shape and state.x.dtype == x.dtype
        copied = all(any(torch.equal(mine, theirs) for theirs in reached.x) for mine in state.x)
        assert copied or state.past == () or target == 0, "it moved the state under the solver"
        assert torch.equal(before.x, x) and vars(sampler) == held


# --- measurements without noise ----------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("name", ["MRI", "inpainting", "coils"])
def test_without_noise_nothing_is_divided_by_it(row: PosteriorRow, name):
    """Float32 ends where float64 does, or sigma 0 is refused with the way out: no rounding is blown up."""
    single = op.MRI(torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0, 1.0]), shape=(5, 6))
    A = {
        "MRI": single,
        "inpainting": op.Inpainting((random(6, 5, seed=1) > 0).float()),
        "coils": op.MRI(single.mask.expand(5, 6), random_complex(3, 5, 6, seed=2).to(torch.complex64)),
    }[name]
    A64 = A.to(torch.float64)
    draw = random_complex if A.complex_domain else random
    y = A64.forward(draw(1, *A.domain, seed=4))
    world = isotropic(tuple(A.domain), 0.7, A.complex_domain)

    single_precision = Prior(lambda x, sigma: world(x.to(y.dtype), sigma).to(x.dtype), of=world)
    ends = []
    for precise, operator, data, prior in (
        (True, A64, y, world),
        (False, A, y.to(torch.complex64 if y.is_complex() else torch.float32), single_precision),
    ):
        try:
            made = row.make(prior, Problem(operator, data).repeated(2))
        except ConfigError as refusal:
            assert re.search(r"sigma (is )?0|no singular value", refusal.what + refusal.why) and refusal.do
            return
        solver = DDPM() if row.name == "smc" else Euler()
        start = 9.0 * draw(2, *A.domain, seed=5).to(y.dtype if precise else data.dtype)
        *_, state = made.run(solver, grids.karras(10, 9.0), start, recon.noise.Noise(0, (0,), 2))
        ends.append(state.x.to(y.dtype))
    error = float((ends[1] - ends[0]).norm() / ends[0].norm())
    assert error < 2e-3, error


@pytest.mark.parametrize("sigma_y", [1e-2, 1e-4, 1e-6])
def test_hardly_any_noise_leaves_the_null_space_to_the_prior(sigma_y):
    """Float32, lambda down to 1e-12: in singular coordinates the rounding of what was not measured is not divided."""
    A = op.MRI((torch.arange(32) % 3 == 0).float(), shape=(32, 32))
    D = random_complex(1, 1, 32, 32, seed=1).to(torch.complex64)
    y = A.forward(random_complex(1, 1, 32, 32, seed=2).to(torch.complex64))
    dds, pigdm = DDS(untouched, Problem(A, y, sigma_y)), PiGDM(untouched, Problem(A, y, sigma_y))
    for change in (dds.fit(D, dds.lam(0.5)) - D, pigdm.solved(D, sigma_y**2 / pigdm.r2(0.5))):
        assert float((change - A.normal(change)).norm() / D.norm()) < 1e-6
        assert float((A.forward(D + change) - y).norm() / y.norm()) < max(3 * sigma_y, 1e-5)


# --- batches -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS)
def test_an_operator_an_image_changes_nothing(row: PosteriorRow):
    """Two images with masks and units of their own in one batch: each as if alone."""
    own = (op.Inpainting(MASK), 30.0 * op.Inpainting(1 - MASK))
    prior = isotropic((1, 2, 2), 0.7)
    y = torch.cat([A.forward(random(1, 1, 2, 2, seed=k)) for k, A in enumerate(own)])
    common = dict(solver="ddpm" if row.name == "smc" else "euler", grid=grids.karras(20, 9.0), samples=3)
    together = recon.sample(
        Problem(op.PerImage(own), y, 0.2), prior, row.make(prior, None), images=(4, 9), **common
    )
    for i, (A, name) in enumerate(zip(own, (4, 9), strict=True)):
        alone = recon.sample(
            Problem(A, y[i : i + 1], 0.2), prior, row.make(prior, None), images=(name,), **common
        )
        scale = max(1.0, float(alone.samples.abs().max()))
        torch.testing.assert_close(
            together.samples[i] / scale, alone.samples[0] / scale, rtol=1e-8, atol=1e-8
        )


# --- divergence --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS)
def test_a_run_that_diverges_names_sampler_step_level_and_knob(row: PosteriorRow):
    """Stopped at the first state that is not finite; one bad row of several is enough, and is not zeroed."""
    seen = []

    def broken(x, sigma):
        bad = torch.ones(len(x), *[1] * (x.ndim - 1), dtype=x.dtype)
        bad[-1] = math.nan if sigma < 2 else 1.0
        return 0.5 * bad * x

    sampler = row.make(broken, None)
    solver = "ddpm" if row.name == "smc" else "euler"
    with pytest.raises(SamplingError) as error:
        recon.sample(
            measured("inpainting"), broken, sampler, solver, grid=[8.0, 4.0, 2.5, 1.5, 0.8, 0.3, 0.0],
            samples=3, watch=lambda i, s, r: seen.append(s),
        )  # fmt: skip
    found = re.match(r"(\w+) with \w+ diverged at step (\d), sigma ([\d.]+)\.", error.value.what)
    assert found is not None and found[1] == type(sampler).__name__
    assert int(found[2]) == len(seen) <= 3
    assert all(state.x.isfinite().all() for state in seen)
    assert error.value.why and error.value.do == sampler.knob


def test_every_sampler_has_a_knob_of_its_own():
    """It names an option of the sampler; around another sampler it is that one's."""
    plain = Posterior.knob
    for name, kind in recon.POSTERIORS.items():
        if name == "prior":
            continue
        knob = kind(untouched).knob
        assert knob != plain
        options = set(inspect.signature(kind).parameters) - {"prior", "problem"}
        assert options & set(re.findall(r"[a-z_]+", knob)), name
    assert Ensemble(DPS(untouched)).knob == DPS.knob == "Lower zeta."
    assert Active(MMPS(untouched), measure=lambda c: c, budget=3).knob == MMPS.knob
    assert "lr" in REDDiff.knob and "zeta" in STSL.knob


def test_the_first_call_is_refused_for_every_misspelt_name():
    for kind in ("posterior", "solver", "grid"):
        with pytest.raises(ConfigError, match="There is no"):
            recon.sample(measured("dense"), untouched, **{kind: "ddss"})  # type: ignore[arg-type]
