"""Ensembles: weights that are exact for the discrete chain, against closed-form posteriors; resampling; bookkeeping."""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections import deque
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import pairwise

import pytest
import torch
from fake_cuda import LEVELS, Given, StayThere, empty, half, moved
from particles import Cloud, particles
from torch import Tensor
from torch._subclasses import FakeTensorMode
from worlds import (
    GaussianWorld,
    Matrix,
    MixtureWorld,
    affine_walk,
    dense,
    flat,
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
from recon.posteriors import DDS, DPS, MCG, SMC, Ensemble, PiGDM, Posterior
from recon.posteriors.ensemble.particles import effective, log_mean
from recon.posteriors.ensemble.potential import Potential
from recon.posteriors.ensemble.resampling import SCHEMES
from recon.posteriors.ensemble.weights import FeynmanKacWeights, PathWeights
from recon.priors import Gaussian, Mixture, chunked
from recon.problem import inner64
from recon.registry.objects import make_sampler
from recon.solvers import DDIM, DDPM, EDM, DPMpp, Euler, Heun, PredictorCorrector, Renoise, Solver
from recon.state import Move, State, Step
from recon.walk import walk

F64 = torch.float64
exact = partial(Ensemble, temper=0.0)


def tensor(*values) -> Tensor:
    return torch.tensor(values, dtype=F64)


@dataclass(frozen=True)
class EulerMaruyama(Solver):
    """``x' = x + 2 (s - t) (D - x) / s + sqrt(2 s (s - t)) z``: the kernel of the published AFDPS."""

    stochastic = True

    def advance(self, denoise, x, est, sigma, target, past, draw) -> Step:
        gap = sigma - target
        return Step(est.x0 + (sigma - 2 * gap) * est.eps, math.sqrt(2 * sigma * gap), est)


def errors(cloud: Cloud, target: GaussianWorld) -> tuple[float, float]:
    """Of the mean, in units of ``sqrt(tr P)``, and of the covariance, relative."""
    mean = (cloud.mean - target.mean).norm() / target.covariance.trace().sqrt()
    return float(mean), float((cloud.covariance - target.covariance).norm() / target.covariance.norm())


def log_evidence(world: GaussianWorld, problem: Problem) -> float:
    """``ln E exp(-mu)``: ``-r^T S^-1 r / 2 - ln det S / 2 + m ln s_y``, ``S = A C A^T + s_y^2``."""
    matrix, r = dense(problem.A), problem.y[0] - dense(problem.A) @ world.mean
    S = matrix @ world.covariance @ matrix.T + problem.sigma**2 * torch.eye(len(r), dtype=F64)
    return float(-r @ torch.linalg.solve(S, r) / 2 - S.logdet() / 2) + len(r) * math.log(problem.sigma)


# --- a Gaussian in four dimensions, two of them measured ----------------------------------------------------

WORLD = GaussianWorld(torch.zeros(4, dtype=F64), tensor(2.0, 1.0, 0.5, 0.2).diag(), (4,))
PROBLEM = Problem(Matrix(tensor([0.8, 0.0, 0.6, 0.0], [0.0, 0.6, 0.0, 0.8])), tensor([0.9, -0.5]), 0.3)
EXACT = WORLD.posterior(PROBLEM.A, PROBLEM.y, 0.3)
PIGDM = {"variance": lambda s: s * s / (1 + s * s)}


@cache
def chain(solver: Solver, steps: int) -> GaussianWorld:
    """The law of the solver's unguided chain, which the prior's particles have."""
    law = affine_walk(Posterior(WORLD), solver, grids.karras(steps, 20.0), (4,))
    mean, covariance = law.moments(torch.zeros(4, dtype=F64), 400 * torch.eye(4, dtype=F64))
    return GaussianWorld(mean, (covariance + covariance.T) / 2, (4,))


def conditioned(solver: Solver, steps: int) -> GaussianWorld:
    return chain(solver, steps).posterior(PROBLEM.A, PROBLEM.y, 0.3)


def test_the_instance_is_the_known_one():
    torch.testing.assert_close(
        EXACT.mean, tensor(0.929032, -0.519031, 0.174194, -0.138408), rtol=0, atol=5e-7
    )
    assert float(EXACT.covariance.trace()) == pytest.approx(1.323195, abs=5e-7)
    assert log_evidence(WORLD, PROBLEM) == pytest.approx(-2.830536, abs=5e-7)
    known = {50: (2.13897, 1.07347, 0.53878, 0.21664), 200: (2.03258, 1.01723, 0.50908, 0.20389)}
    for steps, variances in known.items():
        found = chain(EulerMaruyama(), steps).covariance
        torch.testing.assert_close(found, tensor(*variances).diag(), rtol=0, atol=1e-5)


CONVERGING = {
    "Feynman-Kac": (lambda: SMC(WORLD, PROBLEM, weights="feynman-kac"), EulerMaruyama()),
    "denoised": (lambda: SMC(WORLD, PROBLEM), EulerMaruyama()),
    "PiGDM": (lambda: exact(PiGDM(WORLD, PROBLEM, **PIGDM)), EulerMaruyama()),
    "unguided": (lambda: SMC(WORLD, PROBLEM, guide=None, initial="prior"), EulerMaruyama()),
    "denoised, ddpm": (lambda: SMC(WORLD, PROBLEM), DDPM()),
    "ODE and correctors": (lambda: SMC(WORLD, PROBLEM, langevin=3), DPMpp(rule="midpoint")),
    "the paper's ODE and correctors": (lambda: SMC(WORLD, PROBLEM, weights="feynman-kac", langevin=3), Euler()),
}  # fmt: skip


@pytest.mark.parametrize("name", CONVERGING)
def test_particles_have_the_posteriors_moments(name):
    """200 steps: mean within .05 ``sqrt(tr P)``, covariance within .12; three repetitions averaged."""
    make, solver = CONVERGING[name]
    mean, covariance = errors(particles(make(), solver, grids.karras(200, 20.0), 5000, images=3), EXACT)
    assert mean <= 0.05 and covariance <= 0.12, (mean, covariance)


CORRECTED = {
    "denoised": (lambda: SMC(WORLD, PROBLEM), 0.03, 0.06),
    "PiGDM": (lambda: exact(PiGDM(WORLD, PROBLEM, **PIGDM)), 0.03, 0.06),
    "PiGDM, adaptive": (lambda: exact(PiGDM(WORLD, PROBLEM, form="adaptive")), 0.08, 0.12),
    "DDS": (lambda: exact(DDS(WORLD, PROBLEM, keep="state")), 0.03, 0.06),
    "DPS": (lambda: exact(DPS(WORLD, PROBLEM, form="score", zeta=lambda s: 0.09 / (0.09 + s * s))), 0.03, 0.06),
    "noisy": (lambda: SMC(WORLD, PROBLEM, guide="noisy"), 0.08, 0.12),
    "unguided": (lambda: SMC(WORLD, PROBLEM, guide=None, initial="prior"), 0.08, 0.12),
}  # fmt: skip


@pytest.mark.parametrize("solver", [EulerMaruyama(), DPMpp(eta=1.0, rule="midpoint")], ids=["EM", "SDE-2M"])
@pytest.mark.parametrize("name", CORRECTED)
def test_path_weights_are_exact_for_the_discrete_chain(name, solver):
    """50 steps: the unguided chain's law, conditioned; the chain is visibly another one than the prior."""
    make, of_mean, of_covariance = CORRECTED[name]
    target = conditioned(solver, 50)
    cloud = particles(make(), solver, grids.karras(50, 20.0), 7000, images=3)
    mean, covariance = errors(cloud, target)
    assert mean <= of_mean and covariance <= of_covariance, (mean, covariance)


def test_fifty_steps_miss_the_continuous_posterior():
    """The error that is left is the chain's: it shrinks with the steps, not with the particles."""
    found = {}
    for steps in (50, 200):
        cloud = particles(SMC(WORLD, PROBLEM), EulerMaruyama(), grids.karras(steps, 20.0), 7000, images=3)
        found[steps] = errors(cloud, EXACT)[1]
    assert 0.05 <= found[50] <= 0.12 and found[200] <= 0.04, found


class SharedPast(PathWeights):
    """Wrong: the reference kernel remembers the guided estimates."""

    def ratio(self, state, move, draw):
        shared = replace(state, memo=replace(state.memo, past=move.before.past))
        return super().ratio(shared, move, draw)


class NoRatio(PathWeights):
    """Wrong: the guidance is not paid for."""

    def ratio(self, state, move, draw):
        return 0.0, state.memo.past


@pytest.mark.parametrize("wrong", [SharedPast, NoRatio])
def test_wrong_references_miss_the_discrete_law(wrong):
    solver = DPMpp(eta=1.0, rule="midpoint")
    sampler = exact(PiGDM(WORLD, PROBLEM, **PIGDM)).copied(weighing=wrong())
    cloud = particles(sampler, solver, grids.karras(50, 20.0), 7000, images=3)
    mean, covariance = errors(cloud, conditioned(solver, 50))
    assert mean > 0.03 or covariance > 0.06, (mean, covariance)


def test_an_ensemble_corrects_a_biased_sampler():
    """DDS with a tenth of the matched weight is over-confident; its ensemble is not, at no further network call."""
    solver, levels = DDPM(), grids.karras(100, 20.0)

    def biased(sigma: float) -> float:
        return 0.1 * 0.09 * (1 + 1 / sigma**2)

    inner = DDS(WORLD, PROBLEM, weight=biased, keep="state")
    law = affine_walk(inner, solver, levels, (4,))
    mean, covariance = law.moments(torch.zeros(4, dtype=F64), 400 * torch.eye(4, dtype=F64))
    target = conditioned(solver, 100)
    bias = float((mean - target.mean).norm() / target.covariance.trace().sqrt())
    spread = float((covariance - target.covariance).norm() / target.covariance.norm())
    found = errors(particles(exact(inner), solver, levels, 7000, images=3), target)
    assert bias > 0.1 and spread > 0.2, (bias, spread)
    assert found[0] <= bias / 5 and found[1] <= spread / 4, (found, bias, spread)


def test_variance_preserving_and_exploding_runs_agree():
    """The predictor of either process on its own grid: the same posterior within Monte-Carlo error."""
    for process, levels in (
        (recon.processes.VP(), grids.time_power(200, 20.0)),
        (recon.processes.VE(0.002, 20.0), grids.exponential(200, 20.0)),
    ):
        solver = PredictorCorrector("euler-maruyama", None, process=process)
        mean, covariance = errors(particles(SMC(WORLD, PROBLEM), solver, levels, 5000, images=3), EXACT)
        assert mean <= 0.05 and covariance <= 0.12, (process, mean, covariance)


# --- evidence ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("initial", ["prior", "tilted"])
@pytest.mark.parametrize(
    "make",
    [
        lambda **o: exact(PiGDM(WORLD, PROBLEM, **PIGDM), **o),
        lambda **o: SMC(WORLD, PROBLEM, resample="residual", **o),
    ],
    ids=["PiGDM", "denoised"],
)
def test_the_evidence_is_that_of_the_discrete_chain(make, initial):
    """Mean of the un-normalised weights, collected over resamplings: within 5 % at 50 steps."""
    solver = DDPM()
    cloud = particles(make(initial=initial), solver, grids.karras(50, 20.0), 7000, images=4)
    log_z = float(cloud.log_z.logsumexp(0)) - math.log(4)
    assert log_z == pytest.approx(log_evidence(chain(solver, 50), PROBLEM), abs=0.05)


def test_feynman_kac_weights_approach_path_weights_as_steps_shrink():
    """Their evidence is right in the limit only: a factor of 2 off at 50 steps."""
    solver, gaps = EulerMaruyama(), []
    for steps in (50, 150, 450):
        levels = grids.karras(steps, 20.0)
        fk = particles(SMC(WORLD, PROBLEM, weights="feynman-kac"), solver, levels, 2500, images=2)
        gaps.append(abs(float(fk.log_z.mean()) - log_evidence(chain(solver, steps), PROBLEM)))
    assert gaps[0] > 0.4 and gaps[1] < gaps[0] / 3 and gaps[2] < 0.1, gaps
    path = particles(SMC(WORLD, PROBLEM), solver, levels, 2500, images=2)
    assert float((fk.mean - path.mean).norm() / EXACT.covariance.trace().sqrt()) < 0.08
    assert float((fk.covariance - path.covariance).norm() / EXACT.covariance.norm()) < 0.12


# --- three modes in the plane ------------------------------------------------------------------------------

MODES = Mixture(tensor([-2.0, 1.0], [2.0, 1.0], [0.0, -2.0]), tensor(0.5, 0.3, 0.2), 0.5)
SEEN = Problem(Matrix(tensor([1.0, 0.0])), tensor([0.1]), 0.6)
CENTRES = tensor([-1.139344, 1.0], [1.221311, 1.0], [0.040984, -2.0])
SHARES = tensor(0.05920, 0.06843, 0.87237)


def test_the_modes_are_the_known_ones():
    """Weights, centres and evidence by the mixture's own formulas; mean (.051880, -1.617098)."""
    prior = MixtureWorld(MODES.log_weights.exp(), MODES.means, 0.25 * torch.eye(2, dtype=F64).expand(3, 2, 2))
    exact = prior.posterior(SEEN.A, SEEN.y, 0.6)
    torch.testing.assert_close(exact.weights, SHARES, rtol=0, atol=5e-6)
    torch.testing.assert_close(exact.means, CENTRES, rtol=0, atol=5e-7)
    torch.testing.assert_close(exact.weights @ exact.means, tensor(0.051880, -1.617098), rtol=0, atol=5e-7)
    torch.testing.assert_close(exact.covariances[0], tensor(0.147541, 0.25).diag(), rtol=0, atol=5e-7)
    parts = torch.stack([tensor(log_evidence(GaussianWorld(m, C, (2,)), SEEN)) for m, C in zip(prior.means, prior.covariances, strict=True)])  # fmt: skip
    log_z = float((prior.weights.log() + parts[:, 0]).logsumexp(0))
    assert log_z == pytest.approx(-1.744766, abs=5e-7)
    cloud = particles(SMC(MODES, SEEN), DDPM(), grids.karras(200, 20.0), 5000)
    assert float(cloud.log_z) == pytest.approx(log_z, abs=0.1)


def masses(posterior, solver, seed: int = 0) -> Tensor:
    """Weight of the particles nearest to each mode of the posterior; 10 000 particles, 200 steps from sigma 20."""
    cloud = particles(posterior, solver, grids.karras(200, 20.0), 10_000, seed=seed)
    nearest = torch.cdist(cloud.x[0], CENTRES).argmin(1)
    return torch.zeros(3, dtype=F64).index_add(0, nearest, cloud.w[0])


@pytest.mark.parametrize(
    ("options", "solver"),
    [
        ({"weights": "feynman-kac", "initial": "prior"}, EulerMaruyama()),
        ({"guide": "denoised", "initial": "prior"}, EulerMaruyama()),
        ({"guide": "noisy"}, EulerMaruyama()),
        ({"guide": None, "initial": "prior"}, EulerMaruyama()),
        ({}, DDPM()),
        ({}, DPMpp(eta=1.0, rule="midpoint")),
        ({"initial": "prior"}, DPMpp(rule="midpoint")),
    ],
    ids=["Feynman-Kac", "denoised", "noisy", "unguided", "ddpm", "SDE-2M", "ODE"],
)
def test_modes_have_their_weights(options, solver):
    """.059, .068, .872, within .04 each."""
    torch.testing.assert_close(masses(SMC(MODES, SEEN, **options), solver), SHARES, rtol=0, atol=0.04)


class FeynmanKacAtD(FeynmanKacWeights):
    """Wrong: Feynman-Kac weights with the gradient at the denoised point, the released code's default."""

    def drifted(self, target, state, move):
        alpha, variance, before = target.alpha(move.sigma), move.step.std**2, move.before
        value, gradient = target.potential(before.x), target.potential.gradient(move.step.est.prior)
        slope = alpha**2 * inner64(gradient, gradient) - alpha * target.potential.laplacian
        change = variance / 2 * slope - alpha * inner64(move.step.mean - before.x, gradient)
        change = change - (target.alpha(move.target) * value - before.memo.potential)
        return replace(state, x=state.x - variance * alpha * gradient), change


class NoDecrease(FeynmanKacWeights):
    """Wrong: the change of alpha is left out of the weight."""

    def drifted(self, target, state, move):
        state, change = super().drifted(target, state, move)
        decrease = target.alpha(move.target) - target.alpha(move.sigma)
        return state, change + decrease * target.potential(move.before.x)


class Unweighted(PathWeights):
    """Wrong: guidance without weights."""

    def weighed(self, target, state, move, guided, draw):
        state = super().weighed(target, state, move, guided, draw)
        return replace(state, log_w=torch.zeros_like(state.log_w))


@pytest.mark.parametrize(
    ("wrong", "options"),
    [
        (FeynmanKacAtD, {"weights": "feynman-kac"}),
        (NoDecrease, {"weights": "feynman-kac"}),
        (Unweighted, {"guide": "denoised", "ess": 0.0}),
    ],
    ids=["gradient at D", "no alpha'", "unweighted"],
)
def test_wrong_weights_miss_the_modes(wrong, options):
    sampler = SMC(MODES, SEEN, initial="prior", **options).copied(weighing=wrong())
    found = masses(sampler, EulerMaruyama())
    assert float((found - SHARES).abs().max()) > 0.04, found


# --- identities --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "solver", [Heun(), DPMpp(rule="midpoint"), DDIM(eta=1.0)], ids=["heun", "2M", "ddpm"]
)
@pytest.mark.parametrize("initial", ["prior", "tilted"])
def test_unguided_weights_telescope(solver, initial):
    """``ln w = -mu(x_0)``, plus ``alpha_T mu(x_T)`` where the start is tilted: no error of the steps is in it."""
    starts = []

    class Watched(SMC):
        def start(self, state, draw):
            starts.append(super().start(state, draw))
            return starts[0]

    sampler = Watched(WORLD, PROBLEM.repeated(5), guide=None, initial=initial, ess=0.0)
    state = last(sampler.run(solver, grids.karras(30, 20.0), 20 * random(5, 4), Noise(0, (0,), 5)))
    mu = Potential(PROBLEM.repeated(5))
    expected = -mu(state.x)
    if initial == "tilted":
        expected = expected + sampler.target.alpha(20.0) * mu(starts[0].x)
    torch.testing.assert_close(state.log_w, expected, rtol=0, atol=1e-10)


def test_later_measurements_telescope():
    """A problem that changes between steps is weighed against the stored potential: ``ln w = -mu_2(x_0)``."""
    more = Problem(Matrix(random(3, 4, seed=5)), random(1, 3, seed=6), 0.2).repeated(5)
    first = SMC(
        WORLD, PROBLEM.repeated(5), guide=None, initial="prior", ess=0.0, annealing=lambda s: 1 / (1 + s)
    )
    second, levels, noise = first.given(more), grids.karras(12, 20.0), Noise(0, (0,), 5)
    state = first.start(State(20 * random(5, 4), 20.0), noise.at(-1))
    for index, (s, t) in enumerate(pairwise(levels)):
        sampler = first if index < 5 else second
        step = Euler().step(sampler.denoise, state.x, s, t, state.past, noise.at(index))
        landed = State(step.mean, t, step.est.x0, state.log_w, step.past, state.memo)
        state = sampler.correct(landed, Move(state, step, Euler(), s, t), noise.at(index))
    torch.testing.assert_close(state.log_w, -Potential(more)(state.x), rtol=0, atol=1e-10)


def test_without_data_all_weights_are_equal():
    """alpha = 0: the prior's particles, one by one."""
    sampler = SMC(WORLD, PROBLEM.repeated(6), guide=None, annealing=lambda s: 0.0)
    x, noise = 20 * random(6, 4), Noise(0, (0,), 6)
    state = last(sampler.run(DDPM(), grids.karras(20, 20.0), x, noise))
    assert torch.equal(state.log_w, torch.zeros(6, dtype=F64))
    assert torch.equal(state.x, last(walk(Posterior(WORLD), DDPM(), grids.karras(20, 20.0), x, noise)).x)


def one_move(sampler: Ensemble, solver: Solver, x: Tensor, s: float, t: float, noise: Noise):
    """The state after one step and its weights, without resampling; and the state it came from."""
    state = sampler.start(State(x, s), noise.at(-1))
    step = solver.step(lambda x, s: sampler.denoise(x, s, state.memo), x, s, t, (), noise.at(0))
    landed = State(
        step.mean + step.std * noise.at(0)(step.mean), t, step.est.x0, state.log_w, step.past, state.memo
    )
    return landed, Move(state, step, solver, s, t)


def test_the_weight_is_the_ratio_of_the_kernels_densities():
    """Against densities written out, for a complex image too."""
    A = op.MRI(tensor(1.0, 0.0, 1.0), shape=(2, 3))
    problem = Problem(A, A.forward(random_complex(1, 1, 2, 3)), 0.2).repeated(4)
    world = Gaussian(torch.zeros(1, 2, 3, dtype=torch.complex128), 0.7)
    sampler = Ensemble(DDS(world, problem), initial="prior")
    s, t, x = 2.0, 1.1, 2 * random_complex(4, 1, 2, 3, seed=2)
    landed, move = one_move(sampler, DDIM(eta=1.0), x, s, t, Noise(0, (0,), 4))
    weighed = sampler.correct(landed, move, Noise(0).at(0))
    kept, std = (t / s) ** 2, t * math.sqrt(1 - (t / s) ** 2)
    D = world(x, s)
    x0 = DDS(world, problem).denoise(x, s).x0

    def log_density(mean: Tensor) -> Tensor:
        return -flat(landed.x - mean).square().sum(1) / (2 * std**2)

    ratio = log_density(D + kept * (x - D)) - log_density(x0 + kept * (x - D))
    mu, alpha = Potential(problem), sampler.target.alpha
    torch.testing.assert_close(weighed.log_w, ratio - alpha(t) * mu(landed.x), rtol=1e-10, atol=1e-10)


def test_permuted_particles_have_permuted_weights():
    sampler = SMC(WORLD, PROBLEM.repeated(6), guide="denoised", ess=0.0)
    landed, move = one_move(sampler, DPMpp(eta=1.0), 2 * random(6, 4), 2.0, 1.0, Noise(0, (0,), 6))
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    step = replace(move.step, mean=move.step.mean[order], est=replace(
        move.step.est, **{k: getattr(move.step.est, k)[order] for k in ("x0", "eps", "prior")}))  # fmt: skip
    before = replace(move, before=move.before.take(order), step=step)
    permuted_first = sampler.correct(landed.take(order), before, Noise(0).at(0))
    permuted_last = sampler.correct(landed, move, Noise(0).at(0)).take(order)
    for name in ("x", "log_w", "x0"):
        torch.testing.assert_close(
            getattr(permuted_first, name), getattr(permuted_last, name), rtol=0, atol=1e-12
        )
    first, last_memo = permuted_first.memo, permuted_last.memo
    torch.testing.assert_close(first.potential, last_memo.potential, rtol=0, atol=1e-12)
    assert torch.equal(first.ancestors, last_memo.ancestors)


def test_duplicated_particles_say_nothing_new():
    """Every particle twice: twice the effective number, the same mean weight, and the same resampled law."""
    once = random(1, 5, seed=9)
    both = once.repeat(1, 2)
    torch.testing.assert_close(effective(both), 2 * effective(once))
    torch.testing.assert_close(log_mean(both), log_mean(once))
    u = torch.special.ndtr(random(20_000, 10, seed=10))
    for scheme in SCHEMES.values():
        slots = scheme(both.softmax(1).expand(20_000, 10), u) % 5
        counts = torch.zeros(5, dtype=F64).index_add(0, slots.flatten(), torch.ones(200_000, dtype=F64))
        torch.testing.assert_close(counts / 200_000, once[0].softmax(0), rtol=0, atol=5e-3)


def test_resampling_takes_everything_along():
    """State, the solver's memory, the unguided memory, potential and ancestors of the chosen particle."""
    sampler = SMC(WORLD, PROBLEM.repeated(8), guide="denoised").prepared(
        DPMpp(eta=1.0), [3.0, 2.0, 1.0, 0.0], 4
    )
    x, noise = 3 * random(8, 4), Noise(0, (0, 1), 4)
    landed, move = one_move(sampler, DPMpp(eta=1.0), x, 3.0, 2.0, noise)
    log_w = torch.tensor([0.0, -1e3, 60.0, -1e3, 0.0, 0.0, 0.0, 0.0], dtype=F64)
    before = replace(move.before, log_w=1e3 * log_w.clamp(max=1.0))
    landed = replace(landed, log_w=before.log_w, x0=landed.x0)
    heavy = copy.copy(sampler)
    heavy.ess = 0.0  # never resamples
    kept = heavy.correct(landed, replace(move, before=before), noise.at(0))
    taken = sampler.correct(landed, replace(move, before=before), noise.at(0))
    rows = torch.tensor([2, 2, 2, 2, 4, 5, 6, 7])  # all of image 0 descends from its heavy particle
    for found, wanted in (
        (taken.x, kept.x), (taken.x0, kept.x0), (taken.past[0].slope, kept.past[0].slope),
        (taken.memo.past[0].slope, kept.memo.past[0].slope), (taken.memo.potential, kept.memo.potential),
        (taken.memo.ancestors, kept.memo.ancestors),
    ):  # fmt: skip
        assert torch.equal(found, wanted[rows])
    assert not torch.equal(taken.past[0].slope, taken.memo.past[0].slope)
    assert torch.equal(taken.log_w[:4], torch.zeros(4, dtype=F64))
    assert torch.equal(taken.log_w[4:], kept.log_w[4:])
    gained = kept.log_w[:4].logsumexp(0) - math.log(4)
    torch.testing.assert_close(taken.memo.log_z[:4] - kept.memo.log_z[:4], gained.expand(4))


@dataclass(frozen=True)
class Names:
    rows: Tensor

    def take(self, rows: Tensor) -> Names:
        return Names(self.rows[rows])


class Bookkeeper(Posterior):
    """Keeps a memo, and moves nothing."""

    moves_state = False

    def start(self, state, draw):
        return replace(state, memo=Names(torch.zeros(len(state.x), dtype=torch.int64)))

    def correct(self, state, move, draw):
        return replace(state, memo=Names(state.memo.rows + 1))


def test_the_inner_memo_is_the_inners_own():
    sampler = Ensemble(Bookkeeper(WORLD, PROBLEM.repeated(6)), ess=1.0)
    state = last(sampler.run(DDPM(), grids.karras(9, 20.0), 20 * random(6, 4), Noise(0, (0,), 6)))
    assert torch.equal(state.memo.inner.rows, torch.full((6,), 9))
    assert int(state.memo.ancestors.unique().numel()) < 6


# --- resampling schemes ------------------------------------------------------------------------------------

UNEVEN = tensor(0.30, 0.05, 0.22, 0.0, 0.13, 0.17, 0.02, 0.11)


@cache
def counts(name: str) -> Tensor:
    """How often each of eight particles is copied, in 100 000 resamplings."""
    u = torch.rand(100_000, 8, dtype=F64, generator=torch.Generator().manual_seed(1))
    chosen = SCHEMES[name](UNEVEN.expand(100_000, 8).contiguous(), u)
    return torch.nn.functional.one_hot(chosen, 8).sum(1).double()


@pytest.mark.parametrize("name", SCHEMES)
def test_resampling_is_unbiased(name):
    """The mean number of copies is ``S w``, within five standard errors; nothing of weight 0 is ever chosen."""
    found, expected = counts(name), 8 * UNEVEN
    assert torch.equal(found.sum(1), torch.full((100_000,), 8.0, dtype=F64))
    error = (found.mean(0) - expected).abs()
    assert bool((error <= 5 * found.std(0) / math.sqrt(100_000) + 1e-12).all()), error
    assert float(found[:, 3].max()) == 0


def test_resampling_schemes_differ_in_variance():
    """Multinomial's is ``S w (1 - w)``; stratified and residual stay below it, systematic rounds up or down."""
    spread = {name: counts(name).var(0) for name in SCHEMES}
    torch.testing.assert_close(spread["multinomial"], 8 * UNEVEN * (1 - UNEVEN), rtol=0.03, atol=1e-3)
    total = {name: float(v.sum()) for name, v in spread.items()}
    assert total["systematic"] <= total["stratified"] * 1.01 < total["multinomial"]
    assert total["residual"] < total["multinomial"]
    for name in ("stratified", "residual"):
        assert bool((spread[name] <= spread["multinomial"] * 1.02 + 1e-3).all())
    rounded = counts("systematic") - 8 * UNEVEN
    assert float(rounded.abs().max()) < 1
    assert bool((counts("residual") >= (8 * UNEVEN).floor()).all())


@pytest.mark.parametrize("name", SCHEMES)
def test_equal_and_degenerate_weights(name):
    u = torch.rand(50, 6, dtype=F64, generator=torch.Generator().manual_seed(2))
    one = torch.zeros(50, 6, dtype=F64)
    one[:, 4] = 1.0
    assert bool((SCHEMES[name](one, u) == 4).all())
    assert bool((SCHEMES[name](one, torch.ones_like(u)) == 4).all())
    if name != "multinomial":
        even = torch.full((50, 6), 1 / 6, dtype=F64) * (1 + 4e-16)
        copies = torch.nn.functional.one_hot(SCHEMES[name](even, u), 6).sum(1)
        assert int(copies.max()) <= 2 and int(copies.sum(1).max()) == 6


# --- the start, the potential, the correctors --------------------------------------------------------------

STARTS = {
    "dense, CG": lambda: Matrix(random(3, 4, seed=21)),
    "dense, complex, CG": lambda: Matrix(random_complex(2, 3, seed=22)),
    "inpainting, closed form": lambda: op.Inpainting(tensor([1.0, 0.0], [0.0, 1.0])),
    "MRI": lambda: op.MRI(tensor(1.0, 0.0, 1.0), shape=(2, 3)),
    "MRI, coils": lambda: op.MRI(tensor(1.0, 0.0, 1.0), random_complex(2, 2, 3, seed=23)),
}


@pytest.mark.parametrize("name", STARTS)
def test_the_tilted_start_is_exact(name):
    """Affine in the prior's draw and in the perturbation: mean ``alpha S A^H y / s_y^2``, covariance S."""
    A, sigma_y, s = STARTS[name](), 0.3, 7.0
    n = math.prod(A.domain) * (2 if A.complex_domain else 1)
    y = A.forward(unflat(random(1, n, seed=4), tuple(A.domain), A.complex_domain))
    m = flat(y).shape[1]
    sampler = SMC(
        Gaussian(torch.zeros(()), 1.0), Problem(A, y.repeat(1 + n + m, *[1] * (y.ndim - 1)), sigma_y)
    )
    alpha = sampler.target.alpha(s)
    x, z = torch.zeros(1 + n + m, n, dtype=F64), torch.zeros(1 + n + m, m, dtype=F64)
    x[1 : 1 + n], z[1 + n :] = s * torch.eye(n, dtype=F64), torch.eye(m, dtype=F64)

    def draw(like, stream="step"):
        return unflat(z, y.shape[1:], y.is_complex())

    out = flat(sampler.target.tilted(unflat(x, tuple(A.domain), A.complex_domain), alpha, s, draw))
    columns, matrix = out[1:] - out[0], dense(A)
    S = torch.linalg.inv(torch.eye(n, dtype=F64) / s**2 + alpha / sigma_y**2 * matrix.T @ matrix)
    torch.testing.assert_close(columns.T @ columns, S, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(out[0], alpha / sigma_y**2 * S @ matrix.T @ flat(y)[0], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", STARTS)
def test_the_potential_is_what_it_says(name):
    A = STARTS[name]()
    n = math.prod(A.domain) * (2 if A.complex_domain else 1)
    x = unflat(random(3, n, seed=1), tuple(A.domain), A.complex_domain)
    problem = Problem(A, A.forward(unflat(random(3, n, seed=2), tuple(A.domain), A.complex_domain)), 0.3)
    mu, matrix = Potential(problem), dense(A)
    r = flat(x) @ matrix.T - flat(problem.y)
    torch.testing.assert_close(mu(x), r.square().sum(1) / (2 * 0.09))
    torch.testing.assert_close(flat(mu.gradient(x)), r @ matrix / 0.09)
    norm = float(torch.linalg.matrix_norm(matrix, 2)) ** 2  # power iteration: from below, and enough for c
    assert 0.95 * norm <= mu.norm_squared <= norm * (1 + 1e-9)
    assert mu.laplacian == pytest.approx(float(matrix.square().sum()) / 0.09, rel=1e-10)


def test_probes_estimate_the_laplacian_of_large_images():
    A = op.Blur(random(5, 5, seed=1), (1, 40, 40))
    mu = Potential(Problem(A, torch.zeros(1, *A.codomain, dtype=F64), 0.5))
    trace = 1600 * float(random(5, 5, seed=1).square().sum())
    assert mu.laplacian == pytest.approx(trace / 0.25, rel=0.02)


class Squared(op.Operator):
    """``x + x^2 / 4``."""

    domain = (1,)

    def forward(self, x):
        return x + x**2 / 4


def test_a_nonlinear_operator():
    """The gradient is autograd's; the particles have the moments of the quadrature."""
    problem = Problem(Squared(), tensor([0.8]), 0.4)
    x = random(5, 1)
    gradient = (x + x**2 / 4 - 0.8) * (1 + x / 2) / 0.16
    torch.testing.assert_close(Potential(problem.repeated(5)).gradient(x), gradient)
    line = torch.linspace(-8, 8, 4001, dtype=F64)
    density = torch.softmax(-line.square() / 2 - (line + line**2 / 4 - 0.8) ** 2 / 0.32, 0)
    mean = float(density @ line)
    std = math.sqrt(float(density @ (line - mean).square()))
    prior = Gaussian(torch.zeros(1, dtype=F64), 1.0)
    cloud = particles(SMC(prior, problem, c=4.0), DDPM(), grids.karras(150, 20.0), 8000, images=2)
    assert float(cloud.mean) == pytest.approx(mean, abs=0.03 * std)
    assert float(cloud.covariance.sqrt()) == pytest.approx(std, rel=0.03)


def test_langevin_steps_are_those_of_the_target():
    """``x <- x + e (score - alpha grad mu) + sqrt(2 e) z``; the weights stay, the solver restarts, the potential follows."""
    sampler = SMC(WORLD, PROBLEM.repeated(4), langevin=2)
    start = sampler.start(State(random(4, 4), 0.7), Noise(0, (0,), 4).at(-1))
    state = replace(start, past=("something",))
    noise = Noise(0, (0,), 4).at(3)
    moved_on = sampler.explored(state, noise)
    alpha, mu, x = sampler.target.alpha(0.7), Potential(PROBLEM.repeated(4)), state.x
    e = 0.3 / (1 / 0.49 + alpha * mu.norm_squared / 0.09)
    for index in range(2):
        force = (WORLD(x, 0.7) - x) / 0.49 - alpha * mu.gradient(x)
        x = x + e * force + math.sqrt(2 * e) * noise(x, f"langevin{index}")
    torch.testing.assert_close(moved_on.x, x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(moved_on.memo.potential, alpha * mu(x))
    assert moved_on.past == () and moved_on.memo.past == () and torch.equal(moved_on.log_w, state.log_w)


def test_tempered_weights_leave_a_share_effective():
    sampler = SMC(WORLD, PROBLEM.repeated(8), temper=0.75).prepared(DDPM(), [2.0, 1.0, 0.0], 4)
    state = sampler.start(State(random(8, 4), 2.0), Noise(0, (0, 1), 4).at(-1))
    log_w = tensor(0.0, -30.0, -700.0, -5.0, 0.1, 0.2, 0.0, 0.1)
    tempered = sampler.tempered(replace(state, log_w=log_w))
    flatter, memo = tempered.log_w, tempered.memo
    torch.testing.assert_close(sampler.effective(flatter)[0], torch.tensor(3.0, dtype=F64), rtol=1e-6, atol=0)
    assert torch.equal(flatter[4:], log_w[4:])  # enough of them count already: exact
    assert torch.equal(flatter[:4].argsort(), log_w[:4].argsort())
    assert bool(memo.log_z[:4].isnan().all()) and torch.equal(memo.log_z[4:], state.memo.log_z[4:])
    torch.testing.assert_close(flatter[:4] / flatter[1], log_w[:4] / log_w[1])  # a power of the weights


# --- through recon.sample ----------------------------------------------------------------------------------

IMAGES = Problem(PROBLEM.A, torch.cat([PROBLEM.y, tensor([-1.1, 0.4])]), 0.3)


def test_the_result_is_weighted():
    result = recon.sample(
        IMAGES, WORLD, "smc", "ddpm", steps=12, samples=6, grid=grids.karras(12, 20.0), form="paper"
    )
    w, x = result.weights, result.samples
    assert w.shape == (2, 6) and w.dtype == result.log_weights.dtype == F64 and float(result.ess.max()) < 6
    torch.testing.assert_close(w.sum(1), torch.ones(2, dtype=F64))
    torch.testing.assert_close(result.ess, 1 / w.square().sum(1))
    torch.testing.assert_close(result.mean, (w[..., None] * x).sum(1))
    second = (w[..., None] * (x - result.mean[:, None]).square()).sum(1) / (1 - w.square().sum(1))[:, None]
    torch.testing.assert_close(result.std, second.sqrt())
    assert result.log_evidence.shape == (2,) and bool(result.log_evidence.isfinite().all())
    assert result.ancestors.shape == (2,) and bool(
        (result.ancestors >= 1).all() and (result.ancestors <= 6).all()
    )
    assert [set(entry) for entry in result.trace] == [{"sigma", "residual", "ess"}] * 12
    assert float(result.least_ess.min()) == min(entry["ess"] for entry in result.trace)
    assert all(1 <= entry["ess"] <= 6 + 1e-9 for entry in result.trace)
    assert result.trace[-1]["ess"] == pytest.approx(float(result.ess.min()))


def test_one_particle_that_takes_all_is_told():
    """Weights that nothing tempers; the least effective number says so where that of the end does not."""
    sure = Problem(PROBLEM.A, PROBLEM.y, 1e-3)
    options = {"grid": grids.karras(12, 20.0), "samples": 6}
    with pytest.warns(UserWarning, match="One of 6 particles took all in 1 of 1 images"):
        result = recon.sample(sure, WORLD, exact(Posterior(None), initial="prior"), "ddpm", **options)
    assert float(result.least_ess[0]) < 1.05
    tempered = recon.sample(sure, WORLD, Ensemble(DDS(None, keep="state")), "ddpm", **options)
    assert float(tempered.ess[0]) >= 0.8 * 6 * (1 - 1e-6) and int(tempered.ancestors[0]) == 6


def test_a_deterministic_solver_is_importance_sampling_and_said_to_be():
    """Not where Langevin steps move the particles towards the measurements."""
    options = {"grid": grids.karras(6, 20.0), "samples": 6}
    with pytest.warns(UserWarning, match="importance sampling"):
        recon.sample(IMAGES, WORLD, SMC(WORLD), "dpm++2m", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SMC(WORLD, IMAGES, langevin=1).prepared(DPMpp(), grids.karras(6, 20.0), 6)


def test_equal_weights_give_the_usual_statistics():
    x = random_complex(2, 5, 1, 2, 3)
    plain, even = (recon.Result(x, 1, [], log_w) for log_w in (None, torch.full((2, 5), -700.0, dtype=F64)))
    for name in ("mean", "std", "magnitude_std"):
        torch.testing.assert_close(getattr(plain, name), getattr(even, name))
    one = torch.tensor([[0.0, -800.0, -800.0, -800.0, -800.0]] * 2, dtype=F64)
    single = recon.Result(x, 1, [], one)
    torch.testing.assert_close(single.mean, x[:, 0])
    assert float(single.std.abs().max()) < 1e-6 and plain.weights is None and plain.ess is None
    assert recon.Result(x[:, :1], 1, [], one[:, :1]).std is None


def test_weights_are_float64_whatever_the_state():
    A = op.Inpainting(torch.ones(2, 2))
    problem = Problem(A, torch.ones(1, 1, 2, 2), 0.1)
    prior = Gaussian(torch.zeros(1, 2, 2), 1.0)
    result = recon.sample(problem, prior, "smc", "sde-dpm++2m", steps=6, samples=4)
    assert result.samples.dtype == result.mean.dtype == torch.float32
    assert result.log_weights.dtype == result.log_evidence.dtype == F64


def test_images_do_not_depend_on_each_other():
    options = {"solver": "ddpm", "grid": grids.karras(15, 20.0), "samples": 5, "form": "paper"}
    together = recon.sample(IMAGES, WORLD, "smc", **options, images=(3, 7))
    for i, name in enumerate((3, 7)):
        one = Problem(IMAGES.A, IMAGES.y[i : i + 1], 0.3)
        alone = recon.sample(one, WORLD, "smc", **options, images=(name,))
        torch.testing.assert_close(together.samples[i], alone.samples[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(together.log_weights[i], alone.log_weights[0], rtol=0, atol=1e-10)
        torch.testing.assert_close(together.log_evidence[i], alone.log_evidence[0], rtol=0, atol=1e-10)
        assert int(together.ancestors[i]) == int(alone.ancestors[0])


OWN = op.PerImage((op.Inpainting(tensor([1.0, 0.0], [1.0, 1.0])), 30.0 * op.Inpainting(tensor([0.0, 1.0], [1.0, 0.0]))))  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"guide": "noisy"},
        {"weights": "feynman-kac", "langevin": 1},
        {"initial": "prior", "langevin": 2},
        {"c": 900.0},
    ],
    ids=["denoised", "noisy", "Feynman-Kac", "langevin", "c"],
)
def test_an_operator_an_image_has_its_own_norm(options):
    """Norms of 1 and 30 in one batch: ``c = ||A||^2`` is each image's own, and so are all its particles."""
    prior = Gaussian(torch.zeros(1, 2, 2, dtype=F64), 0.7)
    y = OWN.forward(random(2, 1, 2, 2, seed=3))
    common = {"solver": "ddpm", "grid": grids.karras(60, 20.0), "samples": 4}
    together = recon.sample(Problem(OWN, y, 0.3), prior, SMC(prior, **options), images=(3, 7), **common)
    for i, name in enumerate((3, 7)):
        one = Problem(OWN.operators[i], y[i : i + 1], 0.3)
        alone = recon.sample(one, prior, SMC(prior, **options), images=(name,), **common)
        torch.testing.assert_close(together.samples[i], alone.samples[0], rtol=0, atol=1e-9)
        torch.testing.assert_close(together.log_weights[i], alone.log_weights[0], rtol=0, atol=1e-7)
        torch.testing.assert_close(together.log_evidence[i], alone.log_evidence[0], rtol=0, atol=1e-7)


def test_the_potential_of_several_operators_is_each_its_own():
    rows = Problem(OWN, OWN.forward(random(2, 1, 2, 2)), 0.3).repeated(3)
    mu = Potential(rows)
    assert isinstance(mu.norm_squared, Tensor) and isinstance(mu.laplacian, Tensor)
    torch.testing.assert_close(mu.norm_squared, tensor(1.0, 900.0).repeat_interleave(3))
    torch.testing.assert_close(mu.laplacian, tensor(3.0, 1800.0).repeat_interleave(3) / 0.09)
    assert mu.largest_norm_squared == pytest.approx(900.0)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_runs_replay_from_their_seed(scheme):
    def run(seed):
        sampler = recon.Ensemble(DDS(WORLD, keep="state"), resample=scheme, ess=0.9)
        return recon.sample(IMAGES, WORLD, sampler, "ddpm", samples=4, seed=seed, grid=grids.karras(10, 20.0))

    first, again, other = run(0), run(0), run(1)
    assert torch.equal(first.samples, again.samples) and torch.equal(first.log_weights, again.log_weights)
    assert not torch.equal(first.samples, other.samples)
    assert int(first.ancestors.min()) < 4


@pytest.mark.parametrize(
    ("make", "solver", "expected"),
    [
        (lambda: SMC(WORLD), "ddpm", 9),
        (lambda: SMC(WORLD), "heun", 17),
        (lambda: SMC(WORLD, weights="feynman-kac"), "ddpm", 9),
        (lambda: SMC(WORLD, langevin=2), "ddpm", 9 + 2 * 8),
        (lambda: Ensemble(DDS(WORLD)), "sde-dpm++2m", 9),
        (lambda: Ensemble(DPS(WORLD)), "ddpm", 9),
    ],
    ids=["smc", "smc, heun", "Feynman-Kac", "langevin", "dds", "dps"],
)
def test_network_calls(make, solver, expected):
    """The reference kernel costs none; a Langevin step costs one, at every level but the last."""
    result = recon.sample(IMAGES, WORLD, make(), solver, samples=3, grid=grids.karras(9, 20.0))
    assert result.network_calls == expected


@pytest.mark.parametrize("samples", [4, 40])
def test_the_network_sees_a_chunk_at_a_time(samples):
    """Rows through the network do not grow with the particles, and no result depends on the chunk."""
    seen = []

    def prior(x, sigma):
        seen.append(len(x))
        return WORLD(x, sigma)

    options = {"solver": "ddpm", "samples": samples, "grid": grids.karras(8, 20.0)}
    whole = recon.sample(IMAGES, WORLD, "smc", form="paper", **options)
    parts = recon.sample(IMAGES, chunked(prior, 3), "smc", form="paper", **options)
    assert max(seen) == 3 and sum(seen) == 2 * samples * 8 and parts.network_calls == 8
    torch.testing.assert_close(parts.samples, whole.samples, rtol=0, atol=1e-10)


def test_one_particle_is_the_inner_sampler_with_a_weight():
    """Nothing to resample: DDS's own path, but for the last step, which is the prior's."""
    options = {"solver": "ddpm", "samples": 1, "grid": grids.karras(10, 20.0)}
    states = {}
    for name, sampler in (
        ("inner", DDS(WORLD, keep="state")),
        ("ensemble", Ensemble(DDS(WORLD, keep="state"), initial="prior")),
    ):
        states[name] = []
        result = recon.sample(IMAGES, WORLD, sampler, **options, watch=lambda i, s, r, name=name: states[name].append(s.x))  # fmt: skip
    for inner, ensemble in zip(states["inner"][:-1], states["ensemble"][:-1], strict=True):
        assert torch.equal(inner, ensemble)
    torch.testing.assert_close(states["ensemble"][-1], WORLD(states["inner"][-2], grids.karras(10, 20.0)[-2]))
    assert result.std is None and torch.equal(result.ess, torch.ones(2, dtype=F64))
    assert torch.equal(result.ancestors, torch.ones(2, dtype=torch.int64))
    assert bool(result.log_evidence.isfinite().all()) and torch.equal(result.mean, result.samples[:, 0])


def test_copies_are_made_only_where_they_part_again():
    """Under a deterministic solver, and before the last step, resampling would only lose particles."""
    levels = grids.karras(20, 20.0)
    flow = recon.sample(
        IMAGES, WORLD, SMC(WORLD, ess=1.0, initial="prior"), "dpm++2m", grid=levels, samples=6
    )
    assert torch.equal(flow.ancestors, torch.tensor([6, 6]))
    for ess in (0.5, 1.0):
        chain = recon.sample(IMAGES, WORLD, SMC(WORLD, ess=ess), "ddpm", grid=levels, samples=6)
        assert all(len(torch.unique(image, dim=0)) == 6 for image in chain.samples)


def test_a_diverging_ensemble_stops():
    def broken(x, sigma):
        return x * math.nan if sigma < 1 else x

    with pytest.raises(SamplingError, match="SMC"):
        recon.sample(IMAGES, broken, "smc", "ddpm", steps=10, samples=3)


# --- refusals ----------------------------------------------------------------------------------------------


def untouched(x, sigma):
    raise AssertionError("the network was called")


class Loop(Posterior):
    def run(self, solver, grid, x, noise):
        yield State(x, 0.0)


class Mover(Posterior):
    def correct(self, state, move, draw):
        return replace(state, x=0 * state.x)


@pytest.mark.parametrize(
    ("make", "solver", "message"),
    [
        (lambda: Ensemble(DDS(untouched)), "heun", "deterministic"),
        (lambda: Ensemble(DDS(untouched)), "dpm++2m", "deterministic"),
        (lambda: SMC(untouched, guide="denoised"), "euler", "deterministic"),
        (lambda: SMC(untouched), EDM(churn=0.3), "inside its step"),
        (lambda: SMC(untouched), "pc", "inside its step"),
        (lambda: Ensemble(DDS(untouched)), Renoise(0.0), "deterministic"),
        (lambda: SMC(untouched, guide="noisy", annealing="linear"), EulerMaruyama(), "too long"),
        (lambda: SMC(untouched, weights="feynman-kac", annealing=lambda s: 1.0), "ddpm", "too long"),
        (lambda: SMC(untouched, guide="denoised", c=0.2), "ddpm", "too long"),
    ],
)
def test_impossible_pairs_are_refused_before_the_first_call(make, solver, message):
    with pytest.raises(ConfigError, match=message):
        recon.sample(IMAGES, untouched, make(), solver, grid=grids.karras(6, 20.0))


def test_the_published_annealing_needs_many_steps():
    """Explicit guidance at the noisy point: stable under matched annealing, and under the linear one with small steps."""
    SMC(WORLD, PROBLEM, guide="noisy").prepared(EulerMaruyama(), grids.karras(60, 20.0), 4)
    fine = [1 - i / 400 for i in range(401)]
    SMC(WORLD, PROBLEM, guide="noisy", annealing="linear").prepared(EulerMaruyama(), fine, 4)
    with pytest.raises(ConfigError, match="too long"):
        SMC(WORLD, PROBLEM, guide="noisy", annealing="linear").prepared(
            EulerMaruyama(), grids.karras(60, 20.0), 4
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SMC(WORLD, resample="sistematic"), "systematic"),
        (lambda: SMC(WORLD, weights="girsanov"), "weights"),
        (lambda: SMC(WORLD, annealing="quadratic"), "annealing"),
        (lambda: SMC(WORLD, ess=1.5), "ess"),
        (lambda: SMC(WORLD, temper=-0.1), "temper"),
        (lambda: SMC(WORLD, langevin=-1), "langevin"),
        (lambda: SMC(WORLD, c=0.0), "c is"),
        (lambda: SMC(WORLD, initial="posterior"), "initial"),
        (lambda: SMC(WORLD, guide="dps"), "guide"),
        (lambda: SMC(WORLD, guide="denoised", weights="feynman-kac"), "drift"),
        (lambda: Ensemble(DDS(WORLD), weights="feynman-kac"), "drift"),
        (lambda: Ensemble(SMC(WORLD)), "already"),
        (lambda: Ensemble(MCG(WORLD)), "moves the state"),
        (lambda: Ensemble(Mover(WORLD)), "moves the state"),
        (lambda: Ensemble(Loop(WORLD)), "loop"),
        (lambda: SMC(WORLD, Problem(PROBLEM.A, PROBLEM.y)), "sigma is 0"),
        (lambda: SMC(WORLD, Problem(Squared(), tensor([0.3]), 0.1), initial="tilted"), "not linear"),
        (lambda: SMC(WORLD, Problem(Squared(), tensor([0.3]), 0.1), weights="feynman-kac"), "not linear"),
        (lambda: Ensemble(PiGDM(WORLD), Problem(Squared(), tensor([0.3]), 0.1)), "not linear"),
    ],
)
def test_what_cannot_be_weighed_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_options_of_an_ensemble_are_options_of_smc_too():
    """By name, kind and default (but temper's, which the paper has not), for `recon list samplers` and the check of options."""
    taken, passed = inspect.signature(SMC).parameters, dict(inspect.signature(Ensemble).parameters)
    passed["temper"] = passed["temper"].replace(default=0.0)
    assert {name: p for name, p in passed.items() if p.kind is p.KEYWORD_ONLY} == {
        name: p for name, p in taken.items() if p.kind is p.KEYWORD_ONLY and name != "guide"
    }
    assert not [p for p in taken.values() if p.kind is p.VAR_KEYWORD]
    sampler = SMC(untouched, resample="residual", ess=0.3, c=4.0, langevin=2, temper=0.5, initial="prior")
    assert (sampler.resample, sampler.ess, sampler.c, sampler.langevin) == ("residual", 0.3, 4.0, 2)
    assert (sampler.temper, sampler.initial, sampler.weights, sampler.guide) == (0.5, "prior", "path", "auto")
    with pytest.raises(TypeError, match="resampling"):
        SMC(untouched, resampling="residual")
    with pytest.raises(ConfigError, match="no setting") as error:
        make_sampler("smc", untouched, None, {"resampling": "residual"})
    assert "resample" in str(error.value)


def test_an_ensemble_does_not_change_what_it_is_given():
    for inner in (DDS(), DDS(WORLD)):
        held = dict(vars(inner))
        outer = Ensemble(inner)
        recon.sample(IMAGES, WORLD, outer, "ddpm", grid=grids.karras(5, 20.0))
        assert vars(inner) == held and inner.problem is None
        assert outer.inner is inner and outer.problem is None and "target" not in vars(outer)


# --- the device --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("options", [{}, {"weights": "feynman-kac"}, {"langevin": 1, "temper": 0.5}])
def test_no_step_waits_for_the_device(scheme, options):
    A = op.MRI((torch.arange(8) % 2).float(), shape=(8, 8))
    x = torch.ones(2, 1, 8, 8, dtype=torch.complex64)
    ready = SMC(half, recon.Problem(A, A(x), 1.0), resample=scheme, **options).prepared(DDPM(), LEVELS, 2)
    with FakeTensorMode(allow_non_fake_inputs=True):
        on_device, known = moved(ready), ready.target.potential
        potential = replace(known, problem=moved(ready.problem))
        vars(potential).update({k: v for k, v in vars(known).items() if isinstance(v, float)})
        on_device.target = replace(ready.target, potential=potential)
        with StayThere():
            end = deque(walk(on_device, DDPM(), LEVELS, empty(torch.complex64), Given(0, (0,), 2)), maxlen=1)[
                0
            ]
    assert end.x.device.type == end.log_w.device.type == "cuda" and end.log_w.dtype == F64
