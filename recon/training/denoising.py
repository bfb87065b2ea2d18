"""How well a denoiser removes noise, level by level, on views of slices that are always the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .settings import Training
from .slices import slices_of
from .views import plain_views

CURVE_SIGMAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
ROWS_TOGETHER = 4  # through the network together


@dataclass(frozen=True)
class Judge:
    """``clean`` (N, C, H, W) of one set, in network channels, and ``noise`` of unit variance of that shape.

    ``sigma_from``: the set's least noise level; ``title``: the set in words.
    """

    title: str
    clean: Tensor
    noise: Tensor
    sigma_from: float = 0.0

    @torch.no_grad()
    def curve(
        self, denoise: Callable[[Tensor, float], Tensor], sigmas: Sequence[float] = CURVE_SIGMAS
    ) -> dict[str, float]:
        """PSNR (dB, peak 1, mean over the channels) of ``D(x0 + sigma eps)`` at each sigma the set is fit for."""
        found = {}
        for sigma in sigmas:
            if sigma < self.sigma_from:
                continue
            error = [
                (denoise(clean + sigma * noise, sigma) - clean).square()
                for clean, noise in zip(
                    self.clean.split(ROWS_TOGETHER), self.noise.split(ROWS_TOGETHER), strict=True
                )
            ]
            found[str(sigma)] = round(-10 * math.log10(torch.cat(error).mean().item()), 2)
        return found


def judges(
    config: Training, encode: Callable[[Tensor], Tensor] | None = None, complex_images: bool | None = None
) -> list[Judge]:
    """One `Judge` of each validation set of a training, of a crop of each slice; ``encode`` makes latents of them.

    Raises `ConfigError` and `InputError` as `load_sets` does.
    """
    found = []
    kind = config.complex_images if complex_images is None else complex_images
    for entry in config.validation_sets:
        slices = slices_of(config, [entry])
        clean, generator = plain_views(slices.images, config.crop, kind)
        if encode is not None:
            with torch.no_grad():
                clean = encode(clean)
        noise = torch.randn(clean.shape, generator=generator)
        found.append(Judge(entry.title, clean, noise, entry.sigma_from))
    return found
