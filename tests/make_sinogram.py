"""Sinograms of ellipses, whose line integrals are known exactly, and files of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


def ellipses(seed: int, reach: float, count: int = 8) -> list[tuple[float, ...]]:
    """A body of density 1 and ``count`` ellipses in it, within ``reach``: (u, v, half axis, half axis, turn, density)."""
    draw = np.random.default_rng(seed)
    body = (
        *(0.05 * reach * draw.standard_normal(2)),
        *(reach * draw.uniform(0.55, 0.75, 2)),
        draw.uniform(0, 3),
        1.0,
    )
    inner = [
        (
            *(0.4 * reach * draw.uniform(-1, 1, 2)),
            *(reach * draw.uniform(0.03, 0.2, 2)),
            draw.uniform(0, 3),
            draw.uniform(-0.5, 0.8),
        )
        for _ in range(count)
    ]
    return [body, *inner]


def projected(shapes, angles, detectors: int, axis: float) -> np.ndarray:
    """Parallel projections (angles, detectors), float64; detectors are 1 apart, angles in degrees."""
    turn, place = np.deg2rad(np.asarray(angles, float))[:, None], np.arange(detectors) - axis
    found = np.zeros((len(turn), detectors))
    for u, v, p, q, tilt, density in shapes:
        wide = (p * np.cos(turn - tilt)) ** 2 + (q * np.sin(turn - tilt)) ** 2
        off = place - u * np.cos(turn) - v * np.sin(turn)
        found += density * 2 * p * q * np.sqrt(np.maximum(wide - off**2, 0)) / wide
    return found


def small_sinogram(
    views: int = 60, detectors: int = 48, axis: float = 22.0, slices: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """(slices, views, detectors) float32 of ellipses with density .02 to a detector, and the angles over half a turn."""
    angles = np.arange(views) * 180 / views
    data = [
        0.02 * projected(ellipses(seed, 0.4 * detectors), angles, detectors, axis) for seed in range(slices)
    ]
    return np.stack(data).astype(np.float32), angles


def save_sinogram(
    path: Path, data: np.ndarray, angles: np.ndarray, geometry: dict | None = None, **more
) -> Path:
    """An npz file in the layout of our own."""
    np.savez(
        path,
        sinogram=data,
        angles_deg=angles,
        geometry=json.dumps(geometry or {"geometry": "parallel"}),
        **more,
    )
    return path


def counted(data: np.ndarray, photons: float = 1e4, frames: int = 8, seed: int = 0) -> dict[str, np.ndarray]:
    """Raw counts (angles, rows, detectors), flat and dark fields (frames, rows, detectors) of (slices, angles, detectors)."""
    draw = np.random.default_rng(seed)
    rows, _, detectors = data.shape
    dark = 100 + draw.normal(0, 2, (frames, rows, detectors)).round()
    flat = 100 + draw.poisson(photons, (frames, rows, detectors))
    raw = 100 + draw.poisson(photons * np.exp(-data.astype(float))).transpose(1, 0, 2)
    return {"raw": raw.astype(np.uint16), "flat": flat.astype(np.uint16), "dark": dark.astype(np.uint16)}
