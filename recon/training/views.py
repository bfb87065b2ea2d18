"""The views of slices that a network is trained and judged on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .augment import random_crops, scaled_down, shrunk, with_random_phase
from .settings import SHRINK, Training

PLAIN = dict(resample=0.0, blur=0.0, gamma=0.0, scale=0.0, shading=0.0)


def as_channels(image: Tensor) -> Tensor:
    """(B, 1, H, W) complex -> (B, 2, H, W); real images as they are."""
    return torch.view_as_real(image)[:, 0].movedim(-1, 1) if image.is_complex() else image


def as_network_input(crops: Tensor, complex_images: bool, generator: torch.Generator) -> Tensor:
    """Crops as channels (B, C, H, W): of (B, 1, H, W) complex with smooth random phase, or magnitudes; colours stay."""
    if complex_images:
        return as_channels(with_random_phase(crops, generator))
    return crops.abs() if crops.is_complex() else crops


def augmented_view(image: Tensor, config: Training, generator: torch.Generator) -> Tensor:
    """One augmented crop of an image (1, H, W) or a photograph (3, H, W), as network channels (C, crop, crop)."""
    options = {"shrink": SHRINK, **config.augment}
    smaller = options.pop("shrink")
    if config.complex_images or image.is_complex():
        image = shrunk(image, smaller, generator)
    else:
        image = scaled_down(image, smaller, config.crop, generator)
    crops = random_crops(image[None], config.crop, generator, **options)
    return as_network_input(crops, config.complex_images, generator)[0]


def plain_views(images: Sequence[Tensor], crop: int, complex_images: bool) -> tuple[Tensor, torch.Generator]:
    """One crop of each image (C, H, W), not augmented but for its phase, always the same (B, C, crop, crop).

    Also returns the generator as it then is, for further draws that are always the same.
    """
    generator = torch.Generator().manual_seed(1)
    sizes = [(image.shape, image.dtype) for image in images]
    out = torch.empty(
        len(images),
        images[0].shape[0],
        crop,
        crop,
        dtype=torch.complex64 if any(map(torch.is_complex, images)) else torch.float32,
    )
    for size in dict.fromkeys(sizes):
        same = [i for i, each in enumerate(sizes) if each == size]
        views = random_crops(torch.stack([images[i] for i in same]), crop, generator, **PLAIN)
        out[same] = views.to(out.dtype)
    return as_network_input(out, complex_images, generator), generator
