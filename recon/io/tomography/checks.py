"""What is wrong with a sinogram: refused where no image could come of it, a warning where one would look odd."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...errors import InputError
from .sinogram import HALF_TURN, Sinogram

MANY = 20  # views, whose angles below 2 pi are hardly degrees
CUT = 0.05  # of the strongest rays, at an outer detector
OFTEN = 0.02  # of the views
OUTER = 3  # detectors


def checked(sinogram: Sinogram) -> Sinogram:
    """``sinogram`` with `warnings_of`; raises `InputError` for a source that no scan has."""
    refuse_source(sinogram)
    return replace(sinogram, warnings=(*sinogram.warnings, *warnings_of(sinogram)))


def checked_angles(angles: np.ndarray, shape: Sequence[int], views: int, path: Path) -> np.ndarray:
    """``angles`` as float64 (views,), axis ``views`` of ``shape``; raises `InputError` where they do not fit, or are no numbers."""
    angles = np.atleast_1d(np.squeeze(np.asarray(angles)))
    if angles.ndim != 1 or angles.dtype.kind not in "fiu":
        raise InputError(
            f"{path}: the angles are {angles.dtype} of shape {angles.shape}.",
            "They are one number a view.",
            "Store them as (views,), in degrees.",
        )
    angles = angles.astype(np.float64)
    if not np.isfinite(angles).all():
        raise InputError(f"{path}: the angles hold NaN or infinity.", do="Write the file again.")
    if len(angles) != shape[views]:
        other = [place for place, length in enumerate(shape) if length == len(angles)]
        raise InputError(
            f"{path}: there are {len(angles)} angles and {shape[views]} views of shape {tuple(shape)}.",
            "The sinogram lies transposed: the angles fit its other axis."
            if other
            else "One angle belongs to each view.",
            "Transpose it to (slices, angles, detectors)." if other else "Give as many angles as views.",
        )
    return angles


def refuse_rays(sinogram: Sinogram) -> None:
    """Raise `InputError` for NaN, infinity, and a sinogram that is the same everywhere."""
    data = sinogram.data
    bad = int((~np.isfinite(data)).sum())
    if bad:
        raise InputError(
            f"{sinogram.path}: {bad} of {data.size} rays are NaN or infinite.",
            "One such ray spoils the whole image.",
            "Store the raw counts beside the sinogram, or set these rays from their neighbours.",
        )
    if data.size == 0 or float(np.ptp(data)) == 0:
        raise InputError(
            f"{sinogram.path}: all rays are the same.", "There is no object in it.", "Check the file."
        )


def refuse_source(sinogram: Sinogram) -> None:
    """Raise `InputError` where what the detectors see would reach the source of a diverging beam."""
    beam = sinogram.beam
    if beam.source is None or beam.detector is None:
        return
    half = max(abs(0 - sinogram.axis), abs(sinogram.detectors - 1 - sinogram.axis)) * beam.pitch
    if half >= beam.detector:
        raise InputError(
            f"{sinogram.path}: the source is inside the object.",
            f"It is {beam.source:g} {beam.unit} from the axis; at the axis the detector sees {half / beam.magnification:.3g} {beam.unit} to one side.",
            "Give pitch, source and detector in one unit.",
        )


def warnings_of(sinogram: Sinogram) -> list[str]:
    """Sentences on angles that look like radians, an object cut off at the edge of the detector, and an axis that is off."""
    found = []
    angles, views = sinogram.angles, len(sinogram.angles)
    if views >= MANY and 0 < np.abs(angles).max() <= 2 * math.pi + 1e-6:
        found.append(
            f"{views} views within {np.ptp(angles):.3g} degrees: are the angles in radians? --radians takes them so"
        )
    count = sinogram.detectors
    if not -0.5 <= sinogram.axis <= count - 0.5:
        found.append(f"the axis falls on detector {sinogram.axis:g}, outside of the {count} detectors")
    rays = sinogram.data
    strong = float(np.percentile(rays, 99))
    sides = np.stack([rays[..., :OUTER].mean(-1), rays[..., -OUTER:].mean(-1)])
    cut = float((sides.max(0) > CUT * strong).mean()) if strong > 0 else 0.0
    if cut > OFTEN and not _air_is_offset(sides, strong):
        found.append(
            f"the object is cut off at the detector's edge in {100 * cut:.0f} % of the views: values near the edge of the "
            "image, and their level, are not reliable"
        )
    if (lowest := float(np.percentile(rays, 1))) < -0.1 * strong:
        found.append(
            f"a hundredth of the rays are below {lowest:.3g}: a line integral is not negative; are they counts, or minus them?"
        )
    if sinogram.beam.kind == "parallel" and sinogram.covered > 2 * HALF_TURN + 1.5 * sinogram.gap:
        found.append(f"the views cover {sinogram.covered:.4g} degrees, more than a turn")
    return found


def _air_is_offset(sides: np.ndarray, strong: float) -> bool:
    """Whether the outer rays are alike in all views, as air that is not quite zero, and no object, is."""
    return bool(sides.max() < 0.1 * strong and sides.std(1).max() < 0.2 * abs(sides.mean()))
