"""Images as NIfTI: slices that make a grid are one volume, repeated volumes one file of four axes."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np

from operators.errors import import_extra

from ..errors import ConfigError
from .stores import Geometry
from .targets import fitting


def nibabel_library() -> Any:
    """The package ``nibabel``; raises `ConfigError` with the line that installs it where it is missing."""
    return import_extra("nibabel", "formats", "NIfTI is written with", ConfigError)


def series_of(geometry: Geometry | None, slices: int, size: tuple[int, int]) -> list[list[list[int]]]:
    """The slices of each file, as the stacks that are its volumes: stacks of one shape in one place share a file."""
    if geometry is None:
        return [[list(range(slices))]]
    found: dict[tuple, list[list[int]]] = {}
    for stack in geometry.stacks(slices):
        place = (geometry.affine(stack, size).round(3) + 0.0).tobytes()  # no -0
        found.setdefault((len(stack), place), []).append(stack)
    return list(found.values())


def nifti_paths(
    target: Path, name: str, geometry: Geometry | None, slices: int, size: tuple[int, int]
) -> list[Path]:
    """``<stem>_<name>.nii.gz`` beside the result ``target``; of slices that make several grids ``_000.nii.gz`` and on."""
    count = len(series_of(geometry, slices, size))
    numbers = [""] if count == 1 else [f"_{number:03d}" for number in range(count)]
    return [fitting(target.parent, target.stem, f"_{name}{number}.nii.gz") for number in numbers]


def nifti_bytes(images: np.ndarray, geometry: Geometry | None, about: str) -> list[bytes]:
    """The files of images (slices, h, w), one for each of `series_of`, compressed.

    Axes of a file: row, column, slice, and volume where there are several; float32. The affine is in mm in RAS
    coordinates (code 1, scanner); without positions the file has pixel sizes alone (code 0), without any geometry pixels
    of 1. ``about`` is its description. The same images give the same bytes.
    """
    nibabel = nibabel_library()
    size = (images.shape[1], images.shape[2])
    made = []
    for stacks in series_of(geometry, len(images), size):
        volumes = np.stack([images[stack] for stack in stacks], -1).transpose(1, 2, 0, 3)
        known = geometry is not None and geometry.positions is not None
        affine = np.eye(4) if geometry is None else geometry.affine(stacks[0], size)
        image = nibabel.Nifti1Image(
            (volumes if len(stacks) > 1 else volumes[..., 0]).astype(np.float32), affine
        )
        image.set_sform(affine, code=int(known))
        image.set_qform(affine, code=int(known))
        image.header.set_xyzt_units("mm" if geometry is not None else "unknown")
        image.header["descrip"] = about.encode()[:79]
        made.append(gzip.compress(image.to_bytes(), mtime=0))
    return made
