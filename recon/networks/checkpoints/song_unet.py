"""The U-Nets of EDM, with the names of their tensors: DDPM++ and NCSN++ ("Song") and ADM ("Dhariwal").

Karras, Aittala, Aila, Laine, Elucidating the Design Space of Diffusion-Based Generative Models (2022), appendix F.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class SongShape:
    """What a `SongUNet` is built from.

    ``size`` names its levels: pixels of the side it was trained on. ``stem`` channels after the first
    convolution; ``base`` those of the noise embedding, ``embedding`` after its two layers; ``widths`` of each level; ``attention`` the names of
    blocks with attention, such as "enc.16x16_block0". ``dhariwal``: ADM's block and order. ``fourier``: random
    frequencies. ``encoder``: "standard", "residual", "skip"; ``decoder``: "standard", "skip". ``filter``:
    taps of the resampling filter. ``classes``, ``augments``: sizes of the labels, 0 for none.
    """

    size: int
    channels: int
    outputs: int
    stem: int
    base: int
    embedding: int
    widths: tuple[int, ...]
    blocks: int
    attention: frozenset[str]
    dhariwal: bool = False
    fourier: bool = False
    encoder: str = "standard"
    decoder: str = "standard"
    filter: int = 2
    classes: int = 0
    augments: int = 0


class SongUNet(nn.Module):
    """``F(x, c)``: x (B, channels, H, W), noise labels c (B,) or (1,), to (B, outputs, H, W).

    H and W are multiples of ``2^(levels - 1)``. ``label``: classes as (B, classes) or (1, classes), one-hot.
    """

    def __init__(self, shape: SongShape):
        super().__init__()
        self.shape = s = shape
        self.map_noise: Any = Frequencies(s.base) if s.fourier else nn.Identity()
        if s.classes:
            self.map_label = nn.Linear(s.classes, s.embedding if s.dhariwal else s.base, bias=not s.dhariwal)
        if s.augments:
            self.map_augment = nn.Linear(s.augments, s.base, bias=False)  # of training; never called
        self.map_layer0, self.map_layer1 = nn.Linear(s.base, s.embedding), nn.Linear(s.embedding, s.embedding)

        def block(name: str, inlet: int, outlet: int, resample: str = "") -> SongBlock:
            return SongBlock(s, inlet, outlet, name in s.attention, resample)

        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        width, aside, skips = s.stem, s.channels, []
        for level, wanted in enumerate(s.widths):
            at = f"{s.size >> level}x{s.size >> level}"
            if level == 0:
                self.enc[f"{at}_conv"] = SongConv(s.channels, width, 3)
            else:
                self.enc[f"{at}_down"] = block(f"enc.{at}_down", width, width, "down")
                if s.encoder == "skip":
                    self.enc[f"{at}_aux_down"] = SongConv(aside, aside, 0, "down", s.filter)
                    self.enc[f"{at}_aux_skip"] = SongConv(aside, width, 1)
                elif s.encoder == "residual":
                    self.enc[f"{at}_aux_residual"] = SongConv(aside, width, 3, "down", s.filter, fused=True)
                    aside = width
            skips.append(width)
            for index in range(s.blocks):
                name = f"{at}_block{index}"
                self.enc[name] = block(f"enc.{name}", width, wanted)
                width = wanted
                skips.append(width)
        last = len(s.widths) - 1
        for level in reversed(range(last + 1)):
            at = f"{s.size >> level}x{s.size >> level}"
            if level == last:
                self.dec[f"{at}_in0"] = block(f"dec.{at}_in0", width, width)
                self.dec[f"{at}_in1"] = block(f"dec.{at}_in1", width, width)
            else:
                self.dec[f"{at}_up"] = block(f"dec.{at}_up", width, width, "up")
            for index in range(s.blocks + 1):
                name = f"{at}_block{index}"
                self.dec[name] = block(f"dec.{name}", width + skips.pop(), s.widths[level])
                width = s.widths[level]
            if not s.dhariwal and (s.decoder == "skip" or level == 0):
                if s.decoder == "skip" and level < last:
                    self.dec[f"{at}_aux_up"] = SongConv(s.outputs, s.outputs, 0, "up", s.filter)
                self.dec[f"{at}_aux_norm"] = group_norm(width, 1e-6)
                self.dec[f"{at}_aux_conv"] = SongConv(width, s.outputs, 3)
        if s.dhariwal:
            self.out_norm, self.out_conv = group_norm(width, 1e-5), SongConv(width, s.outputs, 3)

    def embed(self, label: Tensor, classes: Tensor | None) -> Tensor:
        """The embedding (B, embedding) of noise labels (B,) and one-hot classes."""
        s, half = self.shape, self.shape.base // 2
        if s.fourier:
            rates = 2 * math.pi * self.map_noise.freqs.float()
        else:
            steps = half if s.dhariwal else half - 1
            rates = 10000.0 ** -(torch.arange(half, device=label.device, dtype=torch.float32) / steps)
        angle = label.float()[:, None] * rates
        waves = [angle.cos(), angle.sin()]
        x = torch.cat(waves if s.dhariwal else waves[::-1], 1)
        if classes is not None and not s.dhariwal:
            x = x + self.map_label(classes * math.sqrt(s.classes))
        x = self.map_layer1(F.silu(self.map_layer0(x)))
        if classes is not None and s.dhariwal:
            x = x + self.map_label(classes)
        return F.silu(x)

    def forward(self, x: Tensor, label: Tensor, classes: Tensor | None = None) -> Tensor:
        """x (B, channels, H, W) and noise labels (B,) or (1,) to (B, outputs, H, W)."""
        embedding = self.embed(label, classes)
        skips, aside = [], x
        for name, part in self.enc.items():
            if "aux_down" in name:
                aside = part(aside)
            elif "aux_skip" in name:
                x = skips[-1] = x + part(aside)
            elif "aux_residual" in name:
                x = skips[-1] = aside = (x + part(aside)) * math.sqrt(0.5)
            else:
                x = part(x, embedding) if isinstance(part, SongBlock) else part(x)
                skips.append(x)
        total: Tensor | None = None
        for name, part in self.dec.items():
            if "aux_up" in name:
                total = part(total)
            elif "aux_norm" in name:
                normed = F.silu(part(x))
            elif "aux_conv" in name:
                total = part(normed) if total is None else part(normed) + total
            else:
                x = part(torch.cat([x, skips.pop()], 1) if "_block" in name else x, embedding)
        return self.out_conv(F.silu(self.out_norm(x))) if total is None else total


class SongBlock(nn.Module):
    """Residual block, with attention where ``attends``; DDPM++'s is scaled by ``sqrt(1/2)`` and has one head."""

    def __init__(self, shape: SongShape, inlet: int, outlet: int, attends: bool, resample: str):
        super().__init__()
        self.film, self.attends = shape.dhariwal, attends
        self.scale = 1.0 if shape.dhariwal else math.sqrt(0.5)
        self.heads = outlet // 64 if shape.dhariwal else 1
        eps, taps = (1e-5 if shape.dhariwal else 1e-6), shape.filter
        self.norm0, self.norm1 = group_norm(inlet, eps), group_norm(outlet, eps)
        self.conv0 = SongConv(inlet, outlet, 3, resample, taps)
        self.affine = nn.Linear(shape.embedding, (1 + self.film) * outlet)
        self.conv1 = SongConv(outlet, outlet, 3)
        self.skip: nn.Module = nn.Identity()
        if inlet != outlet or resample:
            kernel = 1 if inlet != outlet or not shape.dhariwal else 0
            self.skip = SongConv(inlet, outlet, kernel, resample, taps)
        if attends:
            self.norm2 = group_norm(outlet, eps)
            self.qkv, self.proj = SongConv(outlet, 3 * outlet, 1), SongConv(outlet, outlet, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x (B, inlet, H, W) and the embedding (B, E) or (1, E) to (B, outlet, H', W')."""
        h = self.conv0(F.silu(self.norm0(x)))
        middle = self.affine(embedding)[:, :, None, None]
        if self.film:
            scale, shift = middle.chunk(2, 1)
            h = self.norm1(h) * (1 + scale) + shift
        else:
            h = self.norm1(h + middle)
        x = (self.skip(x) + self.conv1(F.silu(h))) * self.scale
        if not self.attends:
            return x
        q, k, v = self.qkv(self.norm2(x)).flatten(2).unflatten(1, (self.heads, -1, 3)).unbind(3)
        mixed = F.scaled_dot_product_attention(q.mT, k.mT, v.mT).mT
        return (x + self.proj(mixed.reshape(x.shape))) * self.scale


class SongConv(nn.Module):
    """A convolution of 3 x 3, 1 x 1 or none (``kernel`` 0), after or before a filter that halves or doubles the size.

    ``resample``: "up", "down" or "" for neither; ``fused`` halves after the convolution and not before.
    """

    resample_filter: Tensor

    def __init__(
        self, inlet: int, outlet: int, kernel: int, resample: str = "", taps: int = 2, fused: bool = False
    ):
        super().__init__()
        self.resample, self.fused, self.kernel = resample, fused, kernel
        if kernel:
            self.weight = nn.Parameter(torch.empty(outlet, inlet, kernel, kernel))
            self.bias = nn.Parameter(torch.empty(outlet))
        if resample:
            self.register_buffer("resample_filter", torch.empty(1, 1, taps, taps))

    def filtered(self, x: Tensor) -> Tensor:
        """x at half or twice the size."""
        count, taps = x.shape[1], self.resample_filter.shape[-1]
        weight = self.resample_filter.to(x.dtype).expand(count, 1, taps, taps)
        padding = 0 if self.fused else (taps - 1) // 2
        if self.resample == "up":
            return F.conv_transpose2d(x, 4 * weight, stride=2, padding=padding, groups=count)
        return F.conv2d(x, weight, stride=2, padding=padding, groups=count)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inlet, H, W) to (B, outlet, H', W')."""
        if self.fused:
            pad = self.kernel // 2 + (self.resample_filter.shape[-1] - 1) // 2
            x = self.filtered(F.conv2d(x, self.weight, padding=pad))
            return x + self.bias[:, None, None]
        x = self.filtered(x) if self.resample else x
        return F.conv2d(x, self.weight, self.bias, padding=self.kernel // 2) if self.kernel else x


class Frequencies(nn.Module):
    """Random frequencies, which the file holds."""

    freqs: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("freqs", torch.empty(width // 2))


def group_norm(width: int, eps: float) -> nn.GroupNorm:
    """32 groups, or as many as hold four channels each."""
    return nn.GroupNorm(min(32, width // 4), width, eps)
