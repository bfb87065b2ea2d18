"""MRI beyond the laws of the tables: conventions, the fast normal operator, closed form, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import operators as op
from operators import mri
from operators.fourier import fft2c, ifft2c
from operators.masks import make_mask


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def chosen(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.4


def written_out(mask: torch.Tensor, maps: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """``M F sum_s S x``, with numpy's transform."""
    coils = (maps * x[:, :, None]).sum(1).numpy()
    k = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(coils, axes=(-2, -1)), norm="ortho"), axes=(-2, -1))
    return torch.from_numpy(k) * mask


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(1, 4),
    st.booleans(),
    st.integers(0, 99),
)
def test_any_size_mask_and_maps(height, width, sets, coils, columns, seed):
    mask = chosen(width, seed=seed) if columns else chosen(height, width, seed=seed)
    maps, x = noise(sets, coils, height, width, seed=seed), noise(2, sets, height, width, seed=seed + 1)
    A = op.MRI(mask, maps)
    y = A(x)
    torch.testing.assert_close(y, written_out(mask, maps, x), atol=1e-12, rtol=0)
    adjoint = (maps.conj() * ifft2c(y * mask)[:, None]).sum(2)
    torch.testing.assert_close(A.adjoint(y), adjoint, atol=1e-12, rtol=0)
    torch.testing.assert_close(A.normal(x), adjoint, atol=1e-12, rtol=0)
    assert y.shape[1:] == A.codomain and x.shape[1:] == A.domain
    assert (y[..., ~A.mask.bool()] == 0).all()


@pytest.mark.parametrize("columns", [True, False])
@pytest.mark.parametrize("maps", [None, noise(3, 4, 6), noise(2, 3, 4, 6)], ids=["one coil", "coils", "sets"])
def test_nothing_measured_is_zero_and_differentiable(columns, maps):
    A = op.MRI(torch.zeros(6) if columns else torch.zeros(4, 6), maps, shape=(4, 6)).to(torch.float64)
    x, y = (noise(2, *shape).requires_grad_() for shape in (A.domain, A.codomain))
    for call, at, shape in ((A, x, A.codomain), (A.adjoint, y, A.domain), (A.normal, x, A.domain)):
        out = call(at)
        assert tuple(out.shape) == (2, *shape) and out.dtype == at.dtype and not out.any()
        (gradient,) = torch.autograd.grad(out.abs().square().sum() + out.real.sum(), at)
        assert gradient.shape == at.shape and not gradient.any()
    assert A.measured == 0
    op.check(A)


def test_a_constant_image_is_the_centre_of_k_space():
    for shape in ((6, 8), (5, 7), (5, 8)):
        y = op.MRI(torch.ones(shape))(torch.ones(1, 1, *shape, dtype=torch.complex64))
        assert y.abs().flatten().argmax() == (shape[0] // 2) * shape[1] + shape[1] // 2
        torch.testing.assert_close(y.abs().square().sum(), torch.tensor(float(shape[0] * shape[1])))


def test_coils_in_groups_give_the_same(monkeypatch):
    A = op.MRI(chosen(6, 5), noise(2, 7, 6, 5))
    x = noise(3, 2, 6, 5)
    whole = A.normal(x)
    monkeypatch.setattr(mri, "GROUP_BYTES", 1)
    torch.testing.assert_close(A.normal(x), whole)


def test_columns_are_seen_whatever_the_mask_looks_like():
    maps, columns = noise(3, 6, 8), chosen(8)
    wide, full = op.MRI(columns, maps), op.MRI(columns.expand(6, 8).float(), maps)
    assert wide.whole_columns and full.whole_columns
    assert not op.MRI(chosen(6, 8), maps).whole_columns
    torch.testing.assert_close(wide.normal(noise(1, 1, 6, 8)), full.normal(noise(1, 1, 6, 8)))


def test_single_coil_closed_form():
    for mask in (chosen(6, 5), chosen(5).expand(6, 5)):
        A, b = op.MRI(mask).to(torch.float64), noise(2, 1, 6, 5)
        x = A.solve_normal(b, 0.3)
        torch.testing.assert_close(A.normal(x) + 0.3 * x, b)
        assert op.MRI(mask, noise(2, 6, 5)).solve_normal(b, 0.3) is None


def test_twice_differentiable():
    for mask in (chosen(4, 3), chosen(3)):
        A = op.MRI(mask, noise(2, 2, 4, 3))
        x = noise(1, 2, 4, 3).requires_grad_()
        for f in (A.forward, A.normal):
            assert torch.autograd.gradcheck(f, x)
            assert torch.autograd.gradgradcheck(f, x)
        y = noise(1, 2, 4, 3).requires_grad_()
        assert torch.autograd.gradgradcheck(A.adjoint, y)


def test_precision_follows_to():
    A = op.MRI(chosen(5), noise(2, 4, 5).to(torch.complex64))
    x = noise(1, 1, 4, 5)
    assert A(x.to(torch.complex64)).dtype == torch.complex64
    A.normal(x.to(torch.complex64))
    double = A.to(torch.float64)
    assert double.maps.dtype == torch.complex128 and double.normal(x).dtype == torch.complex128
    assert op.MRI(chosen(4, 5)).to(torch.float64).dtype == torch.float64
    assert A.maps.dtype == torch.complex64


def test_coil_images_of_unit_maps_combine_to_the_image():
    maps = noise(4, 8, 8)
    maps = maps / maps.abs().square().sum(0).sqrt()
    x = noise(1, 1, 8, 8)
    A = op.MRI(torch.ones(8, 8), maps)
    torch.testing.assert_close(A.normal(x), x)
    torch.testing.assert_close(A(x), fft2c(maps * x))


@pytest.mark.parametrize(
    ("mask", "maps", "shape", "said"),
    [
        (torch.ones(8), None, None, "no height"),
        (torch.ones(7), noise(2, 6, 8), None, "6 x 8"),
        (torch.ones(6, 7), noise(2, 6, 8), None, "mask that belongs to this k-space"),
        (torch.ones(6, 8), noise(2, 6, 8), (8, 6), "shape=(8, 6)"),
        (torch.full((6, 8), 0.5), None, None, "other than 0 and 1"),
        (torch.ones(1, 6, 8), None, None, "(W,) or (H, W)"),
        (torch.ones(6, 8), torch.ones(2, 6, 8), None, "complex"),
        (torch.ones(6, 8), noise(6, 8), None, "(coils, H, W)"),
        (torch.ones(6, 8), noise(2, 6, 8) * float("nan"), None, "NaN"),
    ],
)
def test_refusals(mask, maps, shape, said):
    with pytest.raises(op.OperatorError, match=said.replace("(", r"\(").replace(")", r"\)")):
        op.MRI(mask, maps, shape)


def test_agrees_with_deepinv():
    physics = pytest.importorskip("deepinv").physics
    for name in ("equispaced-fraction", "poisson"):
        mask, maps = make_mask(name, (32, 30)), noise(4, 32, 30).to(torch.complex64)
        x = noise(1, 1, 32, 30).to(torch.complex64)
        other = physics.MultiCoilMRI(mask=mask.float(), coil_maps=maps[None], img_size=(1, 2, 32, 30))
        theirs = other.A_adjoint_A(torch.view_as_real(x[:, 0]).movedim(-1, 1).contiguous())
        ours = torch.view_as_real(op.MRI(mask, maps).normal(x)[:, 0]).movedim(-1, 1)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
