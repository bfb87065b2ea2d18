"""JPEG: the cosine transform of blocks, quantised."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base import Operator
from ..errors import OperatorError

BLOCK = 8
SUBSAMPLINGS = {"4:4:4": 1, "4:2:0": 2}  # pixels of an axis that share a chroma value
TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))  # JFIF
LUMA = """
16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56  14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92  49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99
"""
CHROMA = (
    """
17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99  47 66 99 99 99 99 99 99
"""
    + 32 * " 99"
)
"""Steps of the coefficients, row by row: ITU-T T.81, tables K.1 and K.2."""


class JPEG(Operator):
    """What a JPEG file of an image of 0 to 1 decodes to: YCbCr, cosines of 8 x 8 blocks, rounded to multiples of a table.

    ``quality`` 1 to 100 scales the tables of ITU-T T.81, annex K, as libjpeg does. ``subsampling`` "4:2:0" keeps one
    chroma value for 2 x 2 pixels (their mean, repeated by the decoder), "4:4:4" one each; one channel is luma alone.
    Sides are padded to whole blocks by their last pixels. The decoded values are not clamped to 0..1, nor rounded to
    8 bits. Not linear, and piecewise constant: THE DERIVATIVE IS STRAIGHT-THROUGH, rounding taken as the identity, so
    that it is the identity, or with subsampling the mean of the chroma of 2 x 2 pixels. Measurements are taken as a file
    holds them, in multiples of the tables (`masked`): of others a part could never be met; exactly so where the sides are whole blocks. Domain and codomain (1 or
    3, H, W), real. Raises `OperatorError` for other channels, qualities and subsamplings.
    """

    lipschitz = 1.25  # of the mean of the chroma, in red, green and blue; 1 without subsampling

    def __init__(self, domain: tuple[int, int, int], quality: int = 10, subsampling: str = "4:2:0"):
        if len(domain) != 3 or domain[0] not in (1, 3):
            raise OperatorError(
                f"JPEG was given images of shape {tuple(domain)}.", "It takes (1 or 3, H, W)."
            )
        if not 1 <= quality <= 100:
            raise OperatorError(
                f"JPEG was given quality {quality}.",
                "It scales the tables that coefficients are divided by.",
                "Give 1 to 100.",
            )
        if subsampling not in SUBSAMPLINGS:
            raise OperatorError(
                f"JPEG has no subsampling {subsampling!r}.",
                "One chroma value is kept for a pixel, or for 2 x 2.",
                f"Choose one of {', '.join(SUBSAMPLINGS)}.",
            )
        self.domain, self.quality, self.subsampling = tuple(domain), quality, subsampling
        scale = 5000 // quality if quality < 50 else 200 - 2 * quality
        steps = [list(map(int, table.split())) for table in (LUMA, CHROMA)]
        tables = (torch.tensor(steps).view(2, BLOCK, BLOCK) * scale + 50) // 100
        self.tables = tables.clamp(1, 255).to(torch.get_default_dtype())

    def forward(self, x: Tensor) -> Tensor:
        levels = 255 * x
        if self.domain[0] == 1:
            return (self.coded(levels - 128, 0) + 128) / 255
        turn = torch.tensor(TO_YCC, dtype=torch.float64, device=x.device)
        luma, blue, red = torch.einsum("ij,bjhw->bihw", turn.to(x.dtype), levels).split(1, 1)
        luma = self.coded(luma - 128, 0) + 128
        blue, red = (self.chroma(part) for part in (blue, red))
        decoded = torch.cat((luma, blue, red), 1)
        return torch.einsum("ij,bjhw->bihw", torch.linalg.inv(turn).to(x.dtype), decoded) / 255

    def masked(self, y: Tensor) -> Tensor:
        """What a file holds of y."""
        return self.forward(y)

    def chroma(self, part: Tensor) -> Tensor:
        """A chroma channel, coded at its own resolution."""
        each, (height, width) = SUBSAMPLINGS[self.subsampling], part.shape[-2:]
        coded = self.coded(F.avg_pool2d(padded(part, each), each), 1)
        return F.interpolate(coded, scale_factor=each, mode="nearest")[..., :height, :width]

    def coded(self, channel: Tensor, table: int) -> Tensor:
        """A channel (rows, 1, h, w) in levels around 0 after quantisation by a table."""
        height, width = channel.shape[-2:]
        full, table_ = padded(channel, BLOCK), self.tables[table].to(channel.dtype)
        cosines = cosine_matrix(channel)
        blocks = full.unflatten(-1, (-1, BLOCK)).unflatten(-3, (-1, BLOCK)).movedim(-3, -2)
        spectrum = cosines @ blocks @ cosines.T
        spectrum = table_ * straight_through(spectrum / table_)
        decoded = (cosines.T @ spectrum @ cosines).movedim(-2, -3).flatten(-4, -3).flatten(-2, -1)
        return decoded[..., :height, :width]


def straight_through(x: Tensor) -> Tensor:
    """x rounded, with the derivative of x itself."""
    return x + (x.round() - x).detach()


def padded(channel: Tensor, multiple: int) -> Tensor:
    """(rows, 1, h, w) with sides that are multiples, the last row and column repeated."""
    below, right = (-n % multiple for n in channel.shape[-2:])
    return F.pad(channel, (0, right, 0, below), mode="replicate") if below or right else channel


def cosine_matrix(like: Tensor) -> Tensor:
    """The orthonormal cosine transform of 8 values."""
    k = torch.arange(BLOCK, dtype=torch.float64, device=like.device)
    matrix = torch.cos(math.pi * k[:, None] * (2 * k + 1) / (2 * BLOCK)) / 2
    return torch.cat((matrix[:1] / math.sqrt(2), matrix[1:])).to(like.dtype)
