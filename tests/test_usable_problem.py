"""What a problem refuses before anything is solved: operators that are not what they say, units that are no numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

import operators as op
from recon import Problem, sample
from recon.errors import ConfigError

SHAPE = (1, 6, 6)


@dataclass(frozen=True)
class Weighted(op.Linear):
    """``W x``, as a user writes it first."""

    weights: torch.Tensor
    domain: tuple[int, ...] = SHAPE

    def forward(self, x):
        return x * self.weights


class Projected(op.Linear):
    """A matrix product, which takes one precision only."""

    domain = SHAPE

    def __init__(self):
        self.matrix = torch.eye(36)

    def forward(self, x):
        return x.flatten(1) @ self.matrix


class Affine(Projected):
    def forward(self, x):
        return x + 1


class Squared(Projected):
    def forward(self, x):
        return x**2


class WrongAdjoint(Projected):
    def adjoint(self, y):
        return 2 * y.reshape(-1, *SHAPE)


class NoDomain(op.Linear):
    def forward(self, x):
        return x


class ListDomain(NoDomain):
    domain: ClassVar[list[int]] = [1, 6, 6]


class Broken(Projected):
    domain = (1, 6, 5)


class NoTensor(Projected):
    def forward(self, x):
        return x.numpy()


class NoBatch(Projected):
    def forward(self, x):
        return x.sum(0, keepdim=True)


class Rounded(Projected):
    def forward(self, x):
        return x.float()


class NoForward(op.Linear):
    domain = SHAPE


def test_an_operator_is_shown_by_its_domain_not_by_its_tensors():
    A = Weighted(torch.ones(6, 6))
    assert repr(A) == f"Weighted(domain={SHAPE})"
    with pytest.raises(ConfigError) as error:
        Problem(A, torch.zeros(1, 1, 5, 5))
    assert "tensor(" not in str(error.value) and repr(A) in str(error.value)
    assert "tensor(" not in repr(A.H @ A + op.Scale(2.0, SHAPE))


def test_a_repr_of_its_own_is_kept():
    @dataclass(frozen=True)
    class Named(Weighted):
        def __repr__(self):
            return "mine"

    assert repr(Named(torch.ones(6, 6))) == "mine"


def never(x, sigma):
    raise AssertionError("the network was called")


@pytest.mark.parametrize(
    "A, said",
    [
        (Affine(), "declared linear, and is not.\nA 0 is not 0"),
        (Squared(), "declared linear, and is not.\nA (x - 2 z)"),
        (WrongAdjoint(), "adjoint is not that of forward"),
        (op.Scale(2.0, SHAPE) @ Affine(), "Affine(domain=(1, 6, 6)) is declared linear"),
        (NoDomain(), "NoDomain has no domain"),
        (ListDomain(), "ListDomain has the domain [1, 6, 6]"),
        (Broken(), "RuntimeError: mat1 and mat2"),
        (NoForward(), "does not define forward"),
        (NoTensor(), "returned a ndarray"),
        (NoBatch(), "gives (1, 1, 6, 6): the first axis is that of the images"),
        (torch.nn.Conv2d(1, 1, 3), "A is a Conv2d, not an operator"),
        (lambda x: x, "A is a function, not an operator"),
        (None, "A is a NoneType"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)  # fmt: skip
def test_an_operator_that_is_not_what_it_says_is_refused_at_once(A, said):
    with pytest.raises(ConfigError) as error:
        sample(Problem(A, torch.zeros(1, *SHAPE), 0.1), never)
    assert said in str(error.value) and len(str(error.value).splitlines()) <= 3


@pytest.mark.parametrize("A", [Projected(), Rounded()])
def test_measurements_of_another_precision_are_refused_with_the_way_out(A):
    codomain = A.codomain
    assert Problem(A, torch.zeros(1, *codomain), 0.1).sigma == 0.1
    with pytest.raises(ConfigError, match=r"holds torch.float32 and cannot measure torch.float64") as error:
        Problem(A, torch.zeros(1, *codomain, dtype=torch.float64), 0.1)
    assert "y.to(torch.float32)" in error.value.do
    if type(A) is Projected:
        assert Problem(A.to(torch.float64), torch.zeros(1, *codomain, dtype=torch.float64)).sigma == 0
    with pytest.raises(ConfigError):  # of two precisions within
        Problem(op.Scale(2.0, codomain) @ A, torch.zeros(1, *codomain, dtype=torch.float64), 0.1)


def test_ours_take_both_precisions():
    A = op.Inpainting(torch.ones(6, 6))
    assert Problem(A, torch.zeros(1, *SHAPE, dtype=torch.float64)).y.dtype == torch.float64


@pytest.mark.parametrize("sigma", [None, "0.1", -1, float("nan"), [0.1], True, 1j, torch.ones(3, 3), torch.tensor(1j)], ids=str)  # fmt: skip
def test_a_sigma_that_is_no_number_is_refused(sigma):
    with pytest.raises(ConfigError, match="sigma is "):
        Problem(op.Identity(SHAPE), torch.zeros(1, *SHAPE), sigma)


@pytest.mark.parametrize("sigma", [0, 1, 0.5, np.float32(0.5), torch.tensor(0.5)], ids=str)
def test_numbers_of_any_library_are_a_sigma(sigma):
    found = Problem(op.Identity(SHAPE), torch.zeros(1, *SHAPE), sigma).sigma
    assert type(found) is float and found == float(sigma)


@pytest.mark.parametrize("y", [None, 3.0, np.zeros((1, 1, 6, 6)), torch.zeros(1, 1, 6, 6, dtype=torch.int32)])
def test_measurements_that_are_none_are_refused(y):
    with pytest.raises(ConfigError, match="y is "):
        Problem(op.Identity(SHAPE), y, 0.1)


def test_a_law_is_measured_once_and_again_after_a_change_of_precision():
    calls = []

    class Counted(Projected):
        def forward(self, x):
            calls.append(x.dtype)
            return super().forward(x)

    A = Counted()
    Problem(A, torch.zeros(1, 36), 0.1)
    count = len(calls)
    Problem(A, torch.zeros(2, 36), 0.2).repeated(3)
    assert len(calls) == count
    Problem(A.to(torch.float64), torch.zeros(1, 36, dtype=torch.float64), 0.1)
    assert len(calls) > count and calls[-1] == torch.float64
