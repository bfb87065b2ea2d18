"""``recon.sample``: the contract, the trace, seeds, warm starts, and refusals before the first network call."""

from __future__ import annotations

import math

import pytest
import torch
from worlds import ANISOTROPIC, Matrix, isotropic, random, random_complex

import operators as op
import recon
from operators.mri import MRI
from recon import Problem, grids
from recon.errors import ConfigError, SamplingError
from recon.noise import Noise
from recon.posteriors import DDS, Active, Ensemble, PiGDM, Posterior
from recon.priors import Gaussian, Prior
from recon.solvers import DDIM, EDM, Heun

MASK = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]], dtype=torch.float64)
PRIOR = Gaussian(torch.zeros(1, 2, 3, dtype=torch.float64), 1.0)


def inpainting(batch: int = 2, sigma: float = 0.1) -> Problem:
    A = op.Inpainting(MASK)
    return Problem(A, A.forward(random(batch, 1, 2, 3, seed=1)), sigma)


def still(x, sigma):
    """The denoiser that believes what it sees: every noise-free solver stays where it starts."""
    return x


def untouched(x, sigma):
    raise AssertionError("the network was called")


class Squared(op.Operator):
    domain = (3,)

    def forward(self, x):
        return x**2


# --- the contract ------------------------------------------------------------------------------------------


def test_the_defaults():
    result = recon.sample(inpainting(), PRIOR)
    assert result.samples.shape == (2, 4, 1, 2, 3) and result.samples.dtype == torch.float64
    assert result.mean.shape == result.std.shape == (2, 1, 2, 3)
    assert torch.equal(result.mean, result.samples.mean(1)) and torch.equal(result.std, result.samples.std(1))
    assert result.network_calls == 20 and len(result.trace) == 20
    assert not result.samples.requires_grad


def test_a_single_sample_has_no_std():
    result = recon.sample(inpainting(), PRIOR, samples=1)
    assert result.std is None and result.magnitude_std is None
    assert torch.equal(result.mean, result.samples[:, 0])


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_images(dtype):
    A = MRI(torch.tensor([1.0, 0.0, 1.0], dtype=dtype.to_real()), shape=(2, 3))
    y = A.forward(random_complex(2, 1, 2, 3).to(dtype))
    result = recon.sample(Problem(A, y, 0.1), still, "prior", "euler", steps=3, samples=3)
    assert result.samples.shape == (2, 3, 1, 2, 3) and result.samples.dtype == dtype
    assert result.std is not None and not result.std.is_complex()  # sqrt(E |x - mean|^2)
    spread = (result.samples - result.mean[:, None]).abs().square().sum(1) / 2
    torch.testing.assert_close(result.std, spread.sqrt())
    torch.testing.assert_close(result.magnitude_std, result.samples.abs().std(1))


def test_half_precision_measurements_are_solved_in_float32():
    A = op.Identity((3,))
    result = recon.sample(Problem(A, torch.ones(1, 3, dtype=torch.float16), 0.1), still, "prior", steps=2)
    assert result.samples.dtype == torch.float32


def test_names_and_objects_are_the_same():
    problem = inpainting()
    by_name = recon.sample(problem, PRIOR, "dds", "heun", steps=6, form="paper")
    by_object = recon.sample(problem, PRIOR, DDS(PRIOR), Heun(), steps=6)
    assert torch.equal(by_name.samples, by_object.samples)
    assert by_name.network_calls == by_object.network_calls == 11


def test_a_posterior_object_is_not_changed():
    """Nor is one inside another: neither its prior, which is counted, nor its problem."""
    other, inner = inpainting(1), DDS(PRIOR, inpainting(), keep="state")
    around = Active(Ensemble(inner), measure=lambda chosen: other.y * chosen, budget=5, actions="points")
    for sampler, solver in ((inner, "euler"), (Ensemble(inner), "ddpm"), (around, "ddpm")):
        parts = [sampler]
        while hasattr(parts[-1], "inner"):
            parts.append(parts[-1].inner)
        before = [(part, part.problem, dict(vars(part))) for part in parts]
        recon.sample(other, PRIOR, sampler, solver, steps=3)
        for part, problem, attributes in before:
            assert part.problem is problem and part.prior is PRIOR and vars(part) == attributes


@pytest.mark.parametrize("around", [lambda inner: inner, Ensemble], ids=["alone", "inside an ensemble"])
def test_a_sampler_of_another_prior_is_refused(around):
    """One of the two would be lost, silently."""
    with pytest.raises(ConfigError, match="built with another prior") as error:
        recon.sample(inpainting(), untouched, around(DDS(PRIOR, keep="state")), "ddpm", steps=3)
    assert error.value.do


@pytest.mark.parametrize("name", sorted(recon.POSTERIORS))
def test_a_sampler_may_be_built_without_a_prior(name):
    """It takes that of `sample`, and is none the wiser afterwards."""
    build, solver = recon.POSTERIORS[name], "ddpm" if name == "smc" else "euler"
    options = {"ode_steps": 1} if name == "daps" else {}
    common = dict(solver=solver, steps=3, samples=2)
    expected = recon.sample(inpainting(), PRIOR, build(PRIOR, **options), **common).samples
    for sampler in (build(**options), build(None, **options)):
        assert torch.equal(recon.sample(inpainting(), PRIOR, sampler, **common).samples, expected)
        assert sampler.prior is None
    with pytest.raises(ConfigError, match="has no prior"):
        build(None, inpainting().repeated(2), **options).run(
            recon.SOLVERS[solver](), [1.0, 0.5, 0.0], torch.zeros(4, 1, 2, 3), Noise(0, (0, 1), 2)
        )


def test_a_method_is_the_same_prior_at_every_look_up():
    class Model:
        def denoise(self, x, sigma):
            return PRIOR(x, sigma)

    model = Model()
    assert recon.sample(inpainting(), model.denoise, DDS(model.denoise), steps=3).network_calls == 3


def test_network_calls_are_counted():
    seen = []

    def prior(x, sigma):
        seen.append((len(x), sigma))
        return PRIOR(x, sigma)

    result = recon.sample(inpainting(3), prior, solver="heun", steps=7, samples=2)
    assert result.network_calls == len(seen) == 13
    assert {rows for rows, _ in seen} == {6}
    assert all(type(sigma) is float for _, sigma in seen)


def test_levels_come_from_the_prior():
    def levels(prior, **options):
        seen = []

        def watched(x, sigma):
            seen.append(sigma)
            return x

        about = {name: getattr(prior, name) for name in ("sigma_min", "sigma_max") if hasattr(prior, name)}
        recon.sample(inpainting(1), Prior(watched, **about), "prior", "euler", samples=1, **options)
        return seen

    assert levels(Prior(still), steps=5) == grids.karras(5)[:-1]
    assert levels(Prior(still, sigma_max=9.0, sigma_min=0.05), steps=5) == grids.karras(5, 9.0, 0.05)[:-1]
    assert levels(Prior(still), steps=5, sigma_start=2.0) == grids.karras(5, 2.0)[:-1]
    assert levels(Prior(still), steps=5, grid="exponential") == grids.exponential(5)[:-1]
    assert levels(Prior(still), grid=[3.0, 1.0, 0.5]) == [3.0, 1.0]
    assert levels(Prior(still), grid=torch.tensor([3.0, 1.0, 0.0])) == [3.0, 1.0]


def test_the_trace():
    """A dict a step: the level reached, and the median residual of the believed image in units of the noise."""
    problem, watched = inpainting(), []
    result = recon.sample(problem, PRIOR, steps=5, form="paper", watch=lambda *seen: watched.append(seen))
    assert [row["sigma"] for row in result.trace] == grids.karras(5)[1:]
    assert [index for index, _, _ in watched] == list(range(5))
    assert [residual for _, _, residual in watched] == [row["residual"] for row in result.trace]
    last = problem.repeated(4).residual(result.samples.flatten(0, 1)).median().item()
    assert result.trace[-1]["residual"] == pytest.approx(last, rel=1e-12)
    assert torch.equal(watched[-1][1].x, result.samples.flatten(0, 1))


class Telling(Posterior):
    """A sampler of one's own that tells something by the level it has reached."""

    def diagnostics(self, state):
        return {"reached": state.x.new_tensor(state.sigma)}

    def outcome(self, state, samples):
        return {"log_evidence": state.x.new_full((len(state.x) // samples,), state.sigma)}


def test_a_sampler_tells_the_trace_and_the_result():
    """What is not the sampler's to say is read from it, never from its memo."""
    result = recon.sample(inpainting(), PRIOR, Telling(PRIOR), "euler", steps=3)
    assert [row["reached"] for row in result.trace] == [row["sigma"] for row in result.trace]
    assert torch.equal(result.log_evidence, torch.zeros(2, dtype=torch.float64))
    assert result.weights is None


def test_a_diagnostic_that_is_not_finite_is_divergence():
    class Lost(Telling):
        def diagnostics(self, state):
            return {"reached": state.x.new_tensor(math.nan)}

    with pytest.raises(SamplingError, match="diverged at step 0"):
        recon.sample(inpainting(), PRIOR, Lost(PRIOR), "euler", steps=3)


# --- seeds and batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", [DDIM(eta=1.0), "dpm++2m"])
def test_seeds(solver):
    def samples(seed):
        return recon.sample(inpainting(), PRIOR, solver=solver, steps=5, seed=seed).samples

    assert torch.equal(samples(0), samples(0))
    assert not torch.equal(samples(0), samples(1))
    assert len(torch.unique(samples(0).flatten(0, 1), dim=0)) == 8


@pytest.mark.parametrize("solver", [DDIM(eta=1.0), "dpm++2m"])
def test_an_image_does_not_depend_on_its_batch_or_on_more_samples(solver):
    problem = inpainting(3)
    whole = recon.sample(problem, PRIOR, solver=solver, steps=5, samples=3, images=(7, 8, 9)).samples
    alone = recon.sample(
        Problem(problem.A, problem.y[1:2], problem.sigma),
        PRIOR,
        solver=solver,
        steps=5,
        samples=2,
        images=(8,),
    ).samples
    torch.testing.assert_close(alone, whole[1:2, :2], rtol=1e-12, atol=1e-12)


# --- start -------------------------------------------------------------------------------------------------


def test_a_cold_start_is_pure_noise():
    result = recon.sample(inpainting(), Prior(still, sigma_max=5.0), "prior", "euler", steps=3, seed=6)
    start = grids.karras(3, 5.0)[0] * Noise(6, (0, 1), 4)(
        torch.zeros(8, 1, 2, 3, dtype=torch.float64), -1, "start"
    )
    assert torch.equal(result.samples.flatten(0, 1), start)


@pytest.mark.parametrize(
    "options", [{"sigma_start": 0.3}, {"grid": [0.3, 0.1, 0.0]}, {"grid": [0.3, 0.0], "sigma_start": 0.3}]
)
def test_a_warm_start_is_the_image_plus_noise(options):
    init = random(2, 1, 2, 3, seed=4).float()
    result = recon.sample(inpainting(), still, "prior", "euler", steps=3, init=init, **options)
    noise = Noise(0, (0, 1), 4)(torch.zeros(8, 1, 2, 3, dtype=torch.float64), -1, "start")
    expected = init.double().repeat_interleave(4, 0) + 0.3 * noise
    torch.testing.assert_close(result.samples.flatten(0, 1), expected, rtol=1e-12, atol=1e-12)


def test_samples_have_the_law_of_the_posterior():
    """Matched DDS on N(m, .7 I) under Heun: 400 samples agree with closed-form mean and covariance."""
    world, A = isotropic((3,), 0.7), Matrix(random(2, 3, seed=8))
    y, n = random(1, 2, seed=9), 400
    target = world.posterior(A, y, 0.3)
    sampler = DDS(world, keep="state")
    samples = recon.sample(Problem(A, y, 0.3), world, sampler, "heun", steps=40, samples=n, seed=2).samples[0]
    spread = target.covariance.diagonal()
    assert bool(((samples.mean(0) - target.mean).abs() < 4 * (spread / n).sqrt()).all())
    correlation = (samples.T.cov() - target.covariance) / torch.outer(spread, spread).sqrt()
    assert float(correlation.abs().max()) < 4 * math.sqrt(2 / n)


def test_the_prior_posterior_ignores_the_measurements():
    problem = inpainting()
    other = Problem(problem.A, 2 * problem.y, problem.sigma)
    assert torch.equal(
        recon.sample(problem, PRIOR, "prior", steps=4).samples,
        recon.sample(other, PRIOR, "prior", steps=4).samples,
    )


# --- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        ({"posterior": "ddss"}, '"dds"'),
        ({"solver": "dpm++2"}, '"dpm\\+\\+2m"'),
        ({"grid": "karas"}, '"karras"'),
        ({"grid": [1.0, 2.0]}, "cannot be walked"),
        ({"grid": [0.3, 0.0], "sigma_start": 0.5}, "starts at"),
        ({"samples": 0}, "samples is 0"),
        ({"steps": 0}, "0 steps"),
        ({"sigma_start": -1.0}, "grid from sigma"),
        ({"init": torch.zeros(2, 1, 2, 3)}, "without sigma_start"),
        ({"init": torch.zeros(2, 1, 2, 3), "grid": "karras"}, "without sigma_start"),
        ({"init": torch.zeros(1, 1, 2, 3), "sigma_start": 0.3}, "init is"),
        ({"init": torch.zeros(2, 1, 2, 3, dtype=torch.complex64), "sigma_start": 0.3}, "real"),
        ({"images": (1, 2, 3)}, "3 images"),
    ],
)
def test_refused_before_the_first_network_call(options, message):
    with pytest.raises(ConfigError, match=message):
        recon.sample(inpainting(), untouched, **options)


BOUNDED = Prior(untouched, sigma_min=0.01, sigma_max=5.0)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"solver": "dpm++3m", "steps": 2}, "given 2 steps"),
        ({"solver": "unipc3", "steps": 1}, "given 1 step"),
        ({"solver": "heun", "steps": 1}, "at least 2 steps"),
        ({"posterior": Ensemble(DDS(untouched)), "solver": "euler"}, "no density"),
        ({"posterior": Ensemble(DDS(untouched)), "solver": EDM(churn=0.3)}, "transition densities"),
        ({"prior": BOUNDED, "grid": [6.0, 1.0, 0.0]}, "trained up to 5"),
        ({"prior": BOUNDED, "grid": [2.0, 0.001, 0.0]}, "trained down to 0.01"),
        ({"prior": BOUNDED, "sigma_start": 8.0, "init": torch.zeros(2, 1, 2, 3)}, "trained up to 5"),
        ({"prior": BOUNDED, "solver": EDM(churn=0.3)}, "asks the prior at sigma 6.5"),
    ],
)
def test_impossible_pairs_are_refused_before_the_first_network_call(options, message):
    options = {"prior": untouched, "posterior": "prior", **options}
    with pytest.raises(ConfigError, match=message) as error:
        recon.sample(inpainting(), **options)
    assert error.value.why and error.value.do


@pytest.mark.parametrize("solver", ["ddpm", "ancestral", "sde-dpm++1", "sde-dpm++2m", "renoise"])
def test_a_weighing_sampler_takes_stochastic_kernels(solver):
    sampler = Ensemble(DDS(still, keep="state"))
    assert recon.sample(inpainting(), still, sampler, solver, steps=3).network_calls == 3


def test_linear_samplers_refuse_other_operators_before_the_first_network_call():
    problem = Problem(Squared(), torch.ones(1, 3), 0.1)
    for posterior in ("pigdm", PiGDM(untouched)):
        with pytest.raises(ConfigError, match="not linear"):
            recon.sample(problem, untouched, posterior)
    assert recon.sample(problem, still, "prior", steps=2).samples.shape == (1, 4, 3)


def test_a_prior_that_returns_something_else_is_refused():
    for wrong in (lambda x, s: x[:, :1, :1], lambda x, s: x.float()):
        with pytest.raises(ConfigError, match="shape and dtype"):
            recon.sample(inpainting(), wrong)


def test_divergence_names_sampler_step_and_remedy():
    def broken(x, sigma):
        return x * math.nan if sigma < 1 else x

    with pytest.raises(SamplingError, match=r"Posterior with Euler diverged at step 2") as error:
        recon.sample(inpainting(), broken, "prior", "euler", grid=[4.0, 2.0, 0.9, 0.1, 0.0])
    assert error.value.do


# --- problems ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "y, sigma, message",
    [
        (torch.zeros(1, 2, 3), 0.1, "y is"),
        ([[0.0]], 0.1, "y is list"),
        (torch.zeros(1, 1, 2, 3, dtype=torch.complex64), 0.1, "real measurements"),
        (torch.full((1, 1, 2, 3), math.nan), 0.1, "NaN"),
        (torch.full((1, 1, 2, 3), math.inf), 0.1, "infinity"),
        (torch.zeros(1, 1, 2, 3), -0.1, "sigma is"),
        (torch.zeros(1, 1, 2, 3), math.nan, "sigma is"),
    ],
)
def test_problems_that_are_refused(y, sigma, message):
    with pytest.raises(ConfigError, match=message):
        Problem(op.Inpainting(MASK), y, sigma)


def test_the_residual_is_about_one_at_the_truth():
    A, x, sigma = Matrix(random_complex(400, 3)), random_complex(5, 3, seed=1), 0.2
    y = A.forward(x) + sigma * random_complex(5, 400, seed=2)
    residual = Problem(A, y, sigma).residual(x)
    assert residual.shape == (5,) and float((residual - 1).abs().max()) < 4 / math.sqrt(1600)
    torch.testing.assert_close(
        Problem(A, y).residual(torch.zeros_like(x)), torch.ones(5, dtype=torch.float64)
    )


def test_repeated_measurements_are_image_major():
    problem = inpainting(2)
    rows = problem.repeated(3)
    assert torch.equal(rows.y, problem.y[[0, 0, 0, 1, 1, 1]])
    assert problem.repeated(1) is problem
    back = problem.backprojection
    assert torch.equal(problem.repeated(3).backprojection, back[[0, 0, 0, 1, 1, 1]])
    assert torch.equal(rows.backprojection, back[[0, 0, 0, 1, 1, 1]])


def test_a_posterior_is_given_its_problem():
    sampler = Posterior(ANISOTROPIC)
    problem = inpainting()
    assert sampler.given(problem).problem is problem and sampler.problem is None
