"""Parallel-beam computed tomography: line integrals of an image, as two stored sparse matrices."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .base import Linear
from .errors import OperatorError


class CT(Linear):
    """``y[a, d]`` = integral of x along the line ``u cos(a) + v sin(a) = s_d``, in units of pixels.

    ``u`` runs along the columns and ``v`` up the rows, from the middle of the image; detectors lie one
    pixel apart about the same middle, ``ceil(sqrt(2) size)`` of them by default, which covers the whole
    square. ``angles`` in degrees. Domain (1, size, size), codomain (1, angles, detectors), real.

    The weights are Joseph's (IEEE TMI 1982): the line is followed along the axis it is closest to, with
    linear interpolation across. ``A`` and ``A^T`` are stored, in CSR, from the same numbers, so the
    adjoint is exact; memory is about 15 bytes x angles x size^2 in float32. Images must have the
    operator's dtype: convert it with ``.to``.
    """

    def __init__(
        self,
        size: int,
        angles: Sequence[float] | Tensor,
        geometry: str = "parallel",
        detectors: int | None = None,
    ):
        if geometry != "parallel":
            raise OperatorError(
                f"CT has no geometry {geometry!r}.",
                "Rays are parallel in each view.",
                "Use geometry='parallel', or rebin the data to parallel views.",
            )
        self.angles = tuple(torch.as_tensor(angles, dtype=torch.float64).flatten().tolist())
        if size < 1 or not self.angles or not all(map(math.isfinite, self.angles)):
            raise OperatorError(
                f"CT was given size {size} and {len(self.angles)} angles.",
                "It takes a positive size and at least one finite angle, in degrees.",
            )
        self.size = size
        self.detectors = math.ceil(math.sqrt(2) * size) if detectors is None else detectors
        self.domain = (1, size, size)
        self.matrix, self.transpose = joseph(size, self.angles, self.detectors)

    def forward(self, x: Tensor) -> Tensor:
        self._require_dtype(x)
        y = SparseMap.apply(x.flatten(1), self.matrix, self.transpose)
        return y.view(len(x), 1, len(self.angles), self.detectors)

    def adjoint(self, y: Tensor) -> Tensor:
        self._require_dtype(y)
        x = SparseMap.apply(y.flatten(1), self.transpose, self.matrix)
        return x.view(len(y), *self.domain)

    def _require_dtype(self, x: Tensor) -> None:
        if x.dtype != self.matrix.dtype:
            raise OperatorError(
                f"CT holds {self.matrix.dtype} weights and was given {x.dtype} data.",
                "Converting the matrix at each call would cost far more than the projection.",
                "Convert the operator once, A.to(x.dtype), or the data.",
            )

    def fbp(self, y: Tensor) -> Tensor:
        """Filtered back-projection: (B, 1, angles, detectors) -> (B, 1, size, size).

        ``sum_a w_a A_a^T (h * y_a)`` with the band-limited ramp h (Kak and Slaney, chapter 3, equation
        61) and ``w_a`` half the gap to the neighbouring views, in radians.
        """
        n = 2 ** math.ceil(math.log2(2 * self.detectors))
        tap = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
        ramp = torch.where(tap % 2 == 1, -1 / (math.pi * tap).square(), 0.0)
        ramp[0] = 0.25
        response = torch.fft.rfft(ramp).real.to(y)
        filtered = torch.fft.irfft(torch.fft.rfft(y, n) * response, n)[..., : self.detectors]
        return self.adjoint(view_weights(self.angles).to(y)[:, None] * filtered)


class SparseMap(torch.autograd.Function):
    """``M x`` a row of x at a time; its derivative is the stored transpose, through this same function.

    The backward that torch has for CSR products is hundreds of times slower than the product.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, transpose: Tensor) -> Tensor:
        ctx.matrix, ctx.transpose = matrix, transpose
        if len(x) == 1:
            return (matrix @ x[0])[None]
        return (matrix @ x.T).T.contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return SparseMap.apply(gradient, ctx.transpose, ctx.matrix), None, None


def joseph(size: int, angles: Sequence[float], detectors: int) -> tuple[Tensor, Tensor]:
    """CSR matrices (angles detectors, size^2) and its transpose.

    A line at angle a passes a pixel centre at signed distance t; following it along the axis it is
    closest to, Joseph's weight is ``max(0, 1 - |t| / m) / m`` with ``m = max(|cos a|, |sin a|)``. As
    m <= 1, at most the two detectors around a pixel's shadow see it.
    """
    middle = (size - 1) / 2
    u = torch.arange(size, dtype=torch.float64) - middle
    v = -u[:, None]
    pairs, weights = [], []
    for a in map(math.radians, angles):
        m = max(abs(math.cos(a)), abs(math.sin(a)))
        shadow = (u * math.cos(a) + v * math.sin(a)).flatten() + (detectors - 1) / 2
        near = shadow.floor()
        detector = torch.stack((near, near + 1), 1)
        weight = (1 - (shadow[:, None] - detector).abs() / m).clamp(min=0) / m
        weight[(detector < 0) | (detector >= detectors)] = 0
        pairs.append(detector.to(torch.int32) + len(pairs) * detectors)
        weights.append(weight.to(torch.get_default_dtype()))
    # A row of the transpose is a pixel, its columns in increasing order: angle by angle, then detector.
    column, weight = torch.cat(pairs, 1), torch.cat(weights, 1)
    seen = weight > 0
    ends = torch.zeros(size * size + 1, dtype=torch.int32)
    ends[1:] = seen.sum(1).cumsum(0)
    shape = (size * size, len(angles) * detectors)
    with warnings.catch_warnings():  # torch calls its CSR layout a beta feature
        warnings.simplefilter("ignore", UserWarning)
        transpose = torch.sparse_csr_tensor(ends, column[seen], weight[seen], shape)
        by_column = transpose.to_sparse_csc()
        matrix = torch.sparse_csr_tensor(
            by_column.ccol_indices(), by_column.row_indices(), by_column.values(), shape[::-1]
        )
    return matrix, transpose


def view_weights(angles: Sequence[float]) -> Tensor:
    """The arc, in radians, that each view stands for; a gap wider than two usual ones is not covered."""
    order = torch.tensor(angles, dtype=torch.float64).remainder(180)
    place = order.argsort()
    ordered = order[place]
    gap = torch.cat((ordered[1:], ordered[:1] + 180)) - ordered
    usual = gap[gap > 0].median()
    gap = torch.where(gap > 2 * usual, usual, gap)
    weights = torch.empty_like(ordered)
    weights[place] = torch.deg2rad(gap + gap.roll(1)) / 2
    return weights
