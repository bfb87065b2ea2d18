"""Measurements simulated from known images: by any operator, or as k-space of eight coils."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from operators import Operator
from operators.coils import rss, simulate_coils
from operators.fourier import fft2c

from ..errors import InputError
from ..noise import Noise
from .images import STACK, read_stack, stack_shape
from .kspace import KSpaceFile, kspace_file
from .stores import NAMES, ArrayInfo, NpzStore, Store

COILS, SIGMA = 8, 0.01


def simulate(A: Operator, image: Tensor, sigma: float, seed: int, index: int = 0) -> Tensor:
    """``y = A x + n`` (1, *codomain) of one image (H, W) or (C, H, W), n of standard deviation ``sigma`` per real component.

    The noise is drawn from ``seed`` and ``index``, which numbers the image, and y is what A can measure of that: zero where it measures nothing.
    """
    if A.complex_domain and not image.is_complex():
        image = torch.complex(image, torch.zeros_like(image))
    with torch.no_grad():
        clean = A(image[None, None] if image.ndim == 2 else image[None])
    return A.masked(clean + float(sigma) * Noise(seed, (index,))(clean, -2, "measurement"))


def measured_by(A: Operator, y: Tensor) -> Tensor:
    """Measurements in the dtype that A gives: real ones become complex if the codomain is complex."""
    return torch.complex(y, torch.zeros_like(y)) if A.complex_codomain and not y.is_complex() else y


def smooth_field(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Gaussian random fields (count, 1, size, size) of variance near 1, smooth over a third of the size or more."""
    coarse = torch.randn(count, 1, 6, 6, generator=generator)
    field = F.interpolate(coarse, size=2 * size, mode="bicubic", align_corners=True)
    return field[:, :, size // 2 : size // 2 + size, size // 2 : size // 2 + size]


@dataclass(frozen=True)
class SimulatedStore(Store):
    """Fully sampled k-space of the ``chosen`` slices of an npz stack of magnitude images, as a file would hold it.

    Noise of .01 per real component, where the image's 99.5th percentile is 1; ``reconstruction_rss`` has
    no noise. A slice is the same whatever others are chosen.
    """

    chosen: tuple[int, ...] = ()
    format: ClassVar[str] = "npz of magnitude images, measured by simulated coils"

    def entries(self) -> dict[str, ArrayInfo]:
        _, height, width = stack_shape(self.path)
        size = (len(self.chosen), COILS, height, width)
        return {
            "kspace": ArrayInfo(size, np.dtype(np.complex64)),
            "reconstruction_rss": ArrayInfo((size[0], *size[2:]), np.dtype(np.float32)),
        }

    def fetch(self, name: str, index: int | None = None) -> np.ndarray:
        if index is None:
            return np.stack([self.fetch(name, i) for i in range(len(self.chosen))])
        coils = coil_images(read_stack(self.path, self.chosen[index]), self.chosen[index])
        if name == "reconstruction_rss":
            return rss(coils).numpy()
        noise = Noise(1, (self.chosen[index],))(coils[None], 0)[0]
        return (fft2c(coils) + SIGMA * noise).numpy()


def holds_images(path: Path) -> bool:
    """Whether a file is a stack of images: an npz with ``images`` and no k-space."""
    if path.suffix.lower() != ".npz" or not path.is_file():
        return False
    names = set(NpzStore(path).entries())
    return STACK in names and not names & set(NAMES["kspace"])


def simulated_file(path: Path, chosen: Sequence[int]) -> KSpaceFile:
    """The k-space of these slices of a stack; raises `InputError` for one that is not a magnitude image."""
    for index in chosen:
        image = read_stack(path, index)
        if float(image.min()) < 0 or not peak(image) > 0:
            raise InputError(
                f"{path}: slice {index} of {STACK} is not a magnitude image.",
                "It is negative somewhere, or zero nearly everywhere.",
                "Leave this slice out.",
            )
    return kspace_file(SimulatedStore(path, chosen=tuple(chosen)))


def peak(image: Tensor) -> float:
    """The 99.5th percentile, which is 1 in the units of the shipped priors."""
    return float(torch.quantile(image.flatten(), 0.995))


def coil_images(magnitude: Tensor, seed: int) -> Tensor:
    """(H, W) magnitudes -> (8, H, W) complex64 coil images of `with_phase`."""
    height, width = magnitude.shape
    return simulate_coils(COILS, (height, width)) * with_phase(magnitude, seed)


def with_phase(magnitude: Tensor, seed: int) -> Tensor:
    """(H, W) magnitudes as a complex image of smooth random phase whose 99.5th percentile is 1."""
    height, width = magnitude.shape
    generator = torch.Generator().manual_seed(seed)
    phase = smooth_field(1, max(height, width), generator)[0, 0, :height, :width]
    return torch.polar(magnitude / peak(magnitude), phase)
