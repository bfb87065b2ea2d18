"""What a sinogram file holds, in words, for ``recon inspect``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .field import field_of_view
from .noise import estimated_std
from .opening import open_sinogram
from .sinogram import Sinogram


def inspected(path: str | Path) -> str:
    """A report of a file of tomography; raises `InputError` for what cannot be used."""
    found = open_sinogram(path)
    lines = [f"{found.path}: {found.format}", *(f"  array      {name}" for name in found.arrays)]
    lines += [f"  {line}" for line in geometry_lines(found)]
    lines += [f"  noise      {noise_in_words(found)}"]
    lines += [f"  said       {said}" for said in found.said]
    lines += [f"  warning    {warning}" for warning in found.warnings] or ["  warnings   none"]
    return "\n".join(lines)


def geometry_lines(found: Sinogram) -> list[str]:
    """Beam, views, detectors, values and the image that is made by default."""
    beam, angles = found.beam, found.angles
    if beam.source is None or beam.detector is None:
        distances = ""
    else:
        distances = (
            f", source {beam.source:g} {beam.unit} from the axis and {beam.detector:g} from the detector, "
            f"magnified {beam.magnification:.3g} times"
        )
    unit = "1" if beam.unit == "detector" else f"{beam.pitch:.4g} {beam.unit}"
    size, pixel = field_of_view(found)
    rows = f"{found.slices} rows of " if found.volume else ""
    return [
        f"beam       {beam.kind}{distances}",
        f"rays       {'' if found.volume else f'{found.slices} slices, '}{len(angles)} views of {rows}{found.detectors} detectors, {unit} apart",
        f"angles     {angles.min():.4g} to {angles.max():.4g} degrees, {found.gap:.3g} apart: {found.covered:.4g} degrees covered",
        f"values     {found.data.min():.3g} to {found.data.max():.3g}, mean {found.data.mean(dtype=np.float64):.3g}",
        f"image      {size} x {size} by default, pixels of {pixel:.4g} {'detectors' if beam.unit == 'detector' else beam.unit}",
    ]


def noise_in_words(found: Sinogram) -> str:
    """The noise of rays, from their counts, or estimated."""
    if found.std is None:
        data = found.data.transpose(1, 0, 2) if found.volume else found.data
        return estimated_std(data)[1].removeprefix("noise ")
    usable = found.std[np.isfinite(found.std)]
    return f"{np.percentile(usable, 5):.3g} to {np.percentile(usable, 95):.3g}, {np.median(usable):.3g} in the median ray: from counts"
