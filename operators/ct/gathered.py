"""CT without stored weights: each ray gathers its pixels, and each pixel its rays, by one formula (`joseph`).

Nothing is written to one place twice, so products are the same on every run, and may be compiled.
"""

from __future__ import annotations

import logging
import math
import shutil
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .geometry import Rays, ScanGeometry
from .joseph import ray_lengths, weight

GATHERED_AT_ONCE = 2**22  # numbers of an intermediate result at once, where nothing is compiled
WORTH_COMPILING = (
    2**22
)  # crossings of rays with rows of pixels, from which on compiling, a second or two, pays


class Gathered:
    """The products of one geometry with volumes (B, slices, size, size) and sinograms (B, views, rows, detectors)."""

    def __init__(self, geometry: ScanGeometry, compiled: bool | None = None):
        self.geometry = geometry
        count = len(geometry.angles) * geometry.rows * geometry.detectors * geometry.size
        self.compiled = (
            count >= WORTH_COMPILING and shutil.which("g++") is not None if compiled is None else compiled
        )
        self.rays = geometry.rays()
        self.shadows = shadows(geometry)
        self.steepness = geometry.steepness

    def forward(self, x: Tensor) -> Tensor:
        """``A x`` in pixels, in the precision and on the device of x."""
        return torch.stack([self.project(volume) for volume in x]) if len(x) else x.new_zeros(0, *self.shape)

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^T y``."""
        g = self.geometry
        shape = g.slices, g.size, g.size
        return torch.stack([self.backproject(one) for one in y]) if len(y) else y.new_zeros(0, *shape)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Views, rows of the detector, detectors."""
        return len(self.geometry.angles), self.geometry.rows, self.geometry.detectors

    def chunks(self, like: Tensor, *tables: Tensor, per_view: int) -> zip:
        """The tables of so many views at a time as fit, like the data."""
        views = len(self.geometry.angles) if self.compiled else max(1, GATHERED_AT_ONCE // per_view)
        return zip(
            *(
                table.to(like.device, table.dtype if table.dtype == torch.bool else like.dtype).split(views)
                for table in tables
            ),
            strict=True,
        )

    def project(self, x: Tensor) -> Tensor:
        """The rays through one volume."""
        g = self.geometry
        volume = g.beam == "cone"
        planes = torch.stack((x, x.mT))  # followed along rows, and along columns
        planes = F.pad(planes, (1, 2, 0, 0, 1, 2) if volume else (1, 2))
        gather = fastest(rays_of_volume if volume else rays_of_plane, self.compiled)
        heights = g.heights.to(x)
        per_view = g.rows * g.detectors * g.size
        parts = [gather(planes, heights, *some) for some in self.chunks(x, *self.rays, per_view=per_view)]
        return torch.cat(parts) * ray_lengths(as_like(self.rays, x), heights)

    def backproject(self, y: Tensor) -> Tensor:
        """The volume whose voxels gather one sinogram."""
        g = self.geometry
        rays, heights = as_like(self.rays, y), g.heights.to(y)
        across, up = math.ceil(2 * g.spread), math.ceil(2 / (g.nearest * g.pitch))
        y = F.pad(y * ray_lengths(rays, heights), (across, across))
        fans = F.pad(self.steepness, (across, across))
        total = y.new_zeros(g.slices, g.size, g.size)
        if g.beam == "cone":
            y = F.pad(y, (0, 0, up, up))
            tables = [
                F.pad(table, (across, across), value=1.0) for table in (rays.columns, rays.near, rays.step)
            ]
            gather, extent = fastest(voxels, self.compiled), (g.slices, g.size, across, up, g.pitch)
        else:
            tables, gather = [], fastest(pixels, self.compiled)
            extent = g.size, across, g.diverging
        numbers = g.spread, g.axis
        for some in self.chunks(y, y, self.shadows, fans, *tables, per_view=g.slices * g.size**2):
            total = total + gather(*numbers, *extent, *some)
        return total


def as_like(rays: Rays, x: Tensor) -> Rays:
    """The tables in the precision and on the device of x."""
    return Rays(
        *(table.to(x.device, table.dtype if table.dtype == torch.bool else x.dtype) for table in rays)
    )


def shadows(geometry: ScanGeometry) -> Tensor:
    """(views, 6): ``l``, ``l_c``, ``l_r``, ``w``, ``w_c``, ``w_r`` of each view; pixel (row r, column c) is seen by
    detector ``(l + l_c c + l_r r) / (w + w_c c + w_r r) + axis``."""
    cos, sin, middle = geometry.turns.cos(), geometry.turns.sin(), (geometry.size - 1) / 2
    scale = geometry.detector / geometry.pitch if geometry.diverging else 1 / geometry.pitch
    lateral = scale * middle * (sin - cos), scale * cos, -scale * sin
    if not geometry.diverging:
        return torch.stack((*lateral, torch.ones_like(cos), 0 * cos, 0 * cos), 1)
    return torch.stack((*lateral, geometry.source + middle * (cos + sin), -sin, -cos), 1)


def rays_of_plane(
    planes: Tensor, heights: Tensor, start: Tensor, slope: Tensor, columns: Tensor, near: Tensor, step: Tensor
) -> Tensor:
    """Sums of interpolated pixels along each ray of a slice, padded (2, 1, size, size + 3): (views, 1, detectors)."""
    size = planes.shape[-2]
    line = torch.arange(size, dtype=torch.int32, device=planes.device)
    crossing = (start[..., None] + slope[..., None] * line).clamp(-1, size)
    left = crossing.floor()
    index = (columns.int()[..., None] * size + line) * (size + 3) + left.int() + 1
    values = planes.flatten()
    pixel = values[index]
    return (pixel + (crossing - left) * (values[index + 1] - pixel)).sum(-1)[:, None]


def rays_of_volume(
    planes: Tensor, heights: Tensor, start: Tensor, slope: Tensor, columns: Tensor, near: Tensor, step: Tensor
) -> Tensor:
    """The same of a volume, padded (2, slices + 3, size, size + 3): (views, rows, detectors)."""
    size, slices = planes.shape[-2], planes.shape[1] - 3
    line = torch.arange(size, device=planes.device)
    crossing = (start[..., None] + slope[..., None] * line).clamp(-1, size)[:, None]
    height = (near[..., None] + step[..., None] * line)[:, None] * heights[:, None, None] + (slices - 1) / 2
    height = height.clamp(-1, slices)
    left, below = crossing.floor(), height.floor()
    right, above = crossing - left, height - below
    plane = columns[:, None, :, None] * (slices + 3) + below.long() + 1
    index = (plane * size + line) * (size + 3) + left.long() + 1
    values, up = planes.flatten(), size * (size + 3)
    lower = (1 - right) * values[index] + right * values[index + 1]
    upper = (1 - right) * values[index + up] + right * values[index + up + 1]
    return ((1 - above) * lower + above * upper).sum(-1)


def pixels(
    spread: float,
    axis: float,
    size: int,
    across: int,
    fan: bool,
    y: Tensor,
    shadow: Tensor,
    steepness: Tensor,
) -> Tensor:
    """Each pixel's sum over the rays that pass it, of y (views, 1, detectors + 2 across): (1, size, size).

    A ray ``k`` detectors from a pixel's shadow passes it at ``d = k depth steepness``.
    """
    line = torch.arange(size, dtype=y.dtype, device=y.device)
    middle, depth = shadow_of(shadow, line[:, None, None], line[:, None], fan)
    first, index = first_detector(middle + axis, spread, across, y.shape[-1])
    aside, values, steep = first - (middle + axis), y.flatten(), steepness.flatten()
    total = torch.zeros((), dtype=y.dtype, device=y.device)
    for k in range(across):
        scale = depth * steep[index + k] if fan else steepness[:, across]
        total = total + weight((aside + k) * scale) * values[index + k]
    return total.sum(-1)[None]


def voxels(
    spread: float,
    axis: float,
    slices: int,
    size: int,
    across: int,
    up: int,
    pitch: float,
    y: Tensor,
    shadow: Tensor,
    steepness: Tensor,
    columns: Tensor,
    near: Tensor,
    step: Tensor,
) -> Tensor:
    """The same of y (views, rows + 2 up, detectors + 2 across): (slices, size, size)."""
    panels, wide = y.shape[-2:]
    rows = panels - 2 * up
    line = torch.arange(size, dtype=y.dtype, device=y.device)
    row, column = line[:, None, None], line[:, None]
    height = (torch.arange(slices, dtype=y.dtype, device=y.device) - (slices - 1) / 2)[:, None, None, None]
    middle, depth = shadow_of(shadow, row, column, True)
    first, index = first_detector(middle + axis, spread, across, wide)
    aside, values = first - (middle + axis), y.flatten()
    view = torch.arange(len(y), device=y.device)
    steep, by_columns, close, further = (table.flatten() for table in (steepness, columns, near, step))
    total = torch.zeros((), dtype=y.dtype, device=y.device)
    for k in range(across):
        ray = index + k
        beside = weight((aside + k) * depth * steep[ray])
        line_of_ray = torch.where(by_columns[ray], column, row)
        rise = (
            close[ray] + further[ray] * line_of_ray
        ) * pitch  # from one row of the detector to the next, here
        middle_row = (height / rise) + (rows - 1) / 2
        lowest = ((height - 1) / rise + (rows - 1) / 2).floor().add(1).clamp(-up, rows)
        place = (view * panels + lowest.long() + up) * wide + (ray - view * wide)
        for r in range(up):
            above = weight((lowest + r - middle_row) * rise)
            total = total + beside * above * values[place + r * wide]
    return total.sum(-1)


def shadow_of(shadow: Tensor, row: Tensor, column: Tensor, fan: bool) -> tuple[Tensor, Tensor]:
    """Where pixels are seen, from the axis's detector, and their depth (size, size, views), in pixels or 1 of a parallel beam."""
    place, by_column, by_row, depth, deeper_by_column, deeper_by_row = shadow.unbind(1)
    lateral = place + by_column * column + by_row * row
    if not fan:
        return lateral, depth
    depth = depth + deeper_by_column * column + deeper_by_row * row
    return lateral / depth, depth


def first_detector(middle: Tensor, spread: float, across: int, wide: int) -> tuple[Tensor, Tensor]:
    """The first detector whose ray can pass within a pixel of each pixel's centre, and its index in padded tables."""
    first = ((middle - spread).floor() + 1).clamp(-across, wide - 2 * across)
    view = torch.arange(middle.shape[-1], dtype=torch.int32, device=middle.device)
    return first, view * wide + (first.int() + across)


@cache
def fastest(product: Callable[..., Tensor], compiled: bool) -> Callable[..., Tensor]:
    """The product compiled, or as it is; also where the compiler turns out not to work."""
    if not compiled:
        return product
    logging.getLogger("torch.utils.cpp_extension").setLevel(
        logging.ERROR
    )  # it misses a GPU that is not needed
    faster = torch.compile(product, dynamic=False)  # half as fast without the sizes

    def either(*given: Any) -> Tensor:
        nonlocal faster
        try:
            with torch._dynamo.config.patch(recompile_limit=2**16):  # one for each geometry
                return faster(*given)
        except Exception as error:
            if faster is product:
                raise
            reason = str(error).strip().splitlines() or ["no reason was given"]
            warnings.warn(
                f"The products of CT are not compiled, and several times slower: {type(error).__name__}, {reason[0]}. "
                "Install a C++ compiler that works (g++).",
                stacklevel=2,
            )
            faster = product
            return faster(*given)

    return either
