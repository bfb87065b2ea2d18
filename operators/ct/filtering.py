"""Filtered back-projection of parallel and fan beams, and Feldkamp's (FDK) of a cone beam."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..fft import irfft, rfft
from .geometry import ScanGeometry


def filtered_back_projection(geometry: ScanGeometry, y: Tensor) -> Tensor:
    """y (B, views, rows, detectors) in pixels -> (B, slices, size, size).

    ``f(p) = sum_a w_a U_a(p)^-2 (h * c y_a)(s_a(p))``, h the band-limited ramp (Kak and Slaney, chapter 3, equation
    61), ``s_a(p)`` the shadow of p, between detectors by linear interpolation, ``w_a`` the arc that a view stands for. In
    a diverging beam c is the cosine of each ray to the central one (section 3.4.2; Feldkamp, Davis and Kress
    1984), U the depth of p over that of the axis, and rays measured twice count once (`redundancy`).
    """
    g = geometry
    count = 2 ** math.ceil(math.log2(2 * g.detectors))
    tap = torch.fft.fftfreq(count, 1 / count, dtype=torch.float64)
    ramp = torch.where(tap % 2 == 1, -1 / (math.pi * tap).square(), 0.0)
    ramp[0] = 0.25
    turns = view_weights(g.angles, 360 if g.diverging else 180)
    if g.diverging:
        near = g.source / g.detector  # detectors as seen at the axis
        tilt = g.detector / torch.sqrt(g.detector**2 + g.places**2 + g.heights[:, None] ** 2)
        y = y * (tilt * redundancy(g)[:, None]).to(y)
    else:
        near = 1.0
    response = rfft(ramp).real.to(y) / (near * g.pitch)
    filtered = irfft(rfft(y, count) * response, count)[..., : g.detectors] * turns.to(y)[:, None, None]

    line = torch.arange(g.size, dtype=torch.float64) - (g.size - 1) / 2
    height = torch.arange(g.slices, dtype=torch.float64) - (g.slices - 1) / 2
    image = y.new_zeros(len(y), g.slices, g.size, g.size)
    for view in range(len(g.angles)):
        place, depth = geometry.of_views([view]).seen(line, -line[:, None])
        place, depth = place[0].to(y), depth[0].to(y)
        data = filtered[:, view]
        if g.beam == "cone":
            panel = height.to(y)[:, None, None] * (g.detector / g.source / g.pitch) / depth + (g.rows - 1) / 2
            seen = between(data, panel, place.expand_as(panel))
        else:
            seen = between(data, torch.zeros_like(place), place)[:, None]
        image += seen / depth.square()
    return image


def between(data: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Bilinear interpolation of data (B, rows, columns) at places (...), 0 outside: (B, ...)."""
    rows, columns = data.shape[-2:]
    top, left = row.floor(), column.floor()
    total = torch.zeros((), dtype=data.dtype, device=data.device)
    for down in (0, 1) if rows > 1 else (0,):
        for right in (0, 1):
            r, c = top + down, left + right
            weight = (1 - (row - r).abs()) * (1 - (column - c).abs())
            inside = (r >= 0) & (r < rows) & (c >= 0) & (c < columns)
            index = r.clamp(0, rows - 1).long() * columns + c.clamp(0, columns - 1).long()
            total = total + weight * inside * data.flatten(1)[:, index]
    return total


def view_weights(angles: Sequence[float], period: float = 180.0) -> Tensor:
    """The arc, in radians, that each view stands for, of views that repeat after ``period`` degrees.

    A gap wider than two usual ones is not covered.
    """
    order = torch.tensor(angles, dtype=torch.float64).remainder(period)
    place = order.argsort()
    ordered = order[place]
    gap = torch.cat((ordered[1:], ordered[:1] + period)) - ordered
    usual = gap[gap > 0].median()
    gap = torch.where(gap > 2 * usual, usual, gap)
    weights = torch.empty_like(ordered)
    weights[place] = torch.deg2rad(gap + gap.roll(1)) / 2
    return weights


def redundancy(geometry: ScanGeometry) -> Tensor:
    """Weights (views, detectors) of a diverging beam, with which each line counts once.

    1/2 over a full turn; below half a turn 1, since no line is measured twice; between them Parker's weights (Medical
    Physics 1982), their fan angle being what the arc is wider than half a turn by (Silver, Medical Physics 2000).
    """
    degrees = torch.tensor(geometry.angles, dtype=torch.float64).remainder(360)
    ordered = degrees.sort().values
    gaps = torch.cat((ordered[1:], ordered[:1] + 360)) - ordered
    usual = gaps.median()
    widest = gaps.argmax()
    arc = math.radians(float(360 - gaps[widest] + usual)) if gaps[widest] > 2 * usual else 2 * math.pi
    views, fan = len(degrees), geometry.fan
    if arc >= 2 * math.pi:
        return torch.full((views, len(fan)), 0.5, dtype=torch.float64)
    if arc <= math.pi:
        return torch.ones(views, len(fan), dtype=torch.float64)
    first = ordered[(widest + 1) % views] - usual / 2
    turn = torch.deg2rad((degrees - first).remainder(360))[:, None]
    wide = (arc - math.pi) / 2
    fan = fan.clamp(-wide, wide)
    tiny = torch.finfo(torch.float64).tiny
    rising = torch.sin(math.pi / 4 * turn / (wide + fan).clamp_min(tiny)).square()
    falling = torch.sin(math.pi / 4 * (arc - turn) / (wide - fan).clamp_min(tiny)).square()
    return torch.where(turn < 2 * (wide + fan), rising, torch.where(turn > math.pi + 2 * fan, falling, 1.0))
