"""k-space made of magnitude images: eight coils, a smooth phase, noise. Its reference is known without noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from operators.coils import rss, simulate_coils
from operators.fourier import fft2c

from ..errors import InputError
from ..noise import Noise
from . import KSpaceFile
from .arrays import NpzStore
from .kspace import describe
from .measure import smooth_field
from .stores import ArrayInfo, Store

COILS, SIGMA = 8, 0.01
IMAGES = "images"


@dataclass(frozen=True)
class SimulatedStore(Store):
    """Fully sampled k-space of the ``chosen`` slices of an npz stack, as a file would hold it.

    Noise of .01 a real component, where the image's 99.5th percentile is 1; ``reconstruction_rss`` is
    without noise. A slice is the same whatever else is chosen.
    """

    chosen: tuple[int, ...] = ()
    format: ClassVar[str] = "npz of magnitude images, measured by simulated coils"

    def entries(self) -> dict[str, ArrayInfo]:
        height, width = NpzStore(self.path).entries()[IMAGES].shape[1:]
        size = (len(self.chosen), COILS, height, width)
        return {
            "kspace": ArrayInfo(size, np.dtype(np.complex64)),
            "reconstruction_rss": ArrayInfo((size[0], *size[2:]), np.dtype(np.float32)),
        }

    def fetch(self, name: str, index: int | None = None) -> np.ndarray:
        if index is None:
            return np.stack([self.fetch(name, i) for i in range(len(self.chosen))])
        coils = coil_images(magnitudes(self.path, self.chosen[index]), self.chosen[index])
        if name == "reconstruction_rss":
            return rss(coils).numpy()
        noise = Noise(1, (self.chosen[index],))(coils[None], 0)[0]
        return (fft2c(coils) + SIGMA * noise).numpy()


def holds_images(path: Path) -> bool:
    """Whether a file is a stack of images: an npz with ``images`` and no k-space."""
    return path.suffix.lower() == ".npz" and path.is_file() and IMAGES in (names := NpzStore(path).entries()) and not {"kspace", "ksp"} & set(names)  # fmt: skip


def count_images(path: Path) -> int:
    """How many slices a stack holds; raises `InputError` where it is no stack."""
    entry = NpzStore(path).entries()[IMAGES]
    if len(entry.shape) != 3 or entry.dtype.kind not in "fiu" or 0 in entry.shape:
        raise InputError(
            f"{path}: {IMAGES} are {entry.dtype} of shape {entry.shape}.",
            "A stack of magnitude slices is real, (slices, H, W).",
            "Save it so, with np.savez(path, images=...).",
        )
    return entry.shape[0]


def simulated_file(path: Path, chosen: Sequence[int]) -> KSpaceFile:
    """The k-space of these slices of a stack; raises `InputError` for one that is no magnitude image."""
    for index in chosen:
        image = magnitudes(path, index)
        if not bool(torch.isfinite(image).all()) or float(image.min()) < 0 or not peak(image) > 0:
            raise InputError(
                f"{path}: slice {index} of {IMAGES} is no magnitude image.",
                "It is negative or not finite somewhere, or empty.",
                "Leave this slice out.",
            )
    return describe(SimulatedStore(path, chosen=tuple(chosen)))


def magnitudes(path: Path, index: int) -> Tensor:
    return torch.from_numpy(NpzStore(path).fetch(IMAGES, index).astype(np.float32))


def peak(image: Tensor) -> float:
    return float(torch.quantile(image.flatten(), 0.995))


def coil_images(magnitude: Tensor, seed: int) -> Tensor:
    """(H, W) magnitudes -> (8, H, W) coil images of `with_phase`."""
    height, width = magnitude.shape
    return simulate_coils(COILS, (height, width)) * with_phase(magnitude, seed)


def with_phase(magnitude: Tensor, seed: int) -> Tensor:
    """(H, W) magnitudes as a complex image of smooth random phase whose 99.5th percentile is 1."""
    height, width = magnitude.shape
    generator = torch.Generator().manual_seed(seed)
    phase = smooth_field(1, max(height, width), generator)[0, 0, :height, :width]
    return torch.polar(magnitude / peak(magnitude), phase)
