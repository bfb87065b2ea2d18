"""Images as a TIFF stack: a page a slice, float32."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from .targets import fitting


def tiff_paths(target: Path, name: str) -> list[Path]:
    """``<stem>_<name>.tif`` beside the result ``target``."""
    return [fitting(target.parent, target.stem, f"_{name}.tif")]


def tiff_bytes(images: np.ndarray, about: str) -> list[bytes]:
    """One file of images (slices, h, w); ``about`` is its description. The same images give the same bytes."""
    import tifffile

    made = io.BytesIO()
    tifffile.imwrite(
        made,
        np.asarray(images, np.float32),
        description=about,
        photometric="minisblack",
        metadata=None,
        software="recon",
    )
    return [made.getvalue()]
