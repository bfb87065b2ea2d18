"""The U-Net of guided-diffusion (ADM), with the names of its tensors.

Dhariwal and Nichol, Diffusion Models Beat GANs on Image Synthesis (2021), appendix; Nichol and Dhariwal, Improved
Denoising Diffusion Probabilistic Models (2021).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ADM_GROUPS = 32


@dataclass(frozen=True)
class AdmShape:
    """What an `AdmUNet` is built from.

    ``base`` channels of the time embedding; ``widths`` the channels and ``attention`` whether there is attention,
    of each level; ``blocks`` residual blocks a level. ``resampling``: "blocks" (residual), "conv" or "none"
    (without weights). ``film``: the embedding scales and shifts, or is added. ``heads``: a number, or 0 for
    heads of ``head_channels``. ``split_first``: queries, keys and values are parted before the heads are.
    """

    channels: int
    outputs: int
    base: int
    widths: tuple[int, ...]
    attention: tuple[bool, ...]
    blocks: int
    resampling: str = "blocks"
    film: bool = True
    heads: int = 0
    head_channels: int = 64
    split_first: bool = False
    classes: int = 0


class AdmUNet(nn.Module):
    """``F(x, t)``: x (B, channels, H, W) and steps t (B,) or (1,) to (B, outputs, H, W).

    H and W are multiples of ``2^(levels - 1)``. ``label`` (B,) or (1,): classes, of a network with ``classes``.
    """

    def __init__(self, shape: AdmShape):
        super().__init__()
        self.base, embedding = shape.base, 4 * shape.base
        self.time_embed = nn.Sequential(
            nn.Linear(shape.base, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        if shape.classes:
            self.label_emb = nn.Embedding(shape.classes, embedding)

        def block(inlet: int, outlet: int, resample: float = 1) -> AdmBlock:
            return AdmBlock(inlet, outlet, embedding, shape.film, resample)

        def resampled(width: int, factor: float) -> nn.Module:
            if shape.resampling == "blocks":
                return block(width, width, factor)
            return AdmResample(width, factor, shape.resampling == "conv")

        def attention(width: int) -> AdmAttention:
            return AdmAttention(width, shape.heads or width // shape.head_channels, shape.split_first)

        last = len(shape.widths) - 1
        width = shape.widths[0]
        inputs: list[list[nn.Module]] = [[nn.Conv2d(shape.channels, width, 3, padding=1)]]
        skips = [width]
        for level, (wanted, attends) in enumerate(zip(shape.widths, shape.attention, strict=True)):
            for _ in range(shape.blocks):
                inputs.append([block(width, wanted), *([attention(wanted)] if attends else [])])
                width = wanted
                skips.append(width)
            if level != last:
                inputs.append([resampled(width, 0.5)])
                skips.append(width)
        self.input_blocks = nn.ModuleList(nn.ModuleList(parts) for parts in inputs)
        self.middle_block = nn.ModuleList([block(width, width), attention(width), block(width, width)])
        outputs: list[list[nn.Module]] = []
        for level in reversed(range(last + 1)):
            wanted = shape.widths[level]
            for index in range(shape.blocks + 1):
                parts = [
                    block(width + skips.pop(), wanted),
                    *([attention(wanted)] if shape.attention[level] else []),
                ]
                width = wanted
                if level and index == shape.blocks:
                    parts.append(resampled(width, 2))
                outputs.append(parts)
        self.output_blocks = nn.ModuleList(nn.ModuleList(parts) for parts in outputs)
        self.out = nn.Sequential(
            nn.GroupNorm(ADM_GROUPS, width), nn.SiLU(), nn.Conv2d(width, shape.outputs, 3, padding=1)
        )

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """x (B, channels, H, W), t (B,) or (1,) to (B, outputs, H, W)."""
        embedding = self.time_embed(cosines(t, self.base).to(x.dtype))
        if label is not None:
            embedding = embedding + self.label_emb(label)
        skips = []
        for parts in self.input_blocks:
            x = through(parts, x, embedding)
            skips.append(x)
        x = through(self.middle_block, x, embedding)
        for parts in self.output_blocks:
            x = through(parts, torch.cat([x, skips.pop()], 1), embedding)
        return self.out(x)


class AdmBlock(nn.Module):
    """Residual block, with the embedding in its middle; ``resample`` 2 or 1/2 changes the size of its output."""

    def __init__(self, inlet: int, outlet: int, embedding: int, film: bool, resample: float = 1):
        super().__init__()
        self.film, self.resample = film, resample
        self.in_layers = nn.Sequential(
            nn.GroupNorm(ADM_GROUPS, inlet), nn.SiLU(), nn.Conv2d(inlet, outlet, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, (1 + film) * outlet))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(ADM_GROUPS, outlet),
            nn.SiLU(),
            nn.Identity(),
            nn.Conv2d(outlet, outlet, 3, padding=1),
        )
        self.skip_connection = nn.Identity() if inlet == outlet else nn.Conv2d(inlet, outlet, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x (B, inlet, H, W) and the embedding (B, E) or (1, E) to (B, outlet, H', W')."""
        norm, act, conv = self.in_layers
        h = conv(resized(act(norm(x)), self.resample))
        middle = self.emb_layers(embedding)[:, :, None, None]
        norm, act, _, conv = self.out_layers
        if self.film:
            scale, shift = middle.chunk(2, 1)
            h = norm(h) * (1 + scale) + shift
        else:
            h = norm(h + middle)
        return self.skip_connection(resized(x, self.resample)) + conv(act(h))


class AdmAttention(nn.Module):
    """``x + P softmax(Q K^T / sqrt(c)) V`` over all pixels, in ``heads`` of c channels."""

    def __init__(self, width: int, heads: int, split_first: bool):
        super().__init__()
        self.heads, self.split_first = heads, split_first
        self.norm = nn.GroupNorm(ADM_GROUPS, width)
        self.qkv = nn.Conv1d(width, 3 * width, 1)
        self.proj_out = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) to the same shape."""
        flat = x.flatten(2)
        qkv = self.qkv(self.norm(flat))
        if self.split_first:
            q, k, v = qkv.unflatten(1, (3, self.heads, -1)).unbind(1)
        else:
            q, k, v = qkv.unflatten(1, (self.heads, 3, -1)).unbind(2)
        mixed = F.scaled_dot_product_attention(q.mT, k.mT, v.mT).mT
        return (flat + self.proj_out(mixed.flatten(1, 2))).view_as(x)


class AdmResample(nn.Module):
    """Half or twice the size: by a convolution (``op`` with stride, ``conv`` after repeating pixels), or without."""

    def __init__(self, width: int, factor: float, convolved: bool):
        super().__init__()
        self.factor, self.convolved = factor, convolved
        if convolved and factor < 1:
            self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)
        elif convolved:
            self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) to (B, width, factor H, factor W)."""
        if self.convolved and self.factor < 1:
            return self.op(x)
        x = resized(x, self.factor)
        return self.conv(x) if self.convolved else x


def through(parts: Any, x: Tensor, embedding: Tensor) -> Tensor:
    """x through each part, those that take it with the embedding."""
    for part in parts:
        x = part(x, embedding) if isinstance(part, AdmBlock) else part(x)
    return x


def resized(x: Tensor, factor: float) -> Tensor:
    """Pixels repeated (factor 2), averaged (1/2), or as they are."""
    if factor == 2:
        return F.interpolate(x, scale_factor=2, mode="nearest")
    return F.avg_pool2d(x, 2) if factor < 1 else x


def cosines(t: Tensor, width: int) -> Tensor:
    """``[cos(t f), sin(t f)]`` (B, width), f from 1 down to 1/10000 in geometric steps."""
    half = width // 2
    rates = torch.exp(-math.log(10000) / half * torch.arange(half, dtype=torch.float32, device=t.device))
    angle = t.float()[:, None] * rates
    return F.pad(torch.cat([angle.cos(), angle.sin()], 1), (0, width % 2))
