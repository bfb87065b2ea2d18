"""DDS with a variance in each pixel: its equation, where it is the uniform one, and what it does in the dark."""

from __future__ import annotations

import pytest
import torch

from operators.coils import simulate_coils
from operators.masks import make_mask
from operators.mri import MRI
from recon.errors import ConfigError
from recon.posteriors.dds import DDS, NEAREST, REACH, power_around
from recon.priors import Prior, about
from recon.problem import Problem

SIZE = 32


@pytest.fixture
def problem() -> Problem:
    maps = simulate_coils(3, (SIZE, SIZE)).to(torch.complex128)
    A = MRI(make_mask("equispaced", (SIZE, SIZE), 2, 0.2), maps)
    generator = torch.Generator().manual_seed(0)
    y = A.forward(torch.randn(1, 1, SIZE, SIZE, dtype=torch.complex128, generator=generator))
    return Problem(A, y, sigma=0.1)


def image(dark: float) -> torch.Tensor:
    """Complex (1, 1, 32, 32), its left half of magnitude ``dark``, the other of 1."""
    x = torch.ones(1, 1, SIZE, SIZE, dtype=torch.complex128)
    x[..., : SIZE // 2] *= dark
    return x


def dds(problem: Problem, variance: str) -> DDS:
    return DDS(Prior(lambda x, sigma: x), problem, steps=200, tol=1e-12, variance=variance)


def test_the_equation_is_solved(problem):
    sampler, D, lam = dds(problem, "local"), image(0.01), 0.1**2 / 0.3
    x = sampler.fit(D, lam)
    least = NEAREST**2 * about(sampler.prior).data_var
    v = (REACH**2 * power_around(D) + least).clamp_max(0.3)
    gradient = problem.A.normal(x) - problem.backprojection + 0.1**2 * (x - D) / v
    assert gradient.abs().max() < 1e-8


def test_bright_images_have_one_variance(problem):
    x, y = (dds(problem, kind).fit(image(1.0), 0.1**2 / 0.3) for kind in ("local", "uniform"))
    torch.testing.assert_close(x, y, atol=1e-8, rtol=0)


def test_the_dark_is_believed(problem):
    changed = {
        kind: (dds(problem, kind).fit(image(0.0), 0.1**2 / 0.3) - image(0.0))[..., : SIZE // 4].abs().max()
        for kind in ("local", "uniform")
    }
    assert changed["local"] < 0.05 * changed["uniform"]


def test_unknown_variance_is_refused():
    with pytest.raises(ConfigError, match="local"):
        DDS(variance="global")
