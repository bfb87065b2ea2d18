"""A fully convolutional, noise-conditional U-Net for images of any size."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Residual block ``x + W2 silu(s(c) * W1 n(x) + t(c))``; ``s``, ``t`` come from the noise level.

    ``n`` scales the channels of each pixel to unit mean square. It takes no statistics over pixels, which would
    differ between a training crop and a full image. ``W2`` starts at zero.
    """

    def __init__(self, width: int, embedding: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.condition = nn.Linear(embedding, 2 * width)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.condition.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x (B, width, H, W) and the embedding of its noise level (B, embedding) to the shape of x."""
        scale, shift = self.condition(embedding)[:, :, None, None].chunk(2, dim=1)
        return x + self.conv2(F.silu(self.conv1(unit_pixels(x)) * (1 + scale) + shift))


class UNet(nn.Module):
    """``F(x, c)``: x (B, channels, H, W) real, c (B,) a noise label, or (1,) for all rows; returns the shape of x.

    The first level works on ``patch`` x ``patch`` pixels folded into channels, which allows ``patch^2`` times as
    many channels at equal cost. ``widths`` are the channels of each level, with ``blocks`` residual blocks each on the
    way down and up again; skip connections are added. ``embedding`` features, an even number, encode the noise
    label. H and W may be any size: the input is padded by reflection and cropped back.
    """

    frequencies: Tensor

    def __init__(
        self,
        channels: int = 2,
        widths: tuple[int, ...] = (64, 96, 128),
        blocks: int = 2,
        patch: int = 2,
        embedding: int = 128,
    ):
        super().__init__()
        self.options: dict[str, Any] = dict(
            channels=channels, widths=list(widths), blocks=blocks, patch=patch, embedding=embedding
        )
        self.patch, self.multiple = patch, patch * 2 ** (len(widths) - 1)
        self.register_buffer(
            "frequencies", torch.exp(torch.linspace(0.0, math.log(100.0), embedding // 2)), False
        )
        self.embed = nn.Sequential(
            nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )
        self.inlet = nn.Conv2d(channels * patch**2, widths[0], 3, padding=1)
        self.outlet = nn.Conv2d(widths[0], channels * patch**2, 3, padding=1)
        nn.init.zeros_(self.outlet.weight)

        def level(width: int) -> nn.ModuleList:
            return nn.ModuleList(Block(width, embedding) for _ in range(blocks))

        self.down = nn.ModuleList(level(w) for w in widths)
        self.up = nn.ModuleList(level(w) for w in widths[:-1])
        pairs = list(pairwise(widths))
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairs)
        self.grow = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairs)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """x (B, channels, H, W) and noise labels (B,) to the shape of x."""
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, self.multiple)
        angle = label[:, None] * self.frequencies
        embedding = self.embed(torch.cat([angle.cos(), angle.sin()], dim=1).to(x.dtype))
        h = self.inlet(F.pixel_unshuffle(x, self.patch))
        skips = []
        for i, blocks in enumerate(self.down):
            if i > 0:
                skips.append(h)
                h = self.shrink[i - 1](h)
            for block in blocks.children():
                h = block(h, embedding)
        for i in reversed(range(len(self.up))):
            h = skips[i] + self.grow[i](h)
            for block in self.up[i].children():
                h = block(h, embedding)
        return F.pixel_shuffle(self.outlet(unit_pixels(h)), self.patch)[..., :height, :width]


def unit_pixels(x: Tensor) -> Tensor:
    """x (B, C, H, W) over the root mean square of each pixel's channels."""
    return F.rms_norm(x.movedim(1, -1), (x.shape[1],), eps=1e-4).movedim(-1, 1)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad (B, C, H, W) at the end to multiples of ``multiple``, by reflection or, if it is too small, the last pixel."""
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if bottom == 0 and right == 0:
        return x
    mode = "reflect" if bottom < height and right < width else "replicate"
    return F.pad(x, (0, right, 0, bottom), mode=mode)
