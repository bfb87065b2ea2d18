"""The one formula that CT's weights come from: Joseph, IEEE Transactions on Medical Imaging 1 (1982).

A ray is followed along the axis that it is closest to, one row (or column) of the image at a time, with linear
interpolation across: a pixel whose centre is d pixels from the crossing has the weight ``max(0, 1 - |d|) l``, l being
the length of the ray from one row to the next. In a volume the weight is ``max(0, 1 - |d|) max(0, 1 - |e|) l``, e
the distance across slices.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .geometry import Rays


def weight(distance: Tensor) -> Tensor:
    """``max(0, 1 - |d|)``."""
    return (1 - distance.abs()).clamp_min(0)


def ray_lengths(rays: Rays, heights: Tensor) -> Tensor:
    """From one row to the next along each ray: (views, rows of the detector, detectors)."""
    rise = rays.step[:, None] * heights[:, None]
    return (1 + rays.slope[:, None].square() + rise.square()).sqrt()


def joseph_weights(rays: Rays, size: int) -> tuple[Tensor, Tensor]:
    """The two pixels around each crossing: their place across, int64, and weight, 0 outside; (views, detectors, size, 2)."""
    line = torch.arange(size, dtype=rays.start.dtype)
    crossing = rays.start[..., None] + rays.slope[..., None] * line
    near = crossing.floor()[..., None] + torch.tensor([0.0, 1.0], dtype=line.dtype)
    length = (1 + rays.slope.square()).sqrt()[..., None, None]
    inside = (near >= 0) & (near < size)
    return near.clamp(0, size - 1).long(), weight(crossing[..., None] - near) * length * inside
