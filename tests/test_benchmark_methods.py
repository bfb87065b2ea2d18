"""deepinv's samplers and the classical methods of the benchmark, on Gaussian worlds with known posteriors."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor
from worlds import GaussianWorld, label, random, random_complex

import operators as op
from recon.benchmark.methods.classical import CLASSICAL, minimise_tv, unscaled
from recon.benchmark.methods.peers import PEERS, as_job, denoiser_class, physics_of
from recon.benchmark.scene import Scene
from recon.errors import ConfigError
from recon.noise import Noise
from recon.priors import Prior
from recon.problem import Problem

pytestmark = pytest.mark.filterwarnings("ignore")
SIZE = 16
SIGMA = 0.05


class Smooth(Prior):
    """Independent stationary Gaussian parts with standard deviation .3 and a mean of .2, by its spectrum."""

    def __init__(self, is_complex: bool):
        super().__init__(self.denoise)
        line = torch.fft.fftfreq(SIZE, dtype=torch.float64) * SIZE
        power = 1 / (1 + line[:, None].square() + line.square())
        self.power, self.is_complex = 0.09 * power / power.mean(), is_complex
        self.mean, self.calls = 0.2 * (1 + 1j if is_complex else 1), 0

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        self.calls += 1
        assert isinstance(sigma, float) and x.is_complex() == self.is_complex
        gain = (self.power / (self.power + sigma**2)).to(x.real.dtype)
        v = self.mean + torch.fft.ifft2(gain * torch.fft.fft2(x - self.mean))
        return v if self.is_complex else v.real

    def draw(self, white: Tensor) -> Tensor:
        v = self.mean + torch.fft.ifft2(self.power.sqrt() * torch.fft.fft2(white))
        return v if self.is_complex else v.real


MASK = (random(SIZE, SIZE, seed=1) > 0).float()
LINES = (torch.arange(SIZE) % 2 == 0) | ((torch.arange(SIZE) - 8).abs() < 2)
MAPS = (lambda maps: (maps / op.coils.rss(maps)).to(torch.complex64))(
    random_complex(3, SIZE, SIZE, seed=2) * 0.2 + random_complex(3, 1, 1, seed=4)
)
OPERATORS = {
    "inpainting": op.Inpainting(MASK),
    "denoising": op.Identity((1, SIZE, SIZE)),
    "complex inpainting": op.Complexified(op.Inpainting(MASK)),
    "one coil": op.MRI(LINES, shape=(SIZE, SIZE)),
    "coils": op.MRI(LINES, MAPS),
    "scaled coils": op.MRI(LINES, MAPS) @ op.Scale(3.0, (1, SIZE, SIZE), True),
    "ct": op.CT(SIZE, [9.0 * a for a in range(20)]),
    "scaled ct": op.CT(SIZE, [9.0 * a for a in range(20)]) * 2.0,
    "complex ct": op.Complexified(op.CT(SIZE, [9.0 * a for a in range(20)])),
}
DECOMPOSED = ("inpainting", "denoising", "complex inpainting", "one coil")


@cache
def scene(name: str) -> Scene:
    A = OPERATORS[name]
    prior = Smooth(A.complex_domain)
    white = random_complex if A.complex_domain else random
    truth = prior.draw(white(1, 1, SIZE, SIZE, seed=7)).to(
        torch.complex64 if A.complex_domain else torch.float32
    )
    clean = A(truth)
    problem = Problem(A, clean + SIGMA * Noise(1)(clean, 0), SIGMA)
    prior.calls = 0
    return Scene(problem, prior, truth[0, 0].abs(), 3, lambda: clean)


def run(
    table: dict, method: str, name: str, calls: int | None = 6, samples: int = 2, seed: int = 0, **options
):
    """The answer, after a check that the problem is as it was and that calls are counted."""
    s = scene(name)
    y, x = s.problem.y.clone(), s.start.clone()
    before, measured = s.prior.calls, s.problem.A(x)
    answer = table[method](s, calls, samples, seed, **options)
    assert torch.equal(s.problem.y, y) and torch.equal(s.start, x)
    assert torch.equal(s.problem.A(x), measured)
    assert s.prior.calls - before == answer.network_calls
    assert answer.samples.dtype == s.start.dtype and answer.mean.shape == tuple(s.problem.A.domain)
    assert torch.isfinite(answer.samples.abs()).all()
    return answer


CASES = [
    (method, name)
    for method in PEERS
    for name in ("inpainting", "coils", "scaled coils", "one coil", "ct")
    if method != "deepinv-ddrm" or name in DECOMPOSED
] + [("deepinv-ddrm", "complex inpainting"), ("deepinv-ddrm", "denoising")]


@pytest.mark.parametrize(("method", "name"), CASES, ids=label)
def test_peer_draws_from_its_seed_alone_and_makes_the_calls_asked_for(method: str, name: str):
    torch.manual_seed(5)
    first = run(PEERS, method, name)
    assert first.network_calls == 6
    assert first.samples.shape == (2, 1, SIZE, SIZE)
    assert not torch.equal(first.samples[0], first.samples[1])
    torch.manual_seed(6)
    state = torch.random.get_rng_state()
    again = run(PEERS, method, name)
    assert torch.equal(first.samples, again.samples)
    assert torch.equal(state, torch.random.get_rng_state())
    assert not torch.allclose(first.samples, run(PEERS, method, name, seed=1).samples)


@pytest.mark.parametrize(
    ("method", "calls"),
    {
        "deepinv-dps": 999,
        "deepinv-ddrm": 99,
        "deepinv-diffpir": 100,
        "deepinv-pigdm": 100,
        "deepinv-mmps": 100,
    }.items(),
    ids=label,
)
def test_default_budget_is_the_one_stated(method: str, calls: int):
    assert run(PEERS, method, "inpainting", None, 1).network_calls == calls


@pytest.mark.parametrize(
    "options",
    [{"schedule": "ve"}, {"solver": "euler"}, {"solver": "ddim"}, {"solver": "ancestral"}],
    ids=label,
)
def test_calls_are_exact_on_every_schedule(options: dict):
    assert run(PEERS, "deepinv-dps", "inpainting", 7, 1, **options).network_calls == 7


@pytest.mark.parametrize("name", OPERATORS, ids=label)
def test_physics_is_the_operator(name: str):
    A = unscaled(OPERATORS[name])[0]
    physics, s = physics_of(A), scene(name)
    factor = unscaled(OPERATORS[name])[1]
    x = op.physics.two_channels(s.start)
    y = op.physics.two_channels(s.problem.A(s.start)) / factor
    torch.testing.assert_close(physics.A(x), y, rtol=1e-5, atol=1e-5)
    z = op.physics.two_channels(A.adjoint(s.problem.y))
    torch.testing.assert_close(
        physics.A_adjoint(op.physics.two_channels(s.problem.y)), z, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("name", ["inpainting", "coils"])
def test_adapter_is_the_prior_and_its_derivative(name: str):
    s = scene(name)
    job = as_job(s, 2, torch.Generator())
    x = s.start.repeat(2, 1, 1, 1)
    theirs = op.physics.two_channels(x).requires_grad_()
    expected = op.physics.two_channels(s.prior(x, 0.5))
    for sigma in (0.5, torch.tensor(0.5), torch.full((2,), 0.5), torch.full((2, 1, 1, 1), 0.5)):
        assert torch.equal(job.denoiser(theirs, sigma), expected)
    # the prior's Jacobian is symmetric: J v is its linear part applied to v
    v = op.physics.two_channels(Noise(2, samples=2)(x, 0))
    (product,) = torch.autograd.grad(job.denoiser(theirs, 0.5), theirs, v)
    linear = job.denoiser(v, 0.5) - job.denoiser(torch.zeros_like(v), 0.5)
    torch.testing.assert_close(product, linear, rtol=1e-4, atol=1e-5)
    assert torch.equal(job.denoiser(theirs, 0.0), theirs)
    with pytest.raises(ConfigError, match="noise levels"):
        job.denoiser(theirs, torch.tensor([0.5, 0.6]))


def test_unit_range_is_the_prior_in_other_units():
    s = scene("coils")
    denoiser = denoiser_class()(s.prior, ((1, SIZE, SIZE), True))
    x = op.physics.two_channels(s.start)
    plain = denoiser(x, 0.3)
    denoiser.reach = 2.5
    torch.testing.assert_close(
        2.5 * (2 * denoiser((x / 2.5 + 1) / 2, 0.3 / 5) - 1), plain, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", ["inpainting", "coils"])
def test_moment_matching_finds_the_posterior_mean(name: str):
    """Exact guidance on a Gaussian world: the mean of 40 samples is the posterior mean, to their own error."""
    s = scene(name)
    answer = run(PEERS, "deepinv-mmps", name, 60, 40, schedule="ve", solver="ancestral", cg_max_iter=10)
    exact, std = posterior(s)
    error = op.physics.two_channels(answer.mean[None] - exact).square().mean().sqrt()
    assert error < 1.5 * std / 40**0.5
    spread = op.physics.two_channels(answer.samples).std(0).square().mean().sqrt()
    assert 0.8 < spread / std < 1.2


def posterior(s: Scene) -> tuple[Tensor, Tensor]:
    """Mean (1, *domain) and root mean variance of a component, by dense linear algebra."""
    A, prior = s.problem.A.to(torch.float64), s.prior
    domain, n = tuple(A.domain), SIZE * SIZE
    kernel = torch.fft.ifft2(prior.power).real
    shift = torch.arange(SIZE)
    gaps = (shift[:, None] - shift) % SIZE
    block = kernel[gaps[:, None, :, None], gaps[None, :, None, :]].reshape(n, n)
    covariance, mean = block, torch.full((n,), 0.2, dtype=torch.float64)
    if prior.is_complex:  # over (pixel, real and imaginary part)
        covariance, mean = torch.kron(block, torch.eye(2, dtype=torch.float64)), mean.repeat(2)
    world = GaussianWorld(mean, covariance, domain, prior.is_complex)
    y = s.problem.y.to(torch.complex128 if s.problem.y.is_complex() else torch.float64)
    after = world.posterior(A, y, SIGMA)
    exact = after.mean.reshape(*domain, 2) if prior.is_complex else after.mean.reshape(domain)
    exact = torch.view_as_complex(exact.contiguous()) if prior.is_complex else exact
    return exact[None], after.covariance.diagonal().mean().sqrt()


@pytest.mark.parametrize("name", ["coils", "ct"])
def test_ddrm_refuses_what_has_no_singular_values(name: str):
    calls = scene(name).prior.calls
    with pytest.raises(ConfigError, match="singular value"):
        PEERS["deepinv-ddrm"](scene(name), 5, 1, 0)
    assert scene(name).prior.calls == calls


# --- classical ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [name for name in CLASSICAL if name != "wavelets"])  # a program: below
def test_every_classical_method_resembles_the_truth(method: str):
    """On the problem that it is for, without options."""
    found = run(CLASSICAL, method, "ct").mean[0].abs().flatten()
    truth = scene("ct").reference.flatten()
    assert float(torch.dot(found, truth) / (found.norm() * truth.norm())) > 0.8


@pytest.mark.parametrize("name", ["inpainting", "coils", "scaled coils", "ct", "complex ct"])
@pytest.mark.parametrize("method", ["adjoint", "least-squares", "tv"])
def test_classical_method_gives_one_image_that_explains_the_data(method: str, name: str):
    answer = run(CLASSICAL, method, name, **({"lambdas": (1e-3,)} if method == "tv" else {}))
    assert answer.network_calls == 0 and answer.samples.shape == (1, 1, SIZE, SIZE)
    s = scene(name)
    assert (s.problem.A(answer.samples) - s.problem.y).norm() < 0.6 * s.problem.y.norm()


def test_scale_of_the_adjoint_is_the_best():
    s, answer = scene("ct"), run(CLASSICAL, "adjoint", "ct")

    def misfit(factor: float) -> float:
        return float((s.problem.A(factor * answer.samples) - s.problem.y).norm())

    assert misfit(1) < min(misfit(0.99), misfit(1.01))


def test_least_squares_solves_its_equation():
    s, answer = scene("coils"), run(CLASSICAL, "least-squares", "coils", weight=0.05)
    x, A = answer.samples, s.problem.A
    size = float(op.operator_norm(A)) ** 2
    torch.testing.assert_close(A.normal(x) + 0.05 * size * x, s.problem.backprojection, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["ct", "scaled ct", "complex ct"])
def test_fbp_is_the_operators_own(name: str):
    s, answer = scene(name), run(CLASSICAL, "fbp", name)
    plain = OPERATORS["ct"].fbp(s.problem.y.real / (2 if name == "scaled ct" else 1))
    torch.testing.assert_close(answer.samples.real, plain, rtol=1e-4, atol=1e-5)


def test_fbp_and_wavelets_refuse_other_operators(monkeypatch):
    with pytest.raises(ConfigError, match="filtered back-projection"):
        CLASSICAL["fbp"](scene("coils"), None, 1, 0)
    with pytest.raises(ConfigError, match="multi-coil"):
        CLASSICAL["wavelets"](scene("ct"), None, 1, 0)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="program bart"):
        CLASSICAL["wavelets"](scene("coils"), None, 1, 0)


def test_wavelets_keep_the_best_lambda(monkeypatch):
    s = scene("scaled coils")
    monkeypatch.setattr("recon.benchmark.methods.classical.shutil.which", lambda name: name)

    def pics(y: Tensor, weight: float, maps: Tensor) -> Tensor:
        torch.testing.assert_close(y, s.problem.y[0] / 3)
        return s.reference + weight * random(SIZE, SIZE).float()

    monkeypatch.setattr("recon.benchmark.methods.classical.bart_maps", lambda y: y[None])
    monkeypatch.setattr("recon.benchmark.methods.classical.bart_wavelets", pics)
    answer = run(CLASSICAL, "wavelets", "scaled coils", lambdas=(0.5, 0.1, 0.3))
    assert answer.notes == {"lambda": 0.1} and answer.samples.shape == (1, 1, SIZE, SIZE)


@pytest.mark.parametrize("name", ["inpainting", "coils", "complex ct"])
def test_tv_is_the_minimiser_that_another_algorithm_finds(name: str):
    """ADMM against a long primal-dual run (Chambolle and Pock) in float64."""
    s = scene(name)
    A = s.problem.A.to(torch.float64)
    y = s.problem.y.to(torch.complex128 if s.problem.y.is_complex() else torch.float64)
    b, start = A.adjoint(y), s.start.to(y.dtype)
    size = float(op.operator_norm(A)) ** 2
    weight = 0.01 * size
    D = op.Difference(tuple(A.domain), complex_domain=A.complex_domain)

    def objective(x: Tensor) -> float:
        penalty = D(x).abs().square().sum((1, 2)).sqrt().sum()
        return float((A(x) - y).abs().square().sum() / 2 + weight * penalty)

    x, p = start, torch.zeros_like(D(start))
    sigma = size / 16
    for _ in range(4000):
        new = x - (A.normal(x) - b + D.adjoint(p)) / (size / 2 + 8 * sigma)
        p = p + sigma * D(2 * new - x)
        p = p / (p.abs().square().sum((1, 2), keepdim=True).sqrt() / weight).clamp_min(1)
        x = new
    ours = minimise_tv(A, b, weight, start)
    assert (ours - x).norm() < 0.01 * x.norm()
    assert objective(ours) < objective(x) * (1 + 1e-4)
    for seed in range(3):
        nudge = Noise(seed)(x, 0)
        assert objective(ours) < objective(ours + 0.02 * nudge)


def test_tv_names_the_lambda_that_is_best_for_the_reference():
    answer = run(CLASSICAL, "tv", "inpainting", lambdas=(1e-6, 3e-3, 10.0))
    assert answer.notes == {"lambda": 3e-3}
