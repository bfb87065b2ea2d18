"""Non-Cartesian k-space for the tests: the smooth object of `make_kspace`, measured along a trajectory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from make_kspace import coil_maps, objects

import operators as op


def measured(
    points: torch.Tensor, slices: int = 1, coils: int = 4, size: int = 32, noise: float = 0.0, seed: int = 0
) -> np.ndarray:
    """(slices, coils, *points.shape[:-1]) complex64 of images of ``size`` squared, points in cycles per pixel."""
    images = objects(slices, size, size, size)[:, None] * coil_maps(coils, size, size)
    A = op.NonCartesianMRI(points.double(), shape=(size, size))
    y = A(torch.from_numpy(images.reshape(-1, 1, size, size)).to(torch.complex128)).numpy()
    y = y.reshape(slices, coils, *points.shape[:-1])
    rng = np.random.default_rng(seed)
    n = rng.standard_normal((2, *y.shape))
    return (y + noise * (n[0] + 1j * n[1])).astype(np.complex64)


def make_trajectory_file(
    path: str | Path, points: torch.Tensor, slices: int = 1, scale: float = 1e-4, **more: object
) -> Path:
    """An npz with ``kspace``, ``trajectory`` and ``matrix``; ``more`` arrays replace or join them, None removes one."""
    arrays: dict[str, object] = {
        "kspace": scale * measured(points, slices, noise=0.01),
        "trajectory": points.numpy().astype(np.float32),
        "matrix": np.array([32, 32]),
    }
    arrays = {name: value for name, value in (arrays | more).items() if value is not None}
    np.savez(path, **arrays)  # pyright: ignore[reportArgumentType]
    return Path(path)
