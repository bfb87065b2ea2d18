"""Noise levels: decreasing lists of Python floats ``sigma_0 > ... > sigma_n = 0``. Nothing else is a schedule."""

from __future__ import annotations

import math
from itertools import pairwise

from .errors import ConfigError


def karras(steps: int, sigma_max: float = 80.0, sigma_min: float = 0.002, rho: float = 7.0) -> list[float]:
    """``(smax^(1/rho) + i/(n-1) (smin^(1/rho) - smax^(1/rho)))^rho``, n = steps levels, then 0.

    Karras et al. 2022, eq. 5.
    """
    check(steps, sigma_max, sigma_min)
    if steps == 1:
        return [float(sigma_max), 0.0]
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [(high + i / (steps - 1) * (low - high)) ** rho for i in range(steps)] + [0.0]


def exponential(steps: int, sigma_max: float = 80.0, sigma_min: float = 0.002) -> list[float]:
    """Uniform in ``ln sigma`` (in half log-SNR), then 0."""
    check(steps, sigma_max, sigma_min)
    if steps == 1:
        return [float(sigma_max), 0.0]
    high, low = math.log(sigma_max), math.log(sigma_min)
    return [math.exp(high + i / (steps - 1) * (low - high)) for i in range(steps)] + [0.0]


def linear(steps: int, sigma_max: float = 80.0, sigma_min: float = 0.002) -> list[float]:
    """Uniform in sigma, then 0."""
    check(steps, sigma_max, sigma_min)
    if steps == 1:
        return [float(sigma_max), 0.0]
    return [sigma_max + i / (steps - 1) * (sigma_min - sigma_max) for i in range(steps)] + [0.0]


GRIDS = {"karras": karras, "exponential": exponential, "linear": linear}


def check(steps: int, sigma_max: float, sigma_min: float) -> None:
    if steps < 1:
        raise ConfigError(f"A grid of {steps} steps.", "At least one step is needed.", "Use steps=20.")
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ConfigError(
            f"A grid from sigma {sigma_max} to {sigma_min}.",
            "Noise levels fall from sigma_max to sigma_min > 0.",
            "Choose a start above the prior's smallest level.",
        )


def validated(grid) -> list[float]:
    """A user's own grid as floats; refused unless finite, strictly falling, and not negative."""
    levels = [float(sigma) for sigma in grid]
    falling = all(a > b for a, b in pairwise(levels))
    if len(levels) < 2 or not falling or levels[-1] < 0 or not math.isfinite(levels[0]):
        raise ConfigError(
            f"The grid {levels[:4]}{'...' if len(levels) > 4 else ''} cannot be walked.",
            "A grid is at least two finite levels that fall strictly and end at 0 or above.",
            "See recon.grids.karras for one that works.",
        )
    return levels
