"""Finite differences, for total variation and for smoothness across slices."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .base import Linear
from .errors import OperatorError
from .fft import fftn, ifftn


class Difference(Linear):
    """``y[i] = x[next along axes[i]] - x``, one for each axis: (*domain) -> (axes, *domain).

    ``axes`` are negative, counted from the last. At the far edge the difference is zero with
    ``boundary="neumann"`` and wraps around with ``"circular"``, which has a closed-form
    ``solve_normal``. Images are complex with ``complex_domain=True``.
    """

    def __init__(
        self,
        domain: tuple[int, ...],
        axes: tuple[int, ...] = (-2, -1),
        boundary: str = "neumann",
        complex_domain: bool = False,
    ):
        if boundary not in ("neumann", "circular"):
            raise OperatorError(f"Difference has no boundary {boundary!r}.", do="Choose neumann or circular.")
        if not axes or not all(-len(domain) <= axis < 0 for axis in axes):
            raise OperatorError(
                f"Difference was given axes {axes} for images {tuple(domain)}.",
                f"An axis counts from the last: -1 down to -{len(domain)}.",
            )
        self.domain, self.axes = tuple(domain), tuple(axes)
        self.boundary, self.complex_domain = boundary, complex_domain

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self._along(x, axis) for axis in self.axes], 1)

    def _along(self, x: Tensor, axis: int) -> Tensor:
        after = x.roll(-1, axis)
        if self.boundary == "neumann":
            last = x.shape[axis] - 1
            after = torch.cat((after.narrow(axis, 0, last), x.narrow(axis, last, 1)), axis)
        return after - x

    def adjoint(self, y: Tensor) -> Tensor:
        total = torch.zeros_like(y[:, 0])
        for part, axis in zip(y.unbind(1), self.axes, strict=True):
            if self.boundary == "neumann":
                inside = part.narrow(axis, 0, part.shape[axis] - 1)
                zero = torch.zeros_like(part.narrow(axis, 0, 1))
                part = torch.cat((inside, zero), axis)
            total = total + part.roll(1, axis) - part
        return total

    def solve_normal(self, b: Tensor, weight: float) -> Tensor | None:
        """Division by ``sum 4 sin^2(pi k / n) + weight`` in the Fourier domain; None for "neumann"."""
        if self.boundary == "neumann":
            return None
        power = torch.zeros((), dtype=b.real.dtype, device=b.device)
        for axis in self.axes:
            n = b.shape[axis]
            k = torch.arange(n, dtype=power.dtype, device=b.device)
            power = power + (2 * torch.sin(k * math.pi / n)).square().view(n, *[1] * (-1 - axis))
        x = ifftn(fftn(b, dim=self.axes) / (power + weight), dim=self.axes)
        return x if self.complex_domain else x.real
