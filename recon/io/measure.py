"""Measurements made of images that are known: an operator, and noise."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from operators import Operator

from ..noise import Noise


def smooth_field(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Unit-variance Gaussian fields (count, 1, size, size) with features of a third of the crop or more."""
    coarse = torch.randn(count, 1, 6, 6, generator=generator)
    field = F.interpolate(coarse, size=2 * size, mode="bicubic", align_corners=True)
    return field[:, :, size // 2 : size // 2 + size, size // 2 : size // 2 + size]


def simulated(A: Operator, image: Tensor, sigma: float, seed: int, index: int = 0) -> Tensor:
    """``y = A x + n`` of one image (H, W): noise of ``sigma`` a real component, of image ``index`` to the seed."""
    if A.complex_domain and not image.is_complex():
        image = torch.complex(image, torch.zeros_like(image))
    with torch.no_grad():
        clean = A(image[None, None])
    return clean + A.masked(float(sigma) * Noise(seed, (index,))(clean, -2, "measurement"))


def measured_by(A: Operator, y: Tensor) -> Tensor:
    """Measurements as A gives them: real ones of an operator on complex images have an imaginary part of 0."""
    return torch.complex(y, torch.zeros_like(y)) if A.complex_codomain and not y.is_complex() else y
