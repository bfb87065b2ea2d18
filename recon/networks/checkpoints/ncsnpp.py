"""The networks of score_sde (DDPM++, NCSN++), with the names of their tensors.

Song et al., Score-Based Generative Modeling through Stochastic Differential Equations (2021), appendix H.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class NcsnShape:
    """What an `NcsnPP` is built from.

    ``widths`` the channels of each level, ``blocks`` residual blocks a level; ``attends``, ``attends_up``: whether
    a level has attention on the way down and up. ``biggan``: residual blocks that resample, else convolutions do
    (``convolved``) or nothing with weights. ``before``: what the input adds at each level, "none",
    "residual", "input_skip"; ``after``: what each level adds to the output, "none", "output_skip", "residual".
    ``fourier``: random frequencies of ln sigma. ``fir``: the filter 1, 3, 3, 1, else means of pixels.
    ``rescale``: sums are divided by sqrt 2. ``doubled``: the network sees 2 x - 1.
    """

    channels: int
    base: int
    widths: tuple[int, ...]
    blocks: int
    attends: tuple[bool, ...]
    attends_up: tuple[bool, ...]
    biggan: bool = True
    convolved: bool = True
    before: str = "none"
    after: str = "none"
    fourier: bool = True
    conditional: bool = True
    fir: bool = True
    rescale: bool = True
    doubled: bool = True


class NcsnPP(nn.Module):
    """``h(x, c)``: x (B, channels, H, W), c (B,) or (1,) a noise level or a time, to the shape of x.

    H and W are multiples of ``2^(levels - 1)``. It is the network's output before any division by sigma.
    """

    def __init__(self, shape: NcsnShape):
        super().__init__()
        self.shape = s = shape
        last = len(s.widths) - 1
        embedding = 4 * s.base if s.conditional else 0

        def block(inlet: int, outlet: int, resample: str = "") -> NcsnBlock:
            return NcsnBlock(s, inlet, outlet, embedding, resample)

        def resampled(width: int, resample: str) -> nn.Module:
            if s.biggan:
                return block(width, width, resample)
            return NcsnResample(width, width, resample, s.fir, s.convolved)

        parts: list[nn.Module] = [Projection(s.base)] if s.fourier else []
        if s.conditional:
            parts += [nn.Linear((1 + s.fourier) * s.base, embedding), nn.Linear(embedding, embedding)]
        width, aside = s.base, s.channels
        parts.append(conv3(s.channels, width))
        skips = [width]
        for level, wanted in enumerate(s.widths):
            for _ in range(s.blocks):
                parts.append(block(width, wanted))
                width = wanted
                if s.attends[level]:
                    parts.append(NcsnAttention(width, s.rescale))
                skips.append(width)
            if level != last:
                parts.append(resampled(width, "down"))
                if s.before == "input_skip":
                    parts.append(Combine(aside, width))
                elif s.before == "residual":
                    parts.append(NcsnResample(aside, width, "down", s.fir, True))
                    aside = width
                skips.append(width)
        parts += [block(width, width), NcsnAttention(width, s.rescale), block(width, width)]
        added = 0
        for level in reversed(range(last + 1)):
            for _ in range(s.blocks + 1):
                parts.append(block(width + skips.pop(), s.widths[level]))
                width = s.widths[level]
            if s.attends_up[level]:
                parts.append(NcsnAttention(width, s.rescale))
            if s.after == "residual" and level != last:
                parts.append(NcsnResample(added, width, "up", s.fir, True))
            elif s.after != "none":
                parts += [norm(width), conv3(width, width if s.after == "residual" else s.channels)]
            added = width
            if level:
                parts.append(resampled(width, "up"))
        if s.after != "output_skip":
            parts += [norm(width), conv3(width, s.channels)]
        self.all_modules = nn.ModuleList(parts)

    def embed(self, label: Tensor, parts) -> Tensor | None:
        """The embedding of noise levels or times (B,)."""
        if self.shape.fourier:
            x = next(parts)(label.float().log())
        else:
            half = self.shape.base // 2
            rates = torch.exp(-math.log(10000) / (half - 1) * torch.arange(half, device=label.device))
            angle = label.float()[:, None] * rates
            x = torch.cat([angle.sin(), angle.cos()], 1)
        if not self.shape.conditional:
            return None
        first, second = next(parts), next(parts)
        return second(F.silu(first(x)))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """x (B, channels, H, W), label (B,) or (1,) to the shape of x."""
        s, parts = self.shape, iter(self.all_modules)
        root, last = (math.sqrt(0.5) if s.rescale else 1.0), len(s.widths) - 1
        embedding = self.embed(label, parts)

        def resampled(h: Tensor) -> Tensor:
            part = next(parts)
            return part(h, embedding) if s.biggan else part(h)

        aside = x = 2 * x - 1 if s.doubled else x
        h = next(parts)(x)
        skips = [h]
        for level in range(last + 1):
            for _ in range(s.blocks):
                h = next(parts)(h, embedding)
                h = next(parts)(h) if s.attends[level] else h
                skips.append(h)
            if level != last:
                h = resampled(h)
                if s.before == "input_skip":
                    aside = halved(aside, s.fir)
                    h = next(parts)(aside, h)
                elif s.before == "residual":
                    h = aside = (next(parts)(aside) + h) * root
                skips.append(h)
        h = next(parts)(h, embedding)
        h = next(parts)(h)
        h = next(parts)(h, embedding)
        total: Tensor | None = None
        for level in reversed(range(last + 1)):
            for _ in range(s.blocks + 1):
                h = next(parts)(torch.cat([h, skips.pop()], 1), embedding)
            h = next(parts)(h) if s.attends_up[level] else h
            if s.after == "residual" and total is not None:
                h = total = (next(parts)(total) + h) * root
            elif s.after != "none":
                first, second = next(parts), next(parts)
                more = second(F.silu(first(h)))
                total = more if total is None else doubled(total, s.fir) + more
            if level:
                h = resampled(h)
        if s.after == "output_skip" and total is not None:
            return total
        first, second = next(parts), next(parts)
        return second(F.silu(first(h)))


class NcsnBlock(nn.Module):
    """Residual block of DDPM or, where ``biggan``, of BigGAN, which may also halve ("down") or double ("up") the size."""

    def __init__(self, shape: NcsnShape, inlet: int, outlet: int, embedding: int, resample: str):
        super().__init__()
        self.resample, self.fir = resample, shape.fir
        self.root = math.sqrt(0.5) if shape.rescale else 1.0
        self.GroupNorm_0, self.GroupNorm_1 = norm(inlet), norm(outlet)
        self.Conv_0, self.Conv_1 = conv3(inlet, outlet), conv3(outlet, outlet)
        if embedding:
            self.Dense_0 = nn.Linear(embedding, outlet)
        self.shortcut = ""
        if shape.biggan and (inlet != outlet or resample):
            self.shortcut, self.Conv_2 = "Conv_2", nn.Conv2d(inlet, outlet, 1)
        elif inlet != outlet:
            self.shortcut, self.NIN_0 = "NIN_0", PixelLinear(inlet, outlet)

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        """x (B, inlet, H, W) and the embedding (B, E) or (1, E) to (B, outlet, H', W')."""
        h = F.silu(self.GroupNorm_0(x))
        if self.resample:
            change = halved if self.resample == "down" else doubled
            h, x = change(h, self.fir), change(x, self.fir)
        h = self.Conv_0(h)
        if embedding is not None:
            h = h + self.Dense_0(F.silu(embedding))[:, :, None, None]
        h = self.Conv_1(F.silu(self.GroupNorm_1(h)))
        return (h + (getattr(self, self.shortcut)(x) if self.shortcut else x)) * self.root


class NcsnAttention(nn.Module):
    """``x + P softmax(Q K^T / sqrt(C)) V`` over all pixels, one head."""

    def __init__(self, width: int, rescale: bool):
        super().__init__()
        self.root = math.sqrt(0.5) if rescale else 1.0
        self.GroupNorm_0 = norm(width)
        for index in range(4):
            setattr(self, f"NIN_{index}", PixelLinear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) to the same shape."""
        h = self.GroupNorm_0(x)
        parts: list[Any] = [self.NIN_0, self.NIN_1, self.NIN_2]
        q, k, v = (part(h).flatten(2).mT[:, None] for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v)[:, 0].mT.unflatten(2, x.shape[2:])
        last: Any = self.NIN_3
        return (x + last(mixed)) * self.root


class PixelLinear(nn.Module):
    """The same ``W^T h + b`` at each pixel, W (inlet, outlet)."""

    def __init__(self, inlet: int, outlet: int):
        super().__init__()
        self.W, self.b = nn.Parameter(torch.empty(inlet, outlet)), nn.Parameter(torch.empty(outlet))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inlet, H, W) to (B, outlet, H, W)."""
        return F.conv2d(x, self.W.t()[:, :, None, None], self.b)


class Projection(nn.Module):
    """``[sin(2 pi W c), cos(2 pi W c)]`` (B, 2 width) of labels c (B,)."""

    def __init__(self, width: int):
        super().__init__()
        self.W = nn.Parameter(torch.empty(width), requires_grad=False)

    def forward(self, label: Tensor) -> Tensor:
        """(B,) to (B, 2 width)."""
        angle = 2 * math.pi * label[:, None] * self.W.to(label.dtype)
        return torch.cat([angle.sin(), angle.cos()], 1)


class Combine(nn.Module):
    """``h + C a``: what the input adds, by a convolution of 1 x 1."""

    def __init__(self, aside: int, width: int):
        super().__init__()
        self.Conv = nn.Conv2d(aside, width, 1)

    def forward(self, aside: Tensor, h: Tensor) -> Tensor:
        """aside (B, aside, H, W) and h (B, width, H, W) to the shape of h."""
        return self.Conv(aside) + h


class NcsnResample(nn.Module):
    """Half ("down") or twice ("up") the size, with a convolution of 3 x 3 where ``convolved``."""

    def __init__(self, inlet: int, outlet: int, resample: str, fir: bool, convolved: bool):
        super().__init__()
        self.resample, self.fir, self.convolved = resample, fir, convolved
        if convolved and fir:
            self.Conv2d_0 = conv3(inlet, outlet)
        elif convolved:
            self.Conv_0 = conv3(inlet, outlet)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inlet, H, W) to (B, outlet, H', W')."""
        if not self.convolved:
            return halved(x, self.fir) if self.resample == "down" else doubled(x, self.fir)
        if self.resample == "up":
            return (self.Conv2d_0 if self.fir else self.Conv_0)(doubled(x, self.fir))
        if self.fir:
            conv = self.Conv2d_0
            return F.conv2d(filtered(x, (2, 2, 2, 2)), conv.weight, conv.bias, stride=2)
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.Conv_0.weight, self.Conv_0.bias, stride=2)


FIR_TAPS = (1 / 8, 3 / 8, 3 / 8, 1 / 8)


def filtered(x: Tensor, padding: tuple[int, int, int, int]) -> Tensor:
    """x, padded with zeros, through the filter 1, 3, 3, 1 along both axes."""
    taps = torch.tensor(FIR_TAPS, dtype=x.dtype, device=x.device)
    weight = torch.outer(taps, taps).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(F.pad(x, padding), weight, groups=x.shape[1])


def halved(x: Tensor, fir: bool) -> Tensor:
    """Every second pixel of the filtered image, or means of 2 x 2."""
    return filtered(x, (1, 1, 1, 1))[..., ::2, ::2] if fir else F.avg_pool2d(x, 2)


def doubled(x: Tensor, fir: bool) -> Tensor:
    """Zeros between the pixels and then four times the filter, or each pixel repeated."""
    if not fir:
        return F.interpolate(x, scale_factor=2, mode="nearest")
    wide = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    wide[..., ::2, ::2] = x
    return 4 * filtered(wide, (2, 1, 2, 1))


def norm(width: int) -> nn.GroupNorm:
    """32 groups, or as many as hold four channels each."""
    return nn.GroupNorm(min(width // 4, 32), width, 1e-6)


def conv3(inlet: int, outlet: int) -> nn.Conv2d:
    """3 x 3, the size kept."""
    return nn.Conv2d(inlet, outlet, 3, padding=1)
