"""The image that is made of a sinogram: how many pixels of what size hold what the rays show."""

from __future__ import annotations

import math

import numpy as np

from ...errors import ConfigError
from .sinogram import Sinogram

LARGEST_IMAGE = 512  # pixels a side, unless more are asked for
FAINT = 0.05  # of the strongest rays: less is air
MARGIN = 1.08  # times the object
ENOUGH = 150.0  # degrees of views, that show how far an object reaches
SIDE_STEP = 8  # the side is a multiple of it


def field_of_view(
    sinogram: Sinogram, size: int | None = None, pixel: float | None = None
) -> tuple[int, float]:
    """(size, pixel): pixels a side, and their side in the unit of the beam; what is given is kept.

    By default pixels are what a detector sees at the axis, and the image is as wide as the object, or, where views over
    less than 150 degrees do not show how wide it is, as what the detector sees; more than 512 pixels become wider
    ones. Raises `ConfigError` for a size or pixel that is none, or an image that reaches the source.
    """
    beam = sinogram.beam
    if size is not None and size < 8:
        raise ConfigError(f"--size is {size}.", "An image has 8 pixels a side or more.")
    if pixel is not None and not (math.isfinite(pixel) and pixel > 0):
        raise ConfigError(f"--pixel is {pixel:g}.", "It is a length above 0.")
    proposed = beam.size is not None and beam.pixel is not None and size is None and pixel is None
    if proposed:
        size, pixel = beam.size, beam.pixel
    width = object_width(sinogram) if sinogram.covered >= ENOUGH else seen_width(sinogram)
    least = beam.pixel or beam.pitch / beam.magnification
    if pixel is None and size is None:
        size = min(LARGEST_IMAGE, math.ceil(width / least / SIDE_STEP) * SIDE_STEP)
        pixel = max(least, width / size)
    elif pixel is None:
        assert size is not None
        pixel = width / size
    elif size is None:
        size = math.ceil(width / pixel / SIDE_STEP) * SIDE_STEP
    assert size is not None
    if beam.source is not None and beam.source <= math.sqrt(0.5) * size * pixel:
        raise ConfigError(
            f"An image of {size} pixels of {pixel:g} {beam.unit} reaches the source.",
            f"That is {beam.source:g} {beam.unit} from the axis.",
            "Use a smaller --size or --pixel, or give all lengths of the geometry in one unit.",
        )
    return size, float(pixel)


def seen_width(sinogram: Sinogram) -> float:
    """How wide a square the detectors see at the axis."""
    return sinogram.detectors * sinogram.beam.pitch / sinogram.beam.magnification


def object_width(sinogram: Sinogram) -> float:
    """How wide a square about the axis holds all that the rays show, at most `seen_width` of a detector that is centred."""
    rays = sinogram.data.reshape(-1, sinogram.detectors)
    strong = float(np.percentile(rays, 99.5))
    level = np.quantile(rays, 0.98, axis=0)  # seen in many views, not one bad detector's or view's
    smooth = np.convolve(np.pad(level, 2, mode="edge"), np.ones(5) / 5, "valid")
    inside = np.flatnonzero(smooth > FAINT * strong)
    if not len(inside):
        return seen_width(sinogram)
    off = (
        max(abs(inside[0] - 0.5 - sinogram.axis), abs(inside[-1] + 0.5 - sinogram.axis)) * sinogram.beam.pitch
    )
    if sinogram.beam.source is not None and sinogram.beam.detector is not None:
        off = sinogram.beam.source * math.sin(math.atan2(off, sinogram.beam.detector))
    return 2 * MARGIN * off
