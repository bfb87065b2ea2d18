"""Parallel-beam computed tomography: line integrals of an image, as two stored sparse matrices."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Linear
from .errors import OperatorError
from .fft import irfft, rfft

# Rows of the image are stored this much longer: rows of a power of two fight over the same cache lines.
PADDING = 8


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
        y = SparseMap.apply(F.pad(x, (0, PADDING)).flatten(1), self.matrix, self.transpose)
        return y.view(len(x), 1, len(self.angles), self.detectors)

    def adjoint(self, y: Tensor) -> Tensor:
        self._require_dtype(y)
        x = SparseMap.apply(y.flatten(1), self.transpose, self.matrix)
        return x.view(len(y), 1, self.size, self.size + PADDING)[..., : self.size]

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
        response = rfft(ramp).real.to(y)
        filtered = irfft(rfft(y, n) * response, n)[..., : self.detectors]
        return self.adjoint(view_weights(self.angles).to(y)[:, None] * filtered)


class SparseMap(torch.autograd.Function):
    """``M x`` a row of x at a time; its derivative is the stored transpose, through this same function.

    The backward that torch has for CSR products is hundreds of times slower than the product.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, transpose: Tensor) -> Tensor:
        """``matrix x`` for x (rows, columns of the matrix); both matrices are kept for the derivative."""
        ctx.matrix, ctx.transpose = matrix, transpose
        if len(x) == 1:
            return (matrix @ x[0])[None]
        return (matrix @ x.T).T.contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """``transpose gradient``, differentiable again; the matrices have no derivative."""
        return SparseMap.apply(gradient, ctx.transpose, ctx.matrix), None, None


def joseph(size: int, angles: Sequence[float], detectors: int) -> tuple[Tensor, Tensor]:
    """CSR matrices ``A`` (angles detectors, size (size + PADDING)) and its transpose.

    Each is filled in its own order from one formula; indices are int32, which halves the traffic.
    """
    u = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    v = -u[:, None]
    turns = torch.deg2rad(torch.tensor(angles, dtype=torch.float64))

    columns, values, counts = [], [], []
    for turn in turns:  # rows of A, the detectors of one view: pixels in order, by a stable sort
        detector, weight = view(u, v, turn, detectors)
        seen = weight.flatten().nonzero()[:, 0]
        row, order = detector.flatten()[seen].sort(stable=True)
        seen = seen[order]
        pixel = seen // 2
        columns.append((pixel + pixel // size * PADDING).to(torch.int32))
        values.append(weight.flatten()[seen])
        counts.append(row.bincount(minlength=detectors))
    matrix = csr(columns, values, counts, size * (size + PADDING))

    columns, values, counts = [], [], []
    first = torch.arange(len(angles), dtype=torch.int32)[:, None] * detectors
    for line in v:  # rows of A^T, the pixels of one line of the image: views, then detectors, in order
        detector, weight = view(u[:, None], line, turns, detectors)
        seen = weight.flatten().nonzero()[:, 0]
        columns.append((detector + first).flatten()[seen])
        values.append(weight.flatten()[seen])
        counts.append(F.pad(weight.flatten(1).count_nonzero(1), (0, PADDING)))
    return matrix, csr(columns, values, counts, len(angles) * detectors)


def view(u: Tensor, v: Tensor, turn: Tensor, detectors: int) -> tuple[Tensor, Tensor]:
    """The two detectors around the shadow of pixel (u, v), int32, and their weights; (..., 2) each.

    A line at angle a passes a pixel's centre at distance t. Followed along the axis it is closest to,
    with m = max(|cos a|, |sin a|), Joseph's weight is ``max(0, 1 - |t| / m) / m``; m <= 1, so no
    other detector sees the pixel.
    """
    cos, sin = turn.cos(), turn.sin()
    m = torch.maximum(cos.abs(), sin.abs())[..., None]
    shadow = u * cos + v * sin + (detectors - 1) / 2
    near = shadow.floor()
    detector = torch.stack((near, near + 1), -1)
    weight = (1 - (shadow[..., None] - detector).abs() / m).clamp(min=0) / m
    weight = weight.to(torch.get_default_dtype()) * ((detector >= 0) & (detector < detectors))
    return detector.to(torch.int32), weight


def csr(columns: list[Tensor], values: list[Tensor], counts: list[Tensor], width: int) -> Tensor:
    """A sparse matrix of that width; each list holds the blocks of rows in order, ``counts`` the entries of each row."""
    count = torch.cat(counts)
    ends = F.pad(count.cumsum(0), (1, 0)).to(torch.int32)
    with warnings.catch_warnings():  # torch calls its CSR layout a beta feature
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(ends, torch.cat(columns), torch.cat(values), (len(count), width))


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
