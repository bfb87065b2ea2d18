"""Slices from disk, and the views of them that a network is trained and judged on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .augment import random_crops, shrunk, with_random_phase
from .settings import Training

SHRINK = 0.25


def as_channels(image: Tensor) -> Tensor:
    """(B, 1, H, W) complex -> (B, 2, H, W); real images as they are."""
    return torch.view_as_real(image)[:, 0].movedim(-1, 1) if image.is_complex() else image


def crops_of(images: Sequence[Tensor], crop: int, generator: torch.Generator, **options: float) -> Tensor:
    """One crop (1, crop, crop) of each image (H, W), whatever its size: (B, 1, crop, crop)."""
    sizes = [image.shape for image in images]
    out = images[0].new_empty(len(images), 1, crop, crop)
    for size in dict.fromkeys(sizes):
        same = [i for i, each in enumerate(sizes) if each == size]
        out[same] = random_crops(torch.stack([images[i] for i in same]), crop, generator, **options)
    return out


def augmented_views(images: Sequence[Tensor], config: Training, generator: torch.Generator) -> Tensor:
    """One augmented crop of each image (H, W), as network channels (B, C, crop, crop)."""
    options = dict(config.augment)
    shrink = options.pop("shrink", SHRINK)
    images = [shrunk(image, shrink, generator) for image in images]
    crops = crops_of(images, config.crop, generator, **options)
    return as_channels(with_random_phase(crops, generator) if config.complex_images else crops)


def plain_views(images: Sequence[Tensor], config: Training) -> tuple[Tensor, torch.Generator]:
    """One crop of each image (B, H, W), not augmented but for its phase, always the same (B, C, crop, crop).

    Also returns the generator as it then is, for further draws that are always the same.
    """
    generator = torch.Generator().manual_seed(1)
    none = dict(resample=0.0, blur=0.0, gamma=0.0, scale=0.0, shading=0.0)
    crops = crops_of(images, config.crop, generator, **none)
    return as_channels(with_random_phase(crops, generator) if config.complex_images else crops), generator
