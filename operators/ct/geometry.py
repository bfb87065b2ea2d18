"""Where the rays of a scan run: parallel beam, fan beam and cone beam, each with a flat detector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import OperatorError

BEAMS = ("parallel", "fan", "cone")


class Rays(NamedTuple):
    """The ray of each view and detector, followed along the axis of the image that it is closest to; all (views, detectors).

    At row (or column, where ``columns``) i of the image it crosses column (row) ``start + slope i``, at a distance from
    the source, over that of the detector, of ``near + step i``; indices run from 0, and need not be whole.
    """

    start: Tensor
    slope: Tensor
    columns: Tensor
    near: Tensor
    step: Tensor


@dataclass(frozen=True)
class ScanGeometry:
    """A scan of ``size x size`` pixels (``slices`` of them in a cone beam), all lengths in pixels.

    ``angles`` in degrees. At angle a the detector lies along ``(cos a, sin a)``, u to the right and v up; the source of a
    diverging beam is at ``source (sin a, -cos a)``, the detector at distance ``detector`` from it. ``axis``: the index of
    the detector that the rotation axis falls on, ``pitch``: the distance of detectors, in both directions of a
    flat panel with ``rows``, whose middle row is in the plane of the source.
    """

    beam: str
    size: int
    angles: tuple[float, ...]
    detectors: int
    pitch: float
    axis: float
    source: float = math.inf
    detector: float = math.inf
    slices: int = 1
    rows: int = 1

    def __post_init__(self):
        if self.beam not in BEAMS:
            raise OperatorError(f"CT has no geometry {self.beam!r}.", f"There are {', '.join(BEAMS)}.")
        if self.size < 1 or not self.angles or not all(map(math.isfinite, self.angles)):
            raise OperatorError(
                f"CT was given size {self.size} and {len(self.angles)} angles.",
                "It takes a positive size and at least one finite angle, in degrees.",
            )
        if not all(n >= 1 for n in (self.detectors, self.slices, self.rows)):
            raise OperatorError(
                f"CT was given {self.detectors} detectors, {self.rows} rows of them and {self.slices} slices.",
                "There is at least one of each.",
            )
        if not (math.isfinite(self.pitch) and self.pitch > 0 and math.isfinite(self.axis)):
            raise OperatorError(
                f"CT was given detectors {self.pitch:g} pixels apart, the axis on detector {self.axis:g}.",
                "A distance is positive, and both are finite.",
            )
        if not self.diverging:
            return
        if not (math.isfinite(self.source) and math.isfinite(self.detector)):
            raise OperatorError(
                f"A {self.beam} beam was given no distances.",
                "Its rays start at a point.",
                "Give source (to the axis) and detector (from the source), in the unit of pixel.",
            )
        if not self.detector > self.source > self.reach:
            raise OperatorError(
                f"The source is {self.source:g} pixels from the axis and {self.detector:g} from the detector.",
                f"The image reaches {self.reach:.0f} pixels from the axis; it lies between source and detector.",
                "Give all lengths in one unit, pixel among them.",
            )
        if self.slices / 2 > self.source - self.reach:
            raise OperatorError(
                f"A volume of {self.slices} slices is seen from {self.source:g} pixels.",
                "Rays that are steeper than 45 degrees are not followed.",
                "Reconstruct fewer slices, or check the unit of the distances.",
            )

    def of_views(self, views: Sequence[int]) -> ScanGeometry:
        """The scan of some of the views, by index."""
        return replace(self, angles=tuple(self.angles[view] for view in views))

    @property
    def diverging(self) -> bool:
        """Whether rays start at a point."""
        return self.beam != "parallel"

    @property
    def reach(self) -> float:
        """How far the corners of the image are from the axis, and a pixel more."""
        return math.sqrt(0.5) * self.size + 1

    @property
    def turns(self) -> Tensor:
        """The angles (views,) in radians, float64."""
        return torch.deg2rad(torch.tensor(self.angles, dtype=torch.float64))

    @property
    def places(self) -> Tensor:
        """Where detectors are along the detector, from the axis's shadow (detectors,)."""
        return (torch.arange(self.detectors, dtype=torch.float64) - self.axis) * self.pitch

    @property
    def heights(self) -> Tensor:
        """How high each row of the detector is above the plane of the source (rows,)."""
        return (torch.arange(self.rows, dtype=torch.float64) - (self.rows - 1) / 2) * self.pitch

    def rays(self) -> Rays:
        """Every ray of the plane of the source, float64."""
        middle = (self.size - 1) / 2
        cos, sin = self.turns.cos()[:, None], self.turns.sin()[:, None]
        place = self.places
        if self.diverging:
            u, v = self.source * sin, -self.source * cos
            across, up = place * cos - self.detector * sin, place * sin + self.detector * cos
        else:
            u, v, across, up = place * cos, place * sin, -sin, cos
        column, row, down = u + middle, middle - v, -up
        column, row, across, down = torch.broadcast_tensors(column, row, across, down)
        by_columns = across.abs() > down.abs()
        along, cross = torch.where(by_columns, across, down), torch.where(by_columns, down, across)
        first, other = torch.where(by_columns, column, row), torch.where(by_columns, row, column)
        slope, step = cross / along, 1 / along
        return Rays(other - slope * first, slope, by_columns, -step * first, step)

    def seen(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Where points (u, v) cast their shadow, as detector indices (views, ...), and their depth over that of the axis."""
        turn = self.turns.to(u).view(-1, *[1] * max(u.ndim, v.ndim))
        lateral = u * turn.cos() + v * turn.sin()
        if not self.diverging:
            return lateral / self.pitch + self.axis, torch.ones_like(lateral)
        depth = 1 + (v * turn.cos() - u * turn.sin()) / self.source
        return self.detector / self.source * lateral / depth / self.pitch + self.axis, depth

    @property
    def spread(self) -> float:
        """How far, in detectors, the ray through a pixel's neighbour can be from that through the pixel, at most."""
        if not self.diverging:
            return 1 / self.pitch
        slant = self.reach / math.sqrt(self.source**2 - self.reach**2)
        return self.detector / (self.source - self.reach) * math.hypot(1, slant) / self.pitch

    @property
    def nearest(self) -> float:
        """The depth of the image's point that is closest to the source, over that of the detector; 1 of a parallel beam."""
        return (self.source - self.reach) / self.detector if self.diverging else 1.0

    @property
    def steepness(self) -> Tensor:
        """(views, detectors): how far, across the rows that it is followed along, a ray is from a point whose shadow is
        one detector from it, over the depth of the point in pixels (over 1 of a parallel beam)."""
        cos, sin = self.turns.cos()[:, None], self.turns.sin()[:, None]
        place = self.places
        if not self.diverging:
            return self.pitch / torch.maximum(cos.abs(), sin.abs()).expand(-1, self.detectors)
        across, up = place * cos - self.detector * sin, place * sin + self.detector * cos
        return self.pitch / torch.maximum(across.abs(), up.abs())

    @property
    def fan(self) -> Tensor:
        """The angle of each detector's ray to the central one (detectors,), in radians."""
        return torch.atan2(self.places, torch.tensor(self.detector, dtype=torch.float64))
