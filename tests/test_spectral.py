"""Singular value decompositions against the dense matrix: ``A = U S V^H`` with V square and white noise kept white."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from tables import OPERATORS
from worlds import Matrix, dense, flat, random, random_complex

import operators as op
from operators import spectral as module
from operators.spectral import Spectral, significant, spectral

MASK = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0], dtype=torch.float64)

# the kinds whose decomposition is known without a matrix
STRUCTURED = {
    **{
        name: OPERATORS[name]
        for name in (
            "inpainting", "inpainting, 3 channels", "inpainting, mask a channel", "sr bicubic", "sr bicubic x3",
            "sr box", "sr gaussian", "sr reflect", "blur", "blur, even kernel", "blur, kernel a channel", "mri",
            "mri, odd size", "mri, columns", "identity", "scale, complex", "per image", "complexified inpainting",
            "complexified sr", "complexified blur", "complexified, several images", "blur, shaken", "blur, anisotropic",
            "inpainting, brush", "mri, weights", "colourisation", "colourisation, mean", "whitened",
        )
    },
    "blur, zeros in the spectrum": lambda: op.Blur(torch.ones(2, 2, dtype=torch.float64), (1, 4, 6)),
    "scaled mri": lambda: op.MRI(MASK, shape=(4, 6)) @ op.Scale(0.3 - 0.4j, (1, 4, 6), True),
    "scaled blur": lambda: -0.3 * op.Blur(random(3, 3), (1, 4, 5)),
    "times zero": lambda: 0.0 * op.Inpainting(MASK[None]),
    "mri of several images": lambda: op.PerImage(
        (2.0 * op.MRI(MASK, shape=(4, 6)), 0.5 * op.MRI(1 - MASK, shape=(4, 6)))
    ),
}  # fmt: skip
SMALL = {name: make for name, make in OPERATORS.items() if name not in STRUCTURED}
SINGLE = {name: make for name, make in (STRUCTURED | SMALL).items() if make().images == 1}  # one matrix each
ALL = pytest.mark.parametrize("make", [*STRUCTURED.values(), *SMALL.values()], ids=[*STRUCTURED, *SMALL])


def found(A: op.Operator) -> Spectral:
    svd = spectral(A)
    assert svd is not None
    return svd


def images(A: op.Operator, seed: int = 1) -> torch.Tensor:
    return (random_complex if A.complex_domain else random)(2 * A.images, *A.domain, seed=seed)


def measurements(A: op.Operator, seed: int = 2) -> torch.Tensor:
    return (random_complex if A.complex_codomain else random)(2 * A.images, *A.codomain, seed=seed)


def close(a, b, tol=1e-10):
    torch.testing.assert_close(a, b, rtol=tol, atol=tol)


@pytest.mark.parametrize("make", STRUCTURED.values(), ids=STRUCTURED)
def test_structure_is_used_where_there_is_some(make):
    assert spectral(make(), dense=False) is not None


@pytest.mark.parametrize("make", SMALL.values(), ids=SMALL)
def test_small_operators_are_matrices(make):
    assert spectral(make(), dense=False) is None and spectral(make()) is not None


@ALL
def test_it_is_the_operator(make):
    A = make()
    svd, x, y = found(A), images(A), measurements(A)
    s, c = svd.values(x), svd.coordinates(x)
    assert not s.is_complex() and float(s.min()) >= 0
    close(svd.image(c), x)
    close(svd.image(s.square() * c), A.normal(x))
    close(svd.image(s * svd.measured(y)), A.adjoint(y))
    close(svd.measured(A.forward(x)), s * c)
    assert not (svd.measured(y) * (s == 0)).any()


@pytest.mark.parametrize("make", SINGLE.values(), ids=SINGLE)
def test_functions_of_it_are_dense_ones(make):
    """``f(A^H A)`` for a resolvent, the pseudo-inverse, and the projection that ``U^H`` of white noise gives."""
    A = make()
    svd, x, y, M = found(A), images(A), measurements(A), dense(A)
    s = svd.values(x)
    eye = torch.eye(M.shape[1], dtype=torch.float64)
    resolvent = svd.image(svd.coordinates(x) / (s.square() + 0.7))
    close(flat(resolvent), flat(x) @ torch.linalg.inv(M.T @ M + 0.7 * eye))
    inverse = torch.where(significant(s, 1e-9), 1 / s, 0)
    close(flat(svd.image(inverse * svd.measured(y))), flat(y) @ torch.linalg.pinv(M, rtol=1e-9).T, 1e-9)
    m = M.shape[0]
    basis = torch.eye(m, dtype=torch.float64)
    kind = measurements(A)
    basis = (
        torch.view_as_complex(basis.view(m, *A.codomain, 2))
        if kind.is_complex()
        else basis.view(m, *A.codomain)
    )
    W = flat(svd.image(svd.measured(basis))).T
    close(W @ W.T, torch.linalg.pinv(M, rtol=1e-9) @ M, 1e-9)


def test_per_image_values_follow_the_rows():
    A = STRUCTURED["mri of several images"]()
    svd = found(A)
    assert svd.values(images(A)).shape[0] == 4
    assert [float(v.max()) for v in svd.values(images(A))] == [2.0, 2.0, 0.5, 0.5]
    mixed = op.PerImage((op.MRI(MASK, shape=(4, 6)), op.MRI(random(4, 6) > 0)))
    assert spectral(mixed) is None  # their coordinates differ


def test_an_operator_may_bring_its_own():
    @dataclass(frozen=True, eq=False)
    class Diagonal(op.Linear):
        weights: torch.Tensor
        domain: tuple = (3,)

        def forward(self, x):
            return self.weights * x

        def spectral(self):
            sign = self.weights.sign()
            return Spectral(self.weights.abs()[None], lambda x: x, lambda c: c, lambda y: sign * y)

    A = Diagonal(torch.tensor([2.0, 0.0, -1.0], dtype=torch.float64))
    svd, x, y = found(A), images(A), measurements(A)
    close(svd.image(svd.values(x) * svd.measured(y)), A.adjoint(y))
    close(svd.measured(A.forward(x)), svd.values(x) * svd.coordinates(x))


def test_none_is_known_of_large_unstructured_operators(monkeypatch):
    A = Matrix(random(3, 5))
    assert spectral(A) is not None
    monkeypatch.setattr(module, "DENSE", 4)
    assert spectral(A) is None
    assert spectral(op.CT(40, [0.0, 90.0])) is None

    class Squared(op.Operator):
        domain = (4,)

        def forward(self, x):
            return x**2

    assert spectral(Squared()) is None


@pytest.mark.parametrize("make", STRUCTURED.values(), ids=STRUCTURED)
def test_it_works_in_the_precision_of_the_images(make):
    A = make()
    svd, x, y = found(A), images(A), measurements(A)
    low = torch.complex64 if x.is_complex() else torch.float32
    kind = torch.complex64 if y.is_complex() else torch.float32
    c = svd.coordinates(x.to(low))
    assert svd.image(svd.values(x.to(low)) * c).dtype == low
    assert svd.measured(y.to(kind)).dtype.to_real() == torch.float32
    close(svd.image(c).to(x.dtype), x, 1e-5)
