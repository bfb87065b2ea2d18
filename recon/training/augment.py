"""Random views of slices, magnitudes or complex images: what a training step shows the network."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..io.simulated import smooth_field


def random_crops(
    images: Tensor,
    crop: int,
    generator: torch.Generator,
    *,
    resample: float = 0.5,
    blur: float = 0.3,
    gamma: float = 0.2,
    scale: float = 0.2,
    shading: float = 0.2,
) -> Tensor:
    """Cut one crop from each image (B, C, H, W), real or complex: flipped, turned, rescaled, reshaded.

    ``resample`` and ``blur`` are the probabilities of a rotation with zoom, and of a loss of
    resolution (a smaller window of k-space); ``gamma``, ``scale``, ``shading`` are standard
    deviations of log-contrast, log-intensity and of a smooth log-gain. Returns (B, C, crop, crop).
    """
    count = len(images)
    draw = torch.rand(count, 2, generator=generator)
    turned = draw[:, 0] < resample
    coarse = draw[:, 1] < blur
    images = images.clone()
    if coarse.any():
        images[coarse] = lose_resolution(images[coarse], generator)
    out = images.new_empty(*images.shape[:2], crop, crop)
    if turned.any():
        out[turned] = rotate_and_zoom(images[turned], crop, generator)
    for i in (~turned).nonzero().flatten().tolist():
        out[i] = cut(images[i], crop, generator)
    for i in range(count):
        symmetry = int(torch.randint(8, (1,), generator=generator))
        view = torch.rot90(out[i], symmetry % 4, (1, 2))
        out[i] = view.flip(2) if symmetry >= 4 else view
    exponent = torch.exp(gamma * torch.randn(count, 1, 1, 1, generator=generator))
    gain = torch.exp(scale * torch.randn(count, 1, 1, 1, generator=generator))
    shade = torch.exp(shading * smooth_field(count, crop, generator))
    return gain * shade * with_contrast(out, exponent)


def with_contrast(image: Tensor, exponent: Tensor) -> Tensor:
    """``|image| ** exponent`` with the phase of a complex image; of a real one what is negative becomes 0."""
    if not image.is_complex():
        return image.clamp_min(0) ** exponent
    return image * image.abs().clamp_min(1e-6) ** (exponent - 1)


def with_random_phase(image: Tensor, generator: torch.Generator) -> Tensor:
    """Multiply (B, 1, H, W) by ``exp(i phi)``, phi a smooth random field of random strength, in rad.

    A complex image keeps its own phase beneath.
    """
    count, crop = len(image), image.shape[-1]
    strength = 2.0 * torch.rand(count, 1, 1, 1, generator=generator)
    constant = 2 * math.pi * torch.rand(count, 1, 1, 1, generator=generator)
    phase = constant + strength * smooth_field(count, crop, generator)
    return (
        torch.polar(torch.ones_like(phase), phase) * image
        if image.is_complex()
        else torch.polar(image, phase)
    )


def cut(image: Tensor, crop: int, generator: torch.Generator) -> Tensor:
    """A crop x crop window at a random place of (C, H, W), zero-padded where the image is smaller."""
    pad_h, pad_w = max(0, crop - image.shape[-2]), max(0, crop - image.shape[-1])
    image = F.pad(image, (0, pad_w, 0, pad_h))
    top = torch.randint(image.shape[-2] - crop + 1, (1,), generator=generator).item()
    left = torch.randint(image.shape[-1] - crop + 1, (1,), generator=generator).item()
    return image[:, top : top + crop, left : left + crop]


def rotate_and_zoom(images: Tensor, crop: int, generator: torch.Generator) -> Tensor:
    """Sample (B, C, H, W) on rotated grids, zoom .7 to 1.4, bicubic: (B, C, crop, crop)."""
    count, channels, height, width = images.shape
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    zoom = torch.exp(math.log(0.7) + math.log(2.0) * torch.rand(count, generator=generator))
    reach = crop / torch.tensor([width, height]) / zoom[:, None]  # half-extent in grid units
    room = (1 - 0.7 * reach).clamp_min(0)
    centre = room * (2 * torch.rand(count, 2, generator=generator) - 1)
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack(
        [
            cos * reach[:, 0],
            -sin * reach[:, 0],
            centre[:, 0],
            sin * reach[:, 1],
            cos * reach[:, 1],
            centre[:, 1],
        ],
        dim=1,
    ).view(count, 2, 3)
    grid = F.affine_grid(theta, [count, 1, crop, crop], align_corners=False)
    parts = torch.cat([images.real, images.imag], 1) if images.is_complex() else images
    seen = F.grid_sample(parts, grid, mode="bicubic", align_corners=False)
    return torch.complex(seen[:, :channels], seen[:, channels:]) if images.is_complex() else seen


def shrunk(image: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """The image (C, H, W) of a smaller matrix and the same field of view, with ``probability``.

    Its k-space is cut to 35 to 100 % an axis, which is what a scan of lower resolution acquires.
    """
    draw, keep = torch.rand(2, generator=generator).tolist()
    if draw >= probability:
        return image
    old = image.shape[-2:]
    height, width = (min(n, max(2, 2 * round((0.35 + 0.65 * keep) * n / 2))) for n in old)
    spectrum = torch.fft.fftshift(torch.fft.fft2(image), (-2, -1))
    top, left = old[0] // 2 - height // 2, old[1] // 2 - width // 2
    window = spectrum[:, top : top + height, left : left + width]
    small = torch.fft.ifft2(torch.fft.ifftshift(window, (-2, -1)))
    return like(image, small * (height * width / old.numel()))


def scaled_down(image: Tensor, probability: float, least: int, generator: torch.Generator) -> Tensor:
    """A real image (C, H, W) scaled down, antialiased, to no side below ``least`` pixels, with ``probability``.

    Its noise and compression go with the pixels that are averaged.
    """
    draw, keep = torch.rand(2, generator=generator).tolist()
    smallest = min(1.0, least / min(image.shape[-2:]))
    if draw >= probability or smallest == 1:
        return image
    scale = smallest + (1 - smallest) * keep
    size = [max(least, round(scale * n)) for n in image.shape[-2:]]
    small = F.interpolate(image[None], size, mode="bicubic", antialias=True)[0]
    return small.clamp(image.min(), image.max())


def lose_resolution(images: Tensor, generator: torch.Generator) -> Tensor:
    """Zero the outer k-space of images (B, C, H, W), keeping 50 to 100 % an axis, with or without a soft edge."""
    spectrum = torch.fft.fft2(images)
    for axis in (-2, -1):
        size = images.shape[axis]
        keep = 0.5 + 0.5 * torch.rand(len(images), 1, generator=generator)
        edge = 0.01 + 0.3 * torch.rand(len(images), 1, generator=generator)
        frequency = 2 * torch.fft.fftfreq(size).abs()[None]
        window = ((keep - frequency) / (edge * keep)).clamp(0, 1)
        spectrum = spectrum * (window[:, None, :, None] if axis == -2 else window[:, None, None, :])
    return like(images, torch.fft.ifft2(spectrum))


def like(image: Tensor, filtered: Tensor) -> Tensor:
    """A complex image as it is, of a magnitude image the magnitude."""
    return filtered if image.is_complex() else filtered.abs()
