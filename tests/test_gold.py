"""The gold standard: exact denoisers and posteriors of random walks, and how close every sampler comes under its recipe."""

from __future__ import annotations

import math

import pytest
import torch

import operators as op
from recon import Problem, sample
from recon.benchmark.gold import problems
from recon.benchmark.gold.chains import CHAINS, LENGTH, STEP_VARIANCE, chain_prior, inverse_gaussian, seeded
from recon.benchmark.gold.gibbs import gibbs
from recon.benchmark.gold.problems import GOLD_NOISE, GoldProblem, gold_problems, matrix_of
from recon.benchmark.gold.table import BLIND, measured_gap, probability_below, run_gold, scored_gap
from recon.errors import ConfigError
from recon.posteriors import POSTERIORS
from recon.result import Result

F64 = torch.float64


@pytest.mark.parametrize("name", CHAINS)
def test_walks_have_the_moments_they_say(name):
    """On the lattice and off it: increments of the stated variance, walks of the stated mean variance."""
    chain = CHAINS[name]
    spread = chain.moved(torch.eye(len(chain.values), dtype=F64)[len(chain.values) // 2])
    assert float(spread.sum()) == pytest.approx(1, abs=1e-4)
    assert float(spread @ chain.values.square()) == pytest.approx(STEP_VARIANCE, rel=0.01)
    assert float(chain.draw(4000, 0).square().mean()) == pytest.approx(chain.mean_variance, rel=0.06)


@pytest.mark.parametrize("name", ["laplace", "student", "spikes"])
def test_the_lattice_and_the_gibbs_sampler_denoise_alike(name):
    """Two derivations without a line in common: forward-backward over values, Gibbs over scales."""
    chain, sigma = CHAINS[name], 0.3
    with seeded(7):
        x = chain.draw(1, 5) + sigma * torch.randn(1, LENGTH, dtype=F64)
    sampled = gibbs(
        chain, torch.eye(LENGTH, dtype=F64), x, sigma, *((40, 32) if chain.jumps == 1 else (15, 24))
    )
    off = chain.denoise(x[:, None, None], sigma).flatten(1) - sampled.mean
    assert float((off / sampled.error).square().mean()) < 3
    assert float(off.square().mean()) < 0.01 * float(sampled.variance.mean())


@pytest.mark.parametrize("name", CHAINS)
def test_the_jacobian_is_the_covariance_over_the_noise(name):
    """``dD/dx = Cov[x0 | x] / sigma^2``: symmetric, and its diagonal is the variance of the marginals on the lattice.

    Gaussian walks have D in closed form, and so are a check of the lattice.
    """
    chain, sigma = CHAINS[name], 0.4
    x = chain.draw(1, 3)[:, None, None]
    J = torch.autograd.functional.jacobian(lambda x: chain.denoise(x, sigma).flatten(), x).reshape(
        LENGTH, LENGTH
    )
    torch.testing.assert_close(J, J.T, rtol=0, atol=1e-9)
    assert float(torch.linalg.eigvalsh(J).min()) > 0
    away = x.flatten(1)[:, :, None] - chain.values
    marginals = chain.marginals(-away.square() / (2 * sigma**2))[0]
    mean = marginals @ chain.values
    torch.testing.assert_close(mean, chain.denoise(x, sigma).flatten(), rtol=0, atol=1e-6)
    variance = (marginals * (chain.values - mean[:, None]).square()).sum(1)
    torch.testing.assert_close(J.diagonal() * sigma**2, variance, rtol=1e-5, atol=1e-6)


def test_single_precision_is_enough():
    """Float32 states, at the least and the largest level that recipes visit."""
    for name in CHAINS:
        x = CHAINS[name].draw(2, 4)[:, None, None]
        for sigma in (0.03, 20.0):
            noisy = x + sigma * torch.randn_like(x)
            torch.testing.assert_close(
                CHAINS[name].denoise(noisy.float(), sigma).double(),
                CHAINS[name].denoise(noisy, sigma),
                rtol=0,
                atol=2e-4,
            )


@pytest.mark.parametrize(
    "problem", [p for p in gold_problems() if p.operator == "inpainting"], ids=lambda p: p.chain
)
def test_stored_posteriors_are_those_of_forward_backward(problem):
    """Masks keep the chain a chain: what is not measured is seen with infinite noise."""
    chain, A = CHAINS[problem.chain], matrix_of("inpainting")
    seen = (problem.y @ A)[:, :, None] - chain.values
    log_seen = -seen.square() / (2 * GOLD_NOISE**2) * A.sum(0)[:, None]
    mean = chain.means(log_seen)
    error = problem.posterior.error
    off = mean - problem.posterior.mean
    assert float(off.square().sum() / problem.posterior.variance.sum()) < 0.003
    assert float(error.square().sum() / problem.posterior.variance.sum()) < 0.002


def test_stored_posteriors_of_gaussian_walks_are_closed_forms():
    covariance = CHAINS["gaussian"].covariance
    for name in problems.MEASUREMENTS_OF_WALKS:
        problem, A = GoldProblem("gaussian", name), matrix_of(name)
        S = A @ covariance @ A.T + GOLD_NOISE**2 * torch.eye(len(A), dtype=F64)
        gain = torch.linalg.solve(S, A @ covariance).T
        torch.testing.assert_close(problem.posterior.mean, problem.y @ gain.T, rtol=0, atol=1e-5)
        variance = (covariance - gain @ A @ covariance).diagonal()
        torch.testing.assert_close(
            problem.posterior.variance, variance.expand(problems.PROBLEMS, -1), rtol=0, atol=1e-5
        )
        q = problem.posterior.quantiles  # of draws; intervals of 90 % are 2 x 1.645 standard deviations
        torch.testing.assert_close(
            q[38] - q[2], 3.2897 * variance.sqrt().expand(len(problem.y), -1), rtol=0.05, atol=0
        )


def test_inverse_gaussian_draws():
    with seeded(0):
        drawn = inverse_gaussian(torch.full((40000,), 0.7, dtype=F64), 2.0)
    assert float(drawn.mean()) == pytest.approx(0.7, rel=0.01)
    assert float(drawn.var()) == pytest.approx(0.7**3 / 2, rel=0.06)


def test_the_posterior_itself_has_no_gap():
    """Draws of the posterior in the place of a sampler: ``10 lg (1 + 1/S)``, 90 %, width 1."""
    problem = GoldProblem("gaussian", "inpainting")
    exact = problem.posterior
    with seeded(0):
        x = exact.mean[:, None] + exact.variance.sqrt()[:, None] * torch.randn(
            len(exact.mean), 400, LENGTH, dtype=F64
        )
    found = scored_gap(Result(x[:, :, None, None], 0), problem, "exact")
    assert found.gap == pytest.approx(10 * math.log10(1 + 1 / 400), abs=0.01)
    assert found.coverage == pytest.approx(0.9, abs=0.015) and found.width == pytest.approx(1, abs=0.03)
    below = probability_below(exact.quantiles[20], exact)
    torch.testing.assert_close(below, torch.full_like(below, 0.5), rtol=0, atol=0.03)


# (deconvolution, inpainting, Fourier): gap in dB at most, of 20 calls and 16 samples, of which exact ones have .26;
# the least coverage of 90 % intervals. Ill-conditioned measurements are what `mcg` and `ddnm` do badly: they divide by
# singular values. Samplers that draw a new state at every level (renoise) are sure of themselves: 73 %.
BOUNDS = {
    "dds": ((0.21, 0.94, 0.14), 0.70),
    "dps": ((0.18, 0.34, 0.20), 0.62),
    "mcg": ((2.96, 0.37, 0.16), 0.41),
    "pigdm": ((0.51, 0.56, 0.31), 0.81),
    "mmps": ((0.30, 0.33, 0.26), 0.86),
    "ddnm": ((4.28, 0.88, 0.15), 0.41),
    "ddrm": ((0.47, 1.02, 0.25), 0.76),
    "diffpir": ((0.22, 0.92, 0.14), 0.70),
    "daps": ((0.45, 1.34, 0.30), 0.83),
    "reddiff": ((0.41, 1.18, 0.30), 0.77),
    "smc": ((0.26, 0.26, 0.22), 0.79),
    "stsl": ((0.39, 0.88, 0.20), 0.48),
}


@pytest.mark.parametrize("name", [name for name in POSTERIORS if name not in BLIND])
def test_samplers_hold_their_bounds_on_gaussian_walks(name):
    """Under the recipe that its name stands for; a new sampler needs a row."""
    gaps, coverage = BOUNDS[name]
    found = [
        measured_gap(GoldProblem("gaussian", one), name, 20, 16) for one in problems.MEASUREMENTS_OF_WALKS
    ]
    assert all(one.gap <= most for one, most in zip(found, gaps, strict=True)), found
    assert min(one.coverage for one in found) >= coverage, found
    assert all(one.calls <= 20 for one in found)


def test_the_ensemble_is_not_below_its_inner_sampler():
    """Tempered weights cost what fewer samples cost: a share .8 of them counts."""
    for operator in problems.MEASUREMENTS_OF_WALKS:
        problem = GoldProblem("gaussian", operator)
        inner, ensemble = (measured_gap(problem, name, 30, 32) for name in ("mmps", "smc"))
        assert ensemble.gap <= inner.gap + 0.1, (inner, ensemble)


def test_a_deterministic_solver_on_a_mask_is_warned_of():
    """DDS moves measured pixels alone: those between them keep the noise of the start, unless they are drawn anew."""
    mask = matrix_of("inpainting").sum(0)
    y = (GoldProblem("gaussian", "inpainting").y @ matrix_of("inpainting"))[:, None, None].float()
    problem = Problem(op.Inpainting(mask[None].float()), y, GOLD_NOISE)
    options = {"steps": 20, "samples": 8}
    drawn = sample(problem, chain_prior("gaussian"), "dds", **options)
    with pytest.warns(UserWarning, match="keep the noise they began with"):
        kept = sample(
            problem, chain_prior("gaussian"), "dds", "dpm++2m", options={"keep": "state"}, **options
        )
    gaps = [scored_gap(one, GoldProblem("gaussian", "inpainting"), "dds").gap for one in (drawn, kept)]
    assert gaps[0] < 1.2 and gaps[1] > gaps[0] + 2, gaps


def test_the_table_names_what_it_shows():
    lines = []
    found = run_gold(["mmps"], ["gaussian", "inpainting"], calls=4, samples=3, say=lines.append)
    assert len(found) == 1 and found[0].problem == "gaussian, inpainting" and found[0].calls == 4
    assert "of exact samples 1.25" in lines[0] and lines[-1].startswith("| mmps | ")
    for arguments in ((["mmpz"], []), ([], ["gausian"])):
        with pytest.raises(ConfigError):
            run_gold(*arguments)
