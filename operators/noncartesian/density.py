"""Density compensation: the area of k-space that each sample of a trajectory stands for."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.fft import fftshift, ifftshift

from ..fft import fft2
from .nufft import nufft, nufft_adjoint

PRECISION = 1e-4  # of the transforms, far below what is left after the iterations


@torch.no_grad()
def density_compensation(trajectory: Tensor, shape: tuple[int, int], steps: int = 20) -> Tensor:
    """Weights w (samples,) > 0 for which ``F^H diag(w) F`` is near the identity, for F as in `NonCartesianMRI`.

    ``w <- w / (C w)``, ``(C w)_i = sum_j c(k_i - k_j) w_j / (H W)``, from w = 1. The kernel c is the Fourier
    transform of ``D(r) = 2/pi (arccos p - p sqrt(1 - p^2))``, the overlap of two ellipses of the field of
    view, ``p^2 = (r_1/H)^2 + (r_2/W)^2 < 1``: where ``C w = 1`` the point spread function has no side lobes within
    twice the field of view. c is the square of a jinc, so weights stay positive. No Voronoi cells are needed;
    samples in one place share the weight of one. A full Cartesian trajectory has w = 1.

    ``trajectory`` (..., 2) in cycles per pixel. Source: Pipe and Menon, MRM 41:179 (1999); the kernel: Johnson
    and Pipe, MRM 61:439 (2009).
    """
    points = trajectory.reshape(-1, 2).to(torch.float64)
    window = overlap(shape, points.device).to(torch.complex128)
    wide = (window.shape[0], window.shape[1])
    weights = torch.ones(len(points), dtype=torch.complex128, device=points.device)
    for _ in range(steps):
        spread = nufft(window * nufft_adjoint(weights, points, wide, PRECISION), points, PRECISION)
        density = spread.real / math.prod(shape)
        weights = weights / density.clamp_min(PRECISION)
    return weights.real.to(trajectory.dtype)


@torch.no_grad()
def sampled_share(trajectory: Tensor, density: Tensor, shape: tuple[int, int]) -> Tensor:
    """``C w`` (H, W) at the samples of Cartesian k-space: 1 where the trajectory is dense enough, 0 far from it."""
    points, wide = trajectory.reshape(-1, 2).to(torch.float64), (2 * shape[0], 2 * shape[1])
    spread = nufft_adjoint(density.to(torch.complex128), points, wide, PRECISION)
    fine = fft2(ifftshift(overlap(shape, points.device) * spread)).real / math.prod(shape)
    return fftshift(fine[::2, ::2]).to(trajectory.dtype)


def overlap(shape: tuple[int, int], device: torch.device) -> Tensor:
    """``D(r)`` on a grid of (2 H, 2 W) float64, 1 in its centre."""
    y, x = ((torch.arange(2 * n, dtype=torch.float64, device=device) - n) / n for n in shape)
    p = torch.hypot(y[:, None], x[None]).clamp(max=1)
    return 2 / math.pi * (torch.acos(p) - p * (1 - p.square()).sqrt())
