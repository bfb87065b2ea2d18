"""What was measured: ``y = A x + n``, ``n ~ N(0, sigma_y^2)`` a real component."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from operators.base import Linear, Operator

from .errors import ConfigError


@dataclass(frozen=True, eq=False)
class Problem:
    """An operator, its measurements y (B, *A.codomain), and their noise.

    ``sigma`` is the standard deviation of the noise PER REAL COMPONENT in the units of y: complex
    measurements have ``E|n|^2 = 2 sigma^2``. Refused: a y of another shape or kind, on another device,
    with NaN or infinity; a negative sigma.
    """

    A: Operator
    y: Tensor
    sigma: float = 0.0

    def __post_init__(self):
        A, y = self.A, self.y
        if not isinstance(y, Tensor) or tuple(y.shape[1:]) != tuple(A.codomain):
            given = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise ConfigError(
                f"y is {given}.",
                f"{A!r} measures (batch, {', '.join(map(str, A.codomain))}).",
                "Add the batch axis with y[None], or build the operator for this size.",
            )
        if y.is_complex() != A.complex_codomain:
            raise ConfigError(
                f"y is {y.dtype}.",
                f"{A!r} gives {'complex' if A.complex_codomain else 'real'} measurements.",
            )
        if y.device.type != A.device.type and A._tensors():
            raise ConfigError(
                f"y is on {y.device}, the operator on {A.device}.", do="Move one with .to(device)."
            )
        if not torch.isfinite(torch.view_as_real(y) if y.is_complex() else y).all():
            raise ConfigError("y contains NaN or infinity.", "No reconstruction of it would mean anything.", "Find out where the acquisition broke; mask what is missing in the operator instead.")  # fmt: skip
        if not (math.isfinite(self.sigma) and self.sigma >= 0):
            raise ConfigError(f"sigma is {self.sigma}.", "It is a standard deviation, in the units of y.")

    @cached_property
    def backprojection(self) -> Tensor:
        """``A^H y`` (B, *domain)."""
        with torch.no_grad():
            return cast(Linear, self.A).adjoint(self.y)

    def residual(self, x: Tensor) -> Tensor:
        """``||A x - y|| / (sigma sqrt(m))`` a row, m real measurements; about 1 at the truth. Without sigma: relative to ``||y||``."""
        if isinstance(self.A, Linear) and self.A.normal_is_cheap:
            twice = self.A.normal(x) - 2 * self.backprojection
            difference = (inner64(x, twice) + self._power).clamp_min(0).sqrt()
        else:
            difference = norm(self.A.forward(x) - self.y)
        if self.sigma == 0:
            return difference / norm(self.y).clamp_min(torch.finfo(difference.dtype).tiny)
        return difference / (self.sigma * math.sqrt(self.measurements))

    @cached_property
    def _power(self) -> Tensor:
        """``||y||^2`` a row."""
        return inner64(self.y, self.y)

    @property
    def measurements(self) -> int:
        """Real numbers measured an image."""
        return self.A.measured * (2 if self.A.complex_codomain else 1)

    def repeated(self, samples: int) -> Problem:
        """The same measurements for ``samples`` rows an image, image-major."""
        if samples == 1:
            return self
        rows = Problem(self.A, self.y.repeat_interleave(samples, dim=0), self.sigma)
        if "backprojection" in vars(self):
            vars(rows)["backprojection"] = self.backprojection.repeat_interleave(samples, dim=0)
        return rows


def norm(x: Tensor) -> Tensor:
    """Euclidean norm a row."""
    return (torch.view_as_real(x) if x.is_complex() else x).flatten(1).norm(dim=1)


def inner64(a: Tensor, b: Tensor) -> Tensor:
    """``Re <a, b>`` a row, summed in float64: differences of large sums survive."""
    if a.is_complex():
        a, b = torch.view_as_real(a), torch.view_as_real(b)
    return (a.double() * b.double()).flatten(1).sum(1)
