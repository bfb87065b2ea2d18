"""Weights of scans on disk: computed once for each geometry, then mapped into memory."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from .geometry import ScanGeometry

WEIGHTS_FORMAT = 1  # of what is stored; a change of the formula is a new one
WORTH_KEEPING = 2**21  # weights; fewer are computed as fast as they are read
MOST_KEPT = 4 * 2**30  # bytes; the geometry that was used least recently goes first
CACHE_VARIABLE = "RECON_CACHE"


def weights_folder() -> Path | None:
    """Where weights are kept: ``$RECON_CACHE``, or ``recon`` in the user's folder of caches; None if that is empty or ``off``."""
    named = os.environ.get(CACHE_VARIABLE)
    if named is not None:
        return None if named in ("", "off") else Path(named) / "ct"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recon" / "ct"


def weights_from_disk(geometry: ScanGeometry, build: Callable[[], list[np.ndarray]]) -> list[np.ndarray]:
    """The arrays of a geometry from disk, or built and left there; without a disk that takes them, built."""
    where = weights_folder()
    name = hashlib.sha256(repr((WEIGHTS_FORMAT, geometry)).encode()).hexdigest()[:24]
    if where is not None:
        with suppress(OSError, ValueError):
            return read_arrays(where / name)
    arrays = build()
    if where is not None and len(arrays[1]) >= WORTH_KEEPING:
        with suppress(OSError):
            write_arrays(where / name, arrays)
            forget_oldest(where, name)
    return arrays


def read_arrays(place: Path) -> list[np.ndarray]:
    """The arrays in a folder, mapped copy-on-write; raises `OSError` where there are none."""
    arrays = [np.load(place / f"{i}.npy", mmap_mode="c", allow_pickle=False) for i in range(6)]
    for ends, columns, values in (arrays[:3], arrays[3:]):
        if ends[-1] != len(columns) or len(columns) != len(values):
            raise ValueError(f"{place} is damaged.")
    os.utime(place)
    return arrays


def write_arrays(place: Path, arrays: list[np.ndarray]) -> None:
    """Write the arrays beside their place, and move the whole folder there; of two writers the first wins."""
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix="part-", dir=place.parent))
    try:
        for i, array in enumerate(arrays):
            np.save(beside / f"{i}.npy", array, allow_pickle=False)
        beside.rename(place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def forget_oldest(where: Path, keep: str) -> None:
    """Remove what was used least recently, until `MOST_KEPT` holds."""
    sizes = {
        each: sum(part.stat().st_size for part in each.iterdir())
        for each in where.iterdir()
        if each.is_dir() and each.name != keep and not each.name.startswith("part-")
    }
    spare = MOST_KEPT - sum(part.stat().st_size for part in (where / keep).iterdir()) - sum(sizes.values())
    for oldest in sorted(sizes, key=lambda each: each.stat().st_mtime):
        if spare >= 0:
            break
        spare += sizes[oldest]
        shutil.rmtree(oldest, ignore_errors=True)
