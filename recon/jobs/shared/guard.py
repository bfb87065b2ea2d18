"""Whether samples explain the measurements: the one sign that nearly every mistake about a file shows."""

from __future__ import annotations

import math

from ...mri import SliceResult

HIGH = 1.6  # of good scans and simulations .8 to 1.4, with 2 to 4 central lines' maps too
LOW = 0.5


def doubt_of(result: SliceResult, floor: float) -> str:
    """What is doubtful about a slice whose `SliceResult.residual` is far from 1, and why it may be; empty if nothing.

    ``floor``: the least noise that is presumed, relative to the image (`Recipe.sigma_floor`). Where it is presumed,
    samples may well be closer to the measurements than that.
    """
    floored = result.sigma_y <= floor * result.scale * (1 + 1e-6)
    if not math.isfinite(result.residual) or result.residual > HIGH:
        return (
            f"the samples are {result.residual:.2g} times as far from the measurements as noise of {result.sigma_y:.3g} "
            "is. Likely: the centre of k-space in the corner, a mask of another scan or turned by 90 degrees, maps of "
            "another scan or conjugated, too few central lines for maps, more noise than estimated, or a sampler that needs more steps. See recon inspect."
        )
    if result.residual < LOW and not floored:
        return (
            f"the samples are {result.residual:.2g} times as far from the measurements as noise of {result.sigma_y:.3g} "
            "is. Likely: less noise than estimated, zeros among the samples that the mask keeps, or a silent coil."
        )
    return ""
