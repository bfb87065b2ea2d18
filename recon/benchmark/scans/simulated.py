"""Scans simulated from magnitude slices: any matrix, coils, mask and noise, with an image that is known exactly."""

from __future__ import annotations

import math

import torch
from scipy import ndimage
from torch import Tensor

from operators.coils import rss, simulate_coils
from operators.fourier import fft2c, ifft2c
from operators.masks import make_mask

from ...io.simulated import peak, smooth_field
from ...noise import Noise
from .scan import Scan

GAINS = 0.2  # std of the logarithm of a coil's gain
RAMP = 2.0  # radians: the largest linear phase from the centre to the edge
EDGE_OF_OBJECT = 0.05  # of the reference's maximum
RIM = 2  # pixels around the object that belong to its support


def simulate_scan(
    image: Tensor,
    coils: int = 8,
    matrix: int | None = None,
    lines: int = 16,
    accel: float = 4.0,
    noise: float = 0.004,
    mask: str = "equispaced-fraction",
    seed: int = 0,
    dtype: torch.dtype = torch.complex64,
) -> Scan:
    """k-space (coils, matrix, matrix) of a magnitude slice (H, W), as a scanner of that matrix would measure it.

    ``k_c = F(S_c m exp(i phi)) + n``: the coil images are made on the slice's own grid and cut to the matrix in
    k-space; a larger matrix gets the slice by sinc interpolation first. ``phi`` is a smooth random field with
    an offset and a ramp; ``S`` are Biot-Savart loops (`simulate_coils`) turned by a random angle, with random gains and
    phases, one coil alone is uniform. ``lines`` central columns of the mask ``mask`` of acceleration ``accel``.
    ``noise`` per real component of k-space, relative to the reference's 99.5th percentile; the reference has none.
    Everything random comes from ``seed``.

    Raises `OperatorError` for a mask that cannot be, such as more central lines than lines.
    """
    n = matrix or max(image.shape)
    sampled = make_mask(mask, (n, n), accel, lines / n, seed)
    coil_images, maps = simulated_coils(image, coils, n, seed, dtype)
    clean = resized_kspace(fft2c(coil_images), n)
    reference = rss(ifft2c(clean))
    sigma = noise * peak(reference.float())
    drawn = Noise(seed, (0,))(torch.empty(1, *clean.shape, dtype=dtype), 0, "scan")[0]
    return Scan(
        clean + sigma * drawn,
        sampled,
        reference,
        seed,
        maps / rss(maps),
        object_support(reference),
    )


def simulated_coils(
    image: Tensor, coils: int, matrix: int, seed: int, dtype: torch.dtype = torch.complex64
) -> tuple[Tensor, Tensor]:
    """Coil images (coils, n, n) of a magnitude slice on its own grid, or that of a larger matrix, see `simulate_scan`.

    And the sensitivities (coils, matrix, matrix) that made them. Everything random comes from ``seed``.
    """
    generator = torch.Generator().manual_seed(seed)
    still = squared(image.to(dtype.to_real()))
    if matrix > len(still):
        still = ifft2c(resized_kspace(fft2c(still.to(dtype)), matrix)).real
    size = len(still)
    turn = float(torch.rand((), generator=generator)) * 2 * math.pi
    gains = random_gains(coils, generator)[:, None, None]
    phased = torch.polar(still, image_phase(size, generator).to(still))
    seen = receive(coils, size, turn) * gains * phased
    return seen.to(dtype), (receive(coils, matrix, turn) * gains).to(dtype)


def receive(coils: int, size: int, turn: float) -> Tensor:
    """Sensitivities (coils, size, size): loops in a ring that is turned by ``turn``; one coil is uniform."""
    if coils == 1:
        return torch.ones(1, size, size, dtype=torch.complex64)
    return simulate_coils(coils, (size, size), start=turn)


def random_gains(coils: int, generator: torch.Generator) -> Tensor:
    """Gain and phase (coils,) of each receiver."""
    strength = (GAINS * torch.randn(coils, generator=generator)).exp()
    return torch.polar(strength, 2 * math.pi * torch.rand(coils, generator=generator))


def image_phase(size: int, generator: torch.Generator) -> Tensor:
    """(size, size) radians: a smooth field of std about 1, an offset, and a ramp as of an echo off its centre."""
    field = smooth_field(1, size, generator)[0, 0]
    offset, *slopes = (2 * torch.rand(3, generator=generator) - 1).tolist()
    axis = torch.linspace(-1, 1, size)
    return field + math.pi * offset + RAMP * (slopes[0] * axis[:, None] + slopes[1] * axis)


def squared(image: Tensor) -> Tensor:
    """(H, W) in the middle of a square of zeros of the longer side."""
    height, width = image.shape
    size = max(height, width)
    whole = image.new_zeros(size, size)
    top, left = size // 2 - height // 2, size // 2 - width // 2
    whole[top : top + height, left : left + width] = image
    return whole


def resized_kspace(kspace: Tensor, size: int) -> Tensor:
    """k-space (..., n, n) cut or filled with zeros to (..., size, size), such that the image keeps its values."""
    n = kspace.shape[-1]
    kept = min(n, size)
    whole = kspace.new_zeros(*kspace.shape[:-2], size, size)
    to, of = (slice(m // 2 - kept // 2, m // 2 - kept // 2 + kept) for m in (size, n))
    whole[..., to, to] = kspace[..., of, of]
    return whole * (size / n)


def object_support(reference: Tensor) -> Tensor:
    """(H, W) bool: where the reference is above `EDGE_OF_OBJECT`, its holes filled, with a rim of `RIM` pixels."""
    lit = (reference > EDGE_OF_OBJECT * reference.max()).numpy()
    lit = ndimage.binary_dilation(lit, iterations=RIM)
    return torch.from_numpy(ndimage.binary_fill_holes(lit))
