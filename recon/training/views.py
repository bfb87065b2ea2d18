"""Slices from disk, and the views of them that a network is trained and judged on."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..errors import ConfigError
from ..io.images import read_stack
from .augment import random_crops, with_random_phase
from .settings import Training


def load_images(root: Path, names: tuple[str, ...], percentile: float) -> Tensor:
    """Magnitude slices (N, H, W) float32, each scaled so that its percentile is 1; empty slices are left out.

    Raises `ConfigError` for a file that does not exist, `InputError` for one that `read_stack` refuses.
    """
    stacks = []
    for name in names:
        path = root / name
        if not path.is_file():
            raise ConfigError(
                f"The training set {path} does not exist.",
                do="Set data_root in the config, or --data-root, to the folder that holds it.",
            )
        images = read_stack(path)
        top = torch.quantile(images.flatten(1), percentile / 100, dim=1)
        stacks.append(images[top > 0] / top[top > 0, None, None])
    return torch.cat(stacks)


def as_channels(image: Tensor) -> Tensor:
    """(B, 1, H, W) complex -> (B, 2, H, W); real images as they are."""
    return torch.view_as_real(image)[:, 0].movedim(-1, 1) if image.is_complex() else image


def augmented_views(images: Tensor, config: Training, generator: torch.Generator) -> Tensor:
    """One augmented crop of each image (B, H, W), as network channels (B, C, crop, crop)."""
    crops = random_crops(images, config.crop, generator, **config.augment)
    return as_channels(with_random_phase(crops, generator) if config.complex_images else crops)


def plain_views(images: Tensor, config: Training) -> tuple[Tensor, torch.Generator]:
    """One crop of each image (B, H, W), not augmented but for its phase, always the same (B, C, crop, crop).

    Also returns the generator as it then is, for further draws that are always the same.
    """
    generator = torch.Generator().manual_seed(1)
    none = dict(resample=0.0, blur=0.0, gamma=0.0, scale=0.0, shading=0.0)
    crops = random_crops(images, config.crop, generator, **none)
    return as_channels(with_random_phase(crops, generator) if config.complex_images else crops), generator
