"""Hounsfield units: of CT slices in DICOM, read as attenuation over that of water, and of such images, to be written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from operators.errors import import_extra

from ...errors import ConfigError, InputError
from ..whole import write_whole

AIR, WATER = -1000.0, 0.0
STORED_OFFSET = 1024  # of a stack that is stored in 16 bits without a sign, as training sets are
LARGEST_STORED = 65535
SAME_GRID = 1e-2  # mm, of pixels and of steps between slices


@dataclass(frozen=True, eq=False)
class CTSlices:
    """``hounsfield`` (slices, H, W) float32 from foot to head, their pixels' ``spacing`` and the ``step`` between slices, mm."""

    hounsfield: np.ndarray
    spacing: tuple[float, float]
    step: float | None

    @property
    def relative(self) -> np.ndarray:
        """Attenuation over that of water, ``1 + HU / 1000``, at least 0: what the prior `chest-ct` knows, to be simulated from."""
        return np.maximum(1 + self.hounsfield / 1000, 0).astype(np.float32)


def to_hounsfield(attenuation: np.ndarray, water: float) -> np.ndarray:
    """``1000 (mu / water - 1)``, float32, of attenuation in the unit of ``water``."""
    return (1000 * (np.asarray(attenuation, np.float64) / water - 1)).astype(np.float32)


def read_ct_slices(files: str | Path | Sequence[str | Path]) -> CTSlices:
    """The CT slices of one series in DICOM files, or in a folder of them, in order of their place in the patient.

    Raises `ConfigError` without pydicom, `InputError` for files that are no CT slices, are damaged, or are of several series.
    """
    pydicom = import_extra("pydicom", "formats", "DICOM is read with", ConfigError)
    paths = listed_files(files)
    found: list[tuple[float, np.ndarray, Any]] = []
    for path in paths:
        try:
            one = pydicom.dcmread(path)
            values = one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept)
            place = (
                float(one.ImagePositionPatient[2])
                if "ImagePositionPatient" in one
                else float(one.InstanceNumber or 0)
            )
        except Exception as error:  # a parser raises what it likes on a damaged file
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise InputError(
                f"{path} cannot be read as a CT slice.",
                f"It is damaged, or of another kind: {reason}.",
                "Leave it out.",
            ) from error
        if one.get("Modality") != "CT" or values.ndim != 2:
            raise InputError(
                f"{path} is no CT slice.",
                f"Its modality is {one.get('Modality')}, its shape {values.shape}.",
                "Leave it out.",
            )
        found.append((place, values, one))
    found.sort(key=lambda entry: entry[0])
    first = found[0]
    spacing = [float(step) for step in first[2].get("PixelSpacing", (1, 1))]
    for _, values, one in found:
        other = [float(step) for step in one.get("PixelSpacing", (1, 1))]
        if values.shape != first[1].shape or one.get("SeriesInstanceUID") != first[2].get(
            "SeriesInstanceUID"
        ):
            raise InputError(
                f"{one.filename} is of another series than {first[2].filename}.",
                "Their identity or size differs.",
                "Read one series at a time.",
            )
        if np.abs(np.subtract(other, spacing)).max() > SAME_GRID:
            raise InputError(f"{one.filename} has pixels of another size.", do="Read one series at a time.")
    places = np.diff([place for place, _, _ in found])
    even = len(places) > 0 and np.ptp(places) <= SAME_GRID and places[0] > 0
    stack = np.stack([values for _, values, _ in found]).astype(np.float32)
    return CTSlices(stack, (spacing[0], spacing[1]), float(places.mean()) if even else None)


def listed_files(files: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files that are named, or those in a folder; raises `InputError` where there is none."""
    named = [Path(files)] if isinstance(files, str | Path) else [Path(path) for path in files]
    if len(named) == 1 and named[0].is_dir():
        named = sorted(p for p in named[0].iterdir() if p.is_file() and not p.name.startswith("."))
    if not named:
        raise InputError("There are no DICOM files.", "The folder is empty.", "Name another.")
    return named


def save_ct_slices(path: str | Path, slices: CTSlices) -> Path:
    """Write slices as an npz file, ``images`` uint16 = HU + 1024, as `recon train` takes with ``hounsfield: 1024``."""
    stored = np.clip(np.round(slices.hounsfield + STORED_OFFSET), 0, LARGEST_STORED).astype(np.uint16)
    spacing = np.full(len(stored), slices.spacing[0], np.float32)
    arrays: dict[str, Any] = {
        "images": stored,
        "pixel_spacing_mm": spacing,
        "offset": np.int64(STORED_OFFSET),
    }
    write_whole(Path(path), lambda file: np.savez_compressed(file, **arrays))
    return Path(path)
