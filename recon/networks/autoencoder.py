"""A small, fully convolutional autoencoder of images; by default latents have a quarter of the height and width."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .unet import unit_pixels


class Residual(nn.Module):
    """``x + W2 silu(W1 n(x))``, where `unit_pixels` is ``n``; ``W2`` starts at zero."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) to the same shape."""
        return x + self.conv2(F.silu(self.conv1(unit_pixels(x))))


class Autoencoder(nn.Module):
    """``encode``: (B, channels, H, W) real to latents (B, latents, H/f, W/f); ``decode``: back.

    A variational autoencoder with a weak prior on its latents, as in Rombach et al. (High-Resolution Image
    Synthesis with Latent Diffusion Models, CVPR 2022, section 3.1), small and without attention. The
    first level works on 2 x 2 pixels folded into channels, each further level on half the size.
    ``widths`` are the channels of each level, ``encoder_blocks`` and ``decoder_blocks`` its residual blocks;
    ``f = factor = 2^levels``.
    """

    def __init__(
        self,
        channels: int = 2,
        latents: int = 4,
        widths: tuple[int, ...] = (48, 96),
        encoder_blocks: tuple[int, ...] = (1, 2),
        decoder_blocks: tuple[int, ...] = (2, 3),
    ):
        super().__init__()
        self.options: dict[str, Any] = dict(
            channels=channels,
            latents=latents,
            widths=list(widths),
            encoder_blocks=list(encoder_blocks),
            decoder_blocks=list(decoder_blocks),
        )
        self.channels, self.latents, self.factor = channels, latents, 2 ** len(widths)

        def level(width: int, blocks: int) -> list[nn.Module]:
            return [Residual(width) for _ in range(blocks)]

        down: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(4 * channels, widths[0], 3, padding=1)]
        down += level(widths[0], encoder_blocks[0])
        for (a, b), blocks in zip(pairwise(widths), encoder_blocks[1:], strict=True):
            down += [nn.Conv2d(a, b, 2, stride=2), *level(b, blocks)]
        self.encoder = nn.Sequential(*down, nn.Conv2d(widths[-1], 2 * latents, 3, padding=1))

        up: list[nn.Module] = [nn.Conv2d(latents, widths[-1], 3, padding=1)]
        up += level(widths[-1], decoder_blocks[-1])
        for (a, b), blocks in zip(pairwise(widths[::-1]), decoder_blocks[-2::-1], strict=True):
            up += [nn.ConvTranspose2d(a, b, 2, stride=2), *level(b, blocks)]
        up += [nn.Conv2d(widths[0], 4 * channels, 3, padding=1), nn.PixelShuffle(2)]
        self.decoder = nn.Sequential(*up)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of ``q(z | x)``, each (B, latents, H/f, W/f)."""
        mean, log_variance = self.encoder(x.contiguous(memory_format=torch.channels_last)).chunk(2, dim=1)
        return mean, log_variance.clamp(-20, 10)

    def encode(self, x: Tensor) -> Tensor:
        """The mean of ``q(z | x)``: (B, channels, H, W), H and W multiples of ``factor``, to (B, latents, H/f, W/f)."""
        return self.moments(x)[0]

    def decode(self, z: Tensor) -> Tensor:
        """(B, latents, h, w) to images (B, channels, f h, f w)."""
        return self.decoder(z.contiguous(memory_format=torch.channels_last))

    def loss(self, x: Tensor, noise: Tensor, kl: float) -> Tensor:
        """``|decode(m + s noise) - x|^2 + kl KL(q(z | x) || N(0, I))``, each term a mean over its elements: (B,)."""
        mean, log_variance = self.moments(x)
        miss = (self.decode(mean + (log_variance / 2).exp() * noise) - x).square()
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance) / 2
        return miss.flatten(1).mean(1) + kl * divergence.flatten(1).mean(1)
