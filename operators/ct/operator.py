"""Computed tomography: line integrals of an image or volume along the rays of a scan, with its exact adjoint."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base import Linear, is_cache
from ..errors import OperatorError
from .filtering import filtered_back_projection
from .gathered import Gathered
from .geometry import ScanGeometry
from .product import Product
from .stored import PADDING, csr, matrices, sparse_product

MOST_STORED = 60_000_000  # weights, of about 16 bytes, that are stored at most
MANY_VIEWS = 12  # of which a real scan has few within 2 pi degrees
BACKENDS = ("auto", "stored", "gathered")


class CT(Linear):
    """``y[a, d]`` = integral of x along the ray from view a to detector d.

    ``geometry``: "parallel", "fan" or "cone", a flat detector in each, on a circular orbit. At angle a, in degrees,
    the detector lies along ``(cos a, sin a)``, u running along the columns of the image and v up its rows from its
    middle, the rotation axis; rays run along ``(-sin a, cos a)``, in a diverging beam from a point at distance
    ``source`` before the axis to the detector at distance ``detector`` from it. ``detectors`` lie
    ``pitch`` apart (a pixel by default; in a diverging beam what a pixel at the axis casts its shadow on), as many as see
    the whole image by default; the axis falls on detector ``axis``, counted from 0, which need not be whole; the middle
    ``(detectors - 1) / 2`` by default. A cone beam has ``rows`` of detectors, and sees a volume of ``slices``. All
    lengths, ``pixel`` (the side of a pixel) among them, are in one unit, and the image is per that unit.

    Domain (1, size, size), codomain (1, views, detectors); of a cone beam (1, slices, size, size) and
    (1, views, rows, detectors); real. The weights are Joseph's (`joseph`). ``backend``: "stored" keeps ``A`` and
    ``A^T`` as sparse matrices, of 16 bytes a weight, on disk too (`cache`); images must then have the operator's dtype:
    convert it with ``.to``. "gathered" keeps nothing, and is compiled where a C++ compiler is there. "auto" stores up to
    60 million weights of a plane. Raises `OperatorError` for a geometry that no scan has; warns of angles that look
    like radians.
    """

    def __init__(
        self,
        size: int,
        angles: Sequence[float] | Tensor,
        geometry: str = "parallel",
        detectors: int | None = None,
        *,
        pitch: float | None = None,
        axis: float | None = None,
        source: float | None = None,
        detector: float | None = None,
        pixel: float = 1.0,
        slices: int | None = None,
        rows: int | None = None,
        backend: str = "auto",
    ):
        if not (math.isfinite(pixel) and pixel > 0):
            raise OperatorError(f"A pixel is {pixel} wide.", "It is a positive length.")
        if backend not in BACKENDS:
            raise OperatorError(f"CT has no backend {backend!r}.", f"There are {', '.join(BACKENDS)}.")
        if geometry != "cone" and (slices is not None or rows is not None):
            raise OperatorError(
                f"A {geometry} beam was given slices or rows.",
                "It sees one slice with one row of detectors.",
                "Use geometry='cone', or stack the slices: op.Stacked(A, slices).",
            )
        diverging = geometry != "parallel"
        if not diverging and (source is not None or detector is not None):
            raise OperatorError(
                "A parallel beam was given the distance of a source or detector.",
                "Its rays have no origin.",
                "Use geometry='fan' or 'cone'.",
            )
        magnification = detector / source if source and detector else 1.0
        step = magnification if pitch is None else pitch / pixel
        reach = math.sqrt(2) * size
        if diverging and source and source / pixel > reach:  # rays that touch the image's corners are slanted
            reach /= math.sqrt(1 - (reach / 2 * pixel / source) ** 2)
        if detectors is None:
            detectors = math.ceil(reach * magnification / step) if step > 0 else 1
        self.angles = tuple(torch.as_tensor(angles, dtype=torch.float64).flatten().tolist())
        if len(self.angles) >= MANY_VIEWS and max(map(abs, self.angles)) <= 2 * math.pi:
            warnings.warn(
                f"CT was given {len(self.angles)} angles within {max(self.angles) - min(self.angles):.2g} degrees. "
                "If they are radians, convert them: torch.rad2deg(angles).",
                stacklevel=2,
            )
        self.geometry = ScanGeometry(
            geometry,
            size,
            self.angles,
            detectors,
            step,
            (detectors - 1) / 2 if axis is None else float(axis),
            math.inf if source is None else source / pixel,
            math.inf if detector is None else detector / pixel,
            1 if slices is None else slices,
            (1 if slices is None else slices) if rows is None else rows,
        )
        self.size, self.detectors, self.pixel = size, detectors, float(pixel)
        volume = geometry == "cone"
        self.domain = (1, self.geometry.slices, size, size) if volume else (1, size, size)
        count = len(self.angles) * detectors * size * 2
        if backend == "stored" and volume:
            raise OperatorError(
                "The weights of a cone beam are not stored.", "They are too many.", "Use 'gathered'."
            )
        self.stored = backend == "stored" or (backend == "auto" and not volume and count <= MOST_STORED)
        if self.stored:
            self.matrix, self.transpose = matrices(self.geometry)
        else:
            self.gathered = Gathered(self.geometry)

    @property
    def sinogram_shape(self) -> tuple[int, ...]:
        """Shape of one measurement."""
        views, g = len(self.angles), self.geometry
        return (1, views, g.rows, g.detectors) if g.beam == "cone" else (1, views, g.detectors)

    def forward(self, x: Tensor) -> Tensor:
        self._require_dtype(x)
        return Product.apply(x, self._project, self._backproject)

    def adjoint(self, y: Tensor) -> Tensor:
        self._require_dtype(y)
        return Product.apply(y, self._backproject, self._project)

    def _project(self, x: Tensor) -> Tensor:
        if self.stored:
            return self.pixel * sparse_product(self.matrix, F.pad(x, (0, PADDING)).flatten(1)).view(
                len(x), *self.sinogram_shape
            )
        volumes = x.view(len(x), *self.domain[-3:])
        return self.pixel * self.gathered.forward(volumes).view(len(x), *self.sinogram_shape)

    def _backproject(self, y: Tensor) -> Tensor:
        if self.stored:
            image = sparse_product(self.transpose, y.flatten(1)).view(
                len(y), 1, self.size, self.size + PADDING
            )
            return self.pixel * image[..., : self.size]
        return self.pixel * self.gathered.adjoint(y.reshape(len(y), *self.gathered.shape)).view(
            len(y), *self.domain
        )

    def _require_dtype(self, x: Tensor) -> None:
        if self.stored and x.dtype != self.matrix.dtype:
            raise OperatorError(
                f"CT holds {self.matrix.dtype} weights and was given {x.dtype} data.",
                "Converting the matrix at each call would cost far more than the projection.",
                "Convert the operator once, A.to(x.dtype), or the data.",
            )

    def fbp(self, y: Tensor) -> Tensor:
        """Filtered back-projection, Feldkamp's of a cone beam (`filtering`): (B, *codomain) -> (B, *domain)."""
        y = y.view(len(y), len(self.angles), self.geometry.rows, self.detectors) / self.pixel
        return filtered_back_projection(self.geometry, y).view(len(y), *self.domain)

    def of_views(self, keep: Tensor) -> CT:
        """The scan of a part of the views, marked (views,) bool, from the same stored weights."""
        other = copy.copy(self)
        for name in [n for n in vars(other) if is_cache(type(self), n)]:
            del other.__dict__[name]
        other.geometry = self.geometry.of_views(keep.nonzero()[:, 0].tolist())
        other.angles = other.geometry.angles
        if not self.stored:
            other.gathered = Gathered(other.geometry)
            return other
        keep = keep.to(self.device)
        new = keep.cumsum(0) - 1

        starts, column, value = parts_of_csr(self.matrix)
        counts = starts.diff()
        rows = keep.repeat_interleave(self.detectors)
        entries = rows.repeat_interleave(counts)
        other.matrix = csr(ends(counts[rows]), column[entries], value[entries], self.matrix.shape[1])

        starts, column, value = parts_of_csr(self.transpose)
        entries = keep[column // self.detectors]
        before = F.pad(entries.cumsum(0), (1, 0))
        column = column[entries].long()
        column = new[column // self.detectors] * self.detectors + column % self.detectors
        width = len(other.angles) * self.detectors
        other.transpose = csr(ends(before[starts].diff()), column.to(torch.int32), value[entries], width)
        return other


def ends(counts: Tensor) -> Tensor:
    """Where rows of so many entries end, int32 (rows + 1,)."""
    return F.pad(counts.cumsum(0), (1, 0)).to(torch.int32)


def parts_of_csr(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Row starts (int64), columns and values of a CSR matrix."""
    return matrix.crow_indices().long(), matrix.col_indices(), matrix.values()
