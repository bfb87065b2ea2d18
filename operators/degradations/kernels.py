"""Kernels of blur: the path of a moving camera, and a Gaussian that is wider in one direction."""

from __future__ import annotations

import math

import torch
from torch import Tensor

CORNERS = 6  # directions that a bent path is interpolated between


def motion_kernel(length: float, angle: float, bend: float = 0.0, seed: int = 0) -> Tensor:
    """Uniform motion along a path of ``length`` pixels, ``angle`` degrees counter-clockwise from horizontal; sum 1.

    The path is straight, or its direction strays from ``angle`` by a smooth random curve of standard deviation
    ``bend`` degrees, drawn from ``seed``: a camera that shakes. It is sampled finely, each point spread over its four
    pixels by bilinear weights; the middle of what it covers is the kernel's. Odd sizes, as small as the path allows.
    """
    points = 32 * (math.ceil(length / 2) + 1) + 1
    direction = math.radians(angle) + math.radians(bend) * smooth_curve(points, seed)
    step = length / (points - 1)
    column, row = (step * way.cumsum(0) for way in (direction.cos(), -direction.sin()))
    column, row = (place - (place.min() + place.max()) / 2 for place in (column, row))
    reach = math.ceil(float(max(column.max(), row.max()))) + 1
    pixels = torch.arange(-reach, reach + 1, dtype=torch.float64)

    def weights(place: Tensor) -> Tensor:
        return (1 - (place[:, None] - pixels).abs()).clamp(min=0)

    kernel = weights(row).T @ weights(column)
    return (kernel / kernel.sum()).to(torch.get_default_dtype())


def smooth_curve(points: int, seed: int) -> Tensor:
    """(points,) float64: straight lines between Gaussian numbers, of standard deviation 1 at these."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randn(1, 1, CORNERS, generator=generator, dtype=torch.float64)
    return torch.nn.functional.interpolate(corners, points, mode="linear", align_corners=True).flatten()


def anisotropic_kernel(along: float, across: float, angle: float = 0.0) -> Tensor:
    """Gaussian of standard deviation ``along`` pixels at ``angle`` degrees counter-clockwise from horizontal, and ``across``; sum 1.

    Odd and square, cut at four of the larger standard deviations.
    """
    reach = math.ceil(4 * max(along, across))
    pixels = torch.arange(-reach, reach + 1, dtype=torch.float64)
    x, y, turn = pixels, -pixels[:, None], math.radians(angle)
    u, v = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    kernel = torch.exp(-0.5 * ((u / along) ** 2 + (v / across) ** 2))
    return (kernel / kernel.sum()).to(torch.get_default_dtype())
