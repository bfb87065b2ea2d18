"""Where the energy of k-space is: along an axis of frequencies in its middle, or, not fftshifted, in its corner."""

from __future__ import annotations

import numpy as np

FEWEST = 6  # samples along an axis whose centre can be told
SHARE = 0.5  # of the energy beside the largest sample, that the quarter around a centre holds
CLEARLY = 4.0  # times the energy around the other place
BALANCED = 0.5  # of the larger, the smaller of the two neighbours of a peak
SHARP = 0.5  # of the largest sample: its neighbours' energy in k-space; those of a slice hold more


def centre_of(profile: np.ndarray) -> str | None:
    """ "middle" or "corner" for the energy (n,) along an axis of frequencies, None where it peaks at neither.

    The largest sample is left out: one loud slice or coil is no peak.
    """
    n = len(profile)
    rest = np.array(profile, dtype=np.float64)
    rest[rest.argmax()] = 0
    if n < FEWEST or not rest.sum() > 0:
        return None
    width = max(1, n // 8)
    away = np.abs(np.arange(n) - n // 2)
    middle = rest[away <= width].sum() / rest.sum()
    corner = rest[away >= n // 2 - width].sum() / rest.sum()
    if middle >= SHARE and middle > CLEARLY * corner:
        return "middle"
    return "corner" if corner >= SHARE and corner > CLEARLY * middle else None


def is_encoded(profile: np.ndarray) -> bool:
    """Whether the energy (n,) along the axis of slices or coils is that of a phase encoding.

    It peaks in the middle, or in the corner, and falls off at once; neighbouring slices are alike.
    """
    if centre_of(profile) is None:
        return False
    n, peak = len(profile), int(np.argmax(profile))
    before, after = profile[(peak - 1) % n], profile[(peak + 1) % n]
    at_centre = min(abs(peak - n // 2), peak, n - peak) <= 1
    even = min(before, after) > BALANCED * max(before, after)  # compressed coils fall off to one side only
    return at_centre and even and bool(before + after < 2 * SHARP * profile[peak])


def wraps(profile: np.ndarray) -> bool:
    """Whether the energy (n,) of an image along an axis lies around its border, not in its middle."""
    n = len(profile)
    away = np.abs(np.arange(n) - n // 2)
    return n >= FEWEST and bool(profile[away >= n // 2 - n // 8].sum() > 2 * profile[away <= n // 8].sum())
