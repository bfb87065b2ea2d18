"""Operators of real images on complex ones: what measures a picture measures its real and imaginary part."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .base import Linear
from .errors import OperatorError


class Complexified(Linear):
    """``y = A Re x + i A Im x`` for ``inner`` A, real to real: its complex extension.

    Domain, codomain, closed forms and singular values are the inner's; images and measurements are
    complex. So a prior of complex images serves inpainting, super-resolution, blur and CT too. Noise of
    sigma per real component on the complex y is noise of sigma on each of the two real measurements.
    Raises `OperatorError` for an operator that is complex already.
    """

    complex_domain = True

    def __init__(self, inner: Linear):
        if inner.complex_domain or inner.complex_codomain:
            raise OperatorError(
                f"Complexified was given {inner!r}, which is complex already.", do="Use it as it is."
            )
        self.inner, self.domain, self.images = inner, tuple(inner.domain), inner.images

    @property
    def measured(self) -> int:
        """Complex numbers, as many as the inner measures real ones."""
        return self.inner.measured

    def masked(self, y: Tensor) -> Tensor:
        return self.on_both_parts(self.inner.masked, y)

    def on_both_parts(self, real_map: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
        """A real linear map, such as the inner's ``fbp``, of real and imaginary part: (B, ...) complex to the same."""
        return torch.complex(*together(real_map(rows(z))).unbind(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.on_both_parts(self.inner.forward, x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.on_both_parts(self.inner.adjoint, y)

    def normal(self, x: Tensor) -> Tensor:
        return self.on_both_parts(self.inner.normal, x)

    def solve_normal(self, b: Tensor, weight: float) -> Tensor | None:
        parts = self.inner.solve_normal(rows(b), weight)
        return None if parts is None else torch.complex(*together(parts).unbind(1))

    def __repr__(self) -> str:
        return f"Complexified({self.inner!r})"


def complexified(A: Linear) -> Linear:
    """``A`` for complex images: itself where its images are complex already."""
    return A if A.complex_domain else Complexified(A)


def rows(z: Tensor) -> Tensor:
    """Complex (B, ...) as real (2 B, ...): the real and the imaginary part of each row in turn."""
    return torch.stack((z.real, z.imag), 1).flatten(0, 1)


def together(parts: Tensor) -> Tensor:
    """(2 B, ...) as (B, 2, ...): the inverse of `rows`, the two parts side by side."""
    return parts.unflatten(0, (-1, 2))
