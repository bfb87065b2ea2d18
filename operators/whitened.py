"""An operator whose measurements are divided by their standard deviations, so that their noise is white."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from .base import Linear, Operator
from .errors import OperatorError
from .per_image import PerImage


@dataclass(frozen=True, eq=False, repr=False)
class WhitenedMap(Operator):
    """``W A(x)`` with weights W (*codomain), real, at least 0: 1 / std of each measurement, and 0 of what says nothing."""

    inner: Operator
    weights: Tensor

    def __post_init__(self):
        if tuple(self.weights.shape) != tuple(self.inner.codomain) or self.weights.is_complex():
            raise OperatorError(
                f"The weights are {tuple(self.weights.shape)} {self.weights.dtype}.",
                f"{self.inner!r} has measurements {tuple(self.inner.codomain)}, each with a real weight.",
                "Expand them: weights.expand(A.codomain).",
            )

    @property
    def domain(self) -> tuple[int, ...]:
        return self.inner.domain

    @property
    def complex_domain(self) -> bool:
        return self.inner.complex_domain

    def forward(self, x: Tensor) -> Tensor:
        return self.weighted(self.inner.forward(x))

    def weighted(self, y: Tensor) -> Tensor:
        """``W y``, in the precision of y."""
        return y * self.weights.to(y.dtype.to_real())

    @property
    def lipschitz(self) -> float | None:
        """That of A times the largest weight."""
        known = self.inner.lipschitz
        return None if known is None else known * float(self.weights.max())

    @property
    def measured(self) -> int:
        return int((self.weights != 0).sum())

    def masked(self, y: Tensor) -> Tensor:
        """``W`` times what the inner one keeps of ``y / W``, in the units that it knows."""
        weights = self.weights.to(y.dtype.to_real())
        return self.weighted(self.inner.masked(y / torch.where(weights > 0, weights, 1)))

    def __repr__(self) -> str:
        return f"W @ {self.inner!r}"


class Whitened(WhitenedMap, Linear):
    """`WhitenedMap` of a linear operator; adjoint ``A^H W y``, normal ``A^H W^2 A x``."""

    inner: Linear

    @property
    def measured(self) -> int:
        weights = self.weights.to(torch.complex64) if self.inner.complex_codomain else self.weights
        return int((self.inner.masked(weights[None]) != 0).sum())

    def masked(self, y: Tensor) -> Tensor:
        return self.inner.masked(y) * (self.weights != 0)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(self.weighted(y))

    def normal(self, x: Tensor) -> Tensor:
        return self.inner.adjoint(self.weighted(self.forward(x)))


def whitened(A: Operator, sigma: Tensor) -> Operator:
    """``A / sigma`` with the standard deviation of each measurement, per real component; 0 where it is infinite.

    ``sigma``: real, broadcast to (*codomain), or to (B, *codomain) for B images that differ. Raises `OperatorError`
    for other shapes, for what is not above 0, and for images that differ under an operator that is not linear.
    """
    codomain = tuple(A.codomain)
    try:
        full = sigma.expand(torch.broadcast_shapes(sigma.shape, codomain))
    except RuntimeError:
        full = sigma
    per_image = full.ndim == len(codomain) + 1
    if sigma.is_complex() or tuple(full.shape[per_image:]) != codomain:
        raise OperatorError(
            f"sigma is {tuple(sigma.shape)} {sigma.dtype}.",
            f"{A!r} has measurements {codomain}.",
            "Give the standard deviation of each real component, of that shape, or one number for all.",
        )
    if not (sigma > 0).all():
        raise OperatorError(
            "sigma is not above 0 everywhere.",
            "Each measurement is weighted by 1 / sigma.",
            "Give infinity where nothing is known, or one number 0 where nothing is noisy.",
        )
    weights = (1 / full).to(A.device)
    if not per_image:
        return one_whitened(A, weights)
    own = A.operators if isinstance(A, PerImage) else (A,) * len(weights)
    if len(own) != len(weights):
        raise OperatorError(
            f"sigma is of {len(weights)} images, {A!r} of {len(own)}.",
            "Each image has its own.",
            "Give as many.",
        )
    made = tuple(one_whitened(one, weight) for one, weight in zip(own, weights, strict=True))
    if len(made) > 1 and not A.linear:
        raise OperatorError(
            f"sigma differs among images, and {A!r} is not linear.",
            "Only linear operators may differ from image to image.",
            "Give a sigma that all images share, or one image at a time.",
        )
    return made[0] if len(made) == 1 else PerImage(cast("tuple[Linear, ...]", made))


def one_whitened(A: Operator, weights: Tensor) -> Operator:
    """`WhitenedMap` of the kind of A, image by image of a `PerImage`."""
    if isinstance(A, PerImage):
        return PerImage(tuple(Whitened(one, weights) for one in A.operators))
    return Whitened(A, weights) if isinstance(A, Linear) else WhitenedMap(A, weights)
