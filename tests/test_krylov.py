"""Conjugate gradients against dense solves, a sample at a time; the power method against singular values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from operators import MRI, Blur, cg, power_norm

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


def test_power_method_finds_the_norm():
    blur = Blur(randn(3, 3), (1, 6, 5))
    norm = power_norm(blur.normal, randn(1, 1, 6, 5), steps=400)
    torch.testing.assert_close(norm, blur.transfer.abs().max(), rtol=1e-4, atol=0)
    mri = MRI(randn(6, 6) > 0).to(torch.float64)
    norm = power_norm(mri.normal, torch.zeros(1, 1, 6, 6, dtype=COMPLEX))
    torch.testing.assert_close(norm, torch.tensor(1.0, dtype=REAL))
