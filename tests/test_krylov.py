"""Conjugate gradients against dense solves, a sample at a time; the norm against singular values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from operators import MRI, Blur, PerImage, Scale, cg, operator_norm, power_norm

REAL, COMPLEX = torch.float64, torch.complex128
FIELDS = pytest.mark.parametrize("dtype", [REAL, COMPLEX], ids=["real", "complex"])


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = REAL) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def system(n: int, dtype: torch.dtype, ridge: float = 0.1) -> Tensor:
    """A Hermitian positive definite matrix."""
    m = randn(n, n, dtype=dtype)
    return m @ m.mH / n + ridge * torch.eye(n, dtype=dtype)


def product(m: Tensor):
    return lambda x: (x.flatten(1) @ m.T).view_as(x)


def solve(m: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.solve(m, b.flatten(1).T).T.reshape(b.shape)


@FIELDS
def test_solves_as_a_dense_solver_does(dtype):
    m, b = system(12, dtype), randn(3, 1, 3, 4, seed=1, dtype=dtype)
    x = cg(product(m), b, steps=40, tol=1e-13)
    torch.testing.assert_close(x, solve(m, b), rtol=1e-10, atol=1e-10)


@FIELDS
def test_is_exact_after_as_many_steps_as_unknowns(dtype):
    m, b = system(6, dtype, ridge=1.0), randn(2, 6, seed=1, dtype=dtype)
    torch.testing.assert_close(cg(product(m), b, steps=6, tol=0), solve(m, b), rtol=1e-10, atol=1e-10)


@FIELDS
def test_a_sample_does_not_depend_on_its_batch_mates(dtype):
    m = system(12, dtype)
    b = randn(4, 12, seed=1, dtype=dtype) * torch.tensor([1.0, 1e-8, 1e6, 0.0], dtype=REAL)[:, None]
    b[0] = m @ torch.linalg.eigh(m)[1][:, 0]  # an eigenvector: done after one step, others go on
    together = cg(product(m), b, steps=30, tol=1e-4)
    for i in range(4):
        alone = cg(product(m), b[i : i + 1], steps=30, tol=1e-4)
        assert (together[i] - alone[0]).norm() <= 1e-11 * alone.norm()
    assert (together[3] == 0).all()


@FIELDS
def test_a_converged_sample_is_frozen(dtype):
    m, b = system(12, dtype), randn(2, 12, seed=1, dtype=dtype)
    exact = solve(m, b)
    start = torch.stack((exact[0], torch.zeros_like(exact[1])))
    x = cg(product(m), b, start=start, steps=30, tol=1e-8)
    assert torch.equal(x[0], exact[0])
    torch.testing.assert_close(x[1], exact[1], rtol=1e-6, atol=1e-7)
    fewer = [cg(product(m), b, steps=n, tol=1e-2) for n in (25, 60)]
    assert torch.equal(*fewer)
    residual = (b - product(m)(fewer[0])).norm(dim=1) / b.norm(dim=1)
    assert (residual <= 1e-2).all() and (residual > 1e-6).all()


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_tolerance_is_relative(scale):
    m, b = system(12, REAL).float(), randn(2, 12, seed=1).float()
    x = cg(product(m), scale * b, steps=60, tol=1e-5) / scale
    torch.testing.assert_close(x, cg(product(m), b, steps=60, tol=1e-5), rtol=1e-3, atol=1e-3)
    assert ((b - product(m)(x)).norm(dim=1) <= 2e-5 * b.norm(dim=1)).all()


def test_the_start_is_used():
    m, b = system(12, REAL), randn(1, 12, seed=1)
    exact = solve(m, b)
    near = exact + 1e-6 * randn(1, 12, seed=2)
    assert (cg(product(m), b, start=near, steps=1) - exact).norm() < 1e-5
    assert (cg(product(m), b, steps=1) - exact).norm() > 1e-2
    assert torch.equal(near, exact + 1e-6 * randn(1, 12, seed=2))


def test_a_singular_system_keeps_what_is_not_seen():
    """In the null space of the matrix nothing is added to the start."""
    keep = torch.tensor([1.0, 1, 0, 0], dtype=REAL)
    b, start = randn(1, 4, seed=1) * keep, randn(1, 4, seed=2)
    x = cg(lambda x: keep * x, b, start=start, steps=10)
    torch.testing.assert_close(x, torch.where(keep > 0, b, start))


def test_is_differentiable():
    m, b = system(5, REAL), randn(1, 5, seed=1).requires_grad_()
    torch.autograd.gradcheck(lambda b: cg(product(m), b, steps=5, tol=0), (b,))


def test_the_norm_of_a_bare_normal_operator_is_each_rows_own():
    blur = Blur(randn(3, 3), (1, 6, 5))
    expected = blur.transfer.abs().max()
    found = power_norm(blur.normal, randn(1, 1, 6, 5))
    torch.testing.assert_close(found, expected[None], rtol=1e-10, atol=0)
    scales = torch.tensor([1.0, 10.0, 0.0], dtype=REAL).view(-1, 1, 1, 1)
    found = power_norm(lambda x: scales**2 * blur.normal(x), randn(3, 1, 6, 5))
    torch.testing.assert_close(found, expected * scales.flatten(), rtol=1e-10, atol=0)
    mri = MRI(randn(6, 6) > 0).to(torch.float64)
    norm = power_norm(mri.normal, torch.zeros(1, 1, 6, 6, dtype=COMPLEX))
    torch.testing.assert_close(norm, torch.ones(1, dtype=REAL))


def test_the_norm_does_not_depend_on_batch_mates_and_keeps_no_graph():
    one, two = Blur(randn(3, 3), (1, 6, 5)), Blur(7 * randn(3, 3, seed=1), (1, 6, 5))
    both = operator_norm(PerImage((one, two)))
    torch.testing.assert_close(both, torch.cat((operator_norm(one), operator_norm(two))), rtol=1e-12, atol=0)
    assert both[1] > 2 * both[0] and not both.requires_grad
    assert operator_norm(one.to(torch.float32)).dtype == torch.float32
    assert operator_norm(Scale(0.0, (1, 3, 4))) == 0


def test_the_norm_converges_where_the_power_method_does_not():
    """Singular values .99, .98, ... beside 1: thirty steps of the power method are one per cent short."""
    values = torch.linspace(0, 1, 101, dtype=REAL)
    assert power_norm(lambda x: values**2 * x, values[None]) > 1 - 2e-4
