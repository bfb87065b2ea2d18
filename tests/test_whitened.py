"""Measurements of differing noise: whitened once, so that every sampler solves the weighted problem."""

from __future__ import annotations

import pytest
import torch
from tables import POSTERIORS
from worlds import GaussianWorld, Matrix, dense, flat, random, random_complex, unflat

import operators as op
import recon
from recon import Problem, sample
from recon.errors import ConfigError

V = 0.7  # variance of the prior
OPERATORS_HERE = {
    "dense": lambda: Matrix(random(4, 6)),
    "complex": lambda: Matrix(random_complex(3, 4)),
    "inpainting": lambda: op.Inpainting((random(3, 4, seed=5) > 0).double()),
}


def posed(name: str) -> tuple[GaussianWorld, op.Linear, torch.Tensor, torch.Tensor]:
    """An isotropic world, an operator, y (1, *codomain), and sigma (*codomain) over two decades."""
    A = OPERATORS_HERE[name]()
    n = dense(A).shape[1]
    world = GaussianWorld(
        random(n, seed=1), V * torch.eye(n, dtype=torch.float64), A.domain, A.complex_domain
    )
    y = unflat(random(1, dense(A).shape[0], seed=2), A.codomain, A.complex_codomain)
    sigma = 10 ** (random(*A.codomain, seed=3).clamp(-2, 2) / 2)
    return world, A, A.masked(y), sigma


def weighted_posterior(world: GaussianWorld, A, y, sigma) -> GaussianWorld:
    """``P = (C^-1 + A^H S^-1 A)^-1``, mean ``P (C^-1 m + A^H S^-1 y)``, S the diagonal of the variances."""
    matrix, precision = dense(A), torch.linalg.inv(world.covariance)
    inverse = (1 / sigma**2).flatten().repeat_interleave(2 if A.complex_codomain else 1)
    covariance = torch.linalg.inv(precision + matrix.T @ (inverse[:, None] * matrix))
    mean = covariance @ (precision @ world.mean + matrix.T @ (inverse * flat(y)[0]))
    return GaussianWorld(mean, (covariance + covariance.T) / 2, world.domain, world.is_complex)


@pytest.mark.parametrize("label", [label for label, row in POSTERIORS.items() if row.exact == "isotropic"])
@pytest.mark.parametrize("name", OPERATORS_HERE)
def test_the_estimate_is_the_conditional_mean_of_the_weighted_problem(label, name):
    world, A, y, sigma = posed(name)
    target = weighted_posterior(world, A, y, sigma)
    sampler = POSTERIORS[label].make(world, Problem(A, y, sigma).repeated(3))
    x = unflat(random(3, len(world.mean)), world.domain, world.is_complex)
    for level in (3.0, 0.3):
        found = sampler.denoise(level * x, level).x0
        torch.testing.assert_close(found, target(level * x, level), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", OPERATORS_HERE)
def test_the_same_noise_everywhere_is_one_number(name):
    world, A, y, sigma = posed(name)
    one, many = Problem(A, y, 0.3), Problem(A, y, torch.full_like(sigma, 0.3))
    x = unflat(random(1, len(world.mean)), world.domain, world.is_complex)
    torch.testing.assert_close(one.residual(x), many.residual(x))
    row = POSTERIORS["dds, matched, keep state"]
    found = [row.make(world, problem).denoise(x, 1.0).x0 for problem in (one, many)]
    torch.testing.assert_close(*found, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", recon.POSTERIORS)
def test_every_sampler_takes_the_weighted_problem_or_says_why_not(name):
    world, A, y, sigma = posed("dense")
    calls, solver = [], "euler" if name == "daps" else "sde-dpm++1"

    def counted(x, level):
        calls.append(level)
        return world(x.double(), level).to(x.dtype)

    try:
        result = sample(Problem(A, y, sigma), counted, name, solver, steps=4, samples=2)
    except ConfigError as error:
        assert name == "ddrm" and not calls and len(str(error).splitlines()) >= 2
    else:
        assert torch.isfinite(result.samples).all()


def test_the_residual_is_one_at_the_truth():
    A = op.Identity((1, 64, 64), complex_domain=True)
    truth, sigma = random_complex(1, 1, 64, 64), 10 ** random(1, 64, 64, seed=4)
    noise = random_complex(1, 1, 64, 64, seed=9)
    problem = Problem(A, truth + sigma * noise, sigma)
    assert float(problem.residual(truth)) == pytest.approx(1, abs=0.03) and problem.sigma == 1


def test_what_is_measured_with_infinite_noise_says_nothing():
    A, y = op.Identity((1, 4, 4)), torch.ones(2, 1, 4, 4)
    sigma = torch.full((1, 4, 4), 0.5)
    sigma[:, 0] = torch.inf
    problem = Problem(A, y, sigma)
    assert problem.measurements == 12 and (problem.y[:, :, 0] == 0).all() and (problem.y[:, :, 1:] == 2).all()
    assert (problem.backprojection[:, :, 0] == 0).all()


def test_images_may_differ_in_their_noise():
    A, y = op.Blur(torch.ones(3, 3) / 9, (1, 6, 6)), torch.randn(2, 1, 6, 6)
    sigma = torch.rand(2, 1, 6, 6) + 0.1
    both = Problem(A, y, sigma)
    for index in range(2):
        one = Problem(A, y[index : index + 1], sigma[index])
        torch.testing.assert_close(both.backprojection[index], one.backprojection[0])
        torch.testing.assert_close(both.repeated(3).residual(torch.zeros(6, 1, 6, 6))[3 * index], one.residual(torch.zeros(1, 1, 6, 6))[0])  # fmt: skip


class Squared(op.Operator):
    domain = (1, 4, 4)

    def forward(self, x):
        return x**2


def test_operators_that_are_not_linear_are_whitened_too():
    problem = Problem(Squared(), torch.ones(1, 1, 4, 4), torch.full((1, 4, 4), 0.5))
    assert not problem.A.linear
    torch.testing.assert_close(problem.A(3 * torch.ones(1, 1, 4, 4)), 18 * torch.ones(1, 1, 4, 4))
    with pytest.raises(ConfigError, match="is not linear"):
        Problem(Squared(), torch.ones(2, 1, 4, 4), torch.rand(2, 1, 4, 4) + 1)


@pytest.mark.parametrize(
    "sigma",
    [torch.zeros(1, 4, 4), -torch.ones(1, 4, 4), torch.full((1, 4, 4), torch.nan), torch.ones(1, 3, 4),
     torch.ones(3, 1, 4, 4), torch.ones(1, 4, 4, dtype=torch.complex64), torch.ones(0)],
    ids=lambda sigma: str(tuple(sigma.shape)),
)  # fmt: skip
def test_a_sigma_that_cannot_weigh_is_refused(sigma):
    with pytest.raises(ConfigError, match="sigma is"):
        Problem(op.Identity((1, 4, 4)), torch.ones(2, 1, 4, 4), sigma)
