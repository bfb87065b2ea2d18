"""What a file of tomography holds: line integrals, where each was measured, and how noisy it is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ...errors import ConfigError, InputError

KINDS = ("parallel", "fan", "cone")
NO_END = 1.5  # gaps between views: an arc that lacks less than this to a period has no end
TURN, HALF_TURN = 360.0, 180.0


@dataclass(frozen=True)
class Beam:
    """Where rays run, as `operators.CT` takes it; all lengths in ``unit``.

    ``kind``: parallel, fan or cone, with a flat detector. ``pitch``: distance of detectors. ``axis``: the detector,
    counted from 0, on which the rotation axis falls, None where the file does not say. ``source``: distance from
    the source to the axis, ``detector``: from the source to the detector. ``pixel`` and ``size``: of the
    image that the file itself proposes, None for none.
    """

    kind: str = "parallel"
    pitch: float = 1.0
    axis: float | None = None
    source: float | None = None
    detector: float | None = None
    unit: str = "detector"
    pixel: float | None = None
    size: int | None = None

    def __post_init__(self):
        if self.kind not in KINDS:
            raise InputError(f'There is no beam "{self.kind}".', f"Known: {', '.join(KINDS)}.")
        lengths = {"pitch": self.pitch, "source": self.source, "detector": self.detector, "pixel": self.pixel}
        for name, length in lengths.items():
            if length is not None and not (math.isfinite(length) and length > 0):
                raise InputError(
                    f"The geometry's {name} is {length:g} {self.unit}.",
                    "It is a length above 0.",
                    "Correct the geometry.",
                )
        if self.kind == "parallel":
            return
        if self.source is None or self.detector is None:
            raise InputError(
                f"The geometry of a {self.kind} beam has no distances.",
                "Its rays start at a point.",
                "Give source (to the rotation axis) and detector (from the source).",
            )
        if self.detector <= self.source:
            raise InputError(
                f"The source is {self.source:g} {self.unit} from the axis and {self.detector:g} from the detector.",
                "The axis lies between them, so the second distance is the larger one.",
                "Give source (to the axis) and detector (from the source, not from the axis).",
            )

    @property
    def magnification(self) -> float:
        """How much larger a detector is than what it sees at the axis; 1 in a parallel beam."""
        return 1.0 if self.source is None or self.detector is None else self.detector / self.source

    @property
    def period(self) -> float:
        """After how many degrees views repeat: a parallel beam sees the same lines from behind."""
        return HALF_TURN if self.kind == "parallel" else TURN


@dataclass(frozen=True, eq=False)
class Sinogram:
    """Line integrals ``data`` float32 (slices, angles, detectors), of a cone beam (angles, rows, detectors).

    ``angles`` (angles,) float64 in degrees. ``std``, of the shape of ``data`` where counts were measured: standard
    deviation of each ray, infinite where a detector says nothing; None where only an estimate is possible
    (`noise.estimated_std`). ``water``: the attenuation of water per ``beam.unit``, where the file is known to say. ``said``:
    how the data were made of the file, ``warnings``: what looks wrong, a sentence each. ``arrays``: names, shapes and
    dtypes in the file. ``neighbours``: whether the slices are rows of one detector, and so lie beside each other.
    """

    path: Path
    format: str
    data: np.ndarray
    angles: np.ndarray
    beam: Beam = field(default_factory=Beam)
    std: np.ndarray | None = None
    water: float | None = None
    said: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    arrays: tuple[str, ...] = ()
    neighbours: bool = False

    @property
    def volume(self) -> bool:
        """Whether the slices are seen together, by a cone beam."""
        return self.beam.kind == "cone"

    @property
    def slices(self) -> int:
        """Number of slices, of a cone beam of rows of the detector."""
        return self.data.shape[1] if self.volume else self.data.shape[0]

    @property
    def detectors(self) -> int:
        """Number of detectors in a row."""
        return self.data.shape[2]

    @property
    def axis(self) -> float:
        """The detector that the axis falls on: the middle one where nothing better is known."""
        return (self.detectors - 1) / 2 if self.beam.axis is None else self.beam.axis

    @property
    def gap(self) -> float:
        """The usual angle between neighbouring views, in degrees; 0 for a single view."""
        return float(np.median(np.diff(np.sort(self.angles)))) if len(self.angles) > 1 else 0.0

    @property
    def covered(self) -> float:
        """The arc that the views cover, in degrees: from the first to the last and half a gap at both ends."""
        return float(self.angles.max() - self.angles.min()) + self.gap

    def views(self, count: int) -> Sinogram:
        """``count`` of the views, as evenly spread as they come; raises `ConfigError` for more than there are."""
        if not 1 <= count <= len(self.angles):
            raise ConfigError(
                f"{self.path}: {count} views were asked for.",
                f"It has {len(self.angles)}.",
                f"Use --views 1 to {len(self.angles)}.",
            )
        order = np.argsort(self.angles, kind="stable")
        closed = any(abs(self.covered - arc) < NO_END * self.gap for arc in (HALF_TURN, TURN))
        last = len(order) if closed else len(order) - 1
        places = np.linspace(0, last, count, endpoint=not closed)
        return self._of(np.sort(order[np.floor(places + 0.5 * (not closed)).astype(int)]))

    def arc(self, first: float, last: float) -> Sinogram:
        """The views from ``first`` to ``last`` degrees; raises `ConfigError` where there are none.

        Angles are compared modulo a turn, in a parallel beam modulo half a turn.
        """
        if not (math.isfinite(first) and math.isfinite(last) and last > first):
            raise ConfigError(
                f"The arc runs from {first:g} to {last:g} degrees.",
                "It ends after it begins.",
                "Use --arc 0:90.",
            )
        period, slack = self.beam.period, 1e-6
        if last - first >= period:
            return self
        within = np.mod(self.angles - first + slack, period) <= last - first + 2 * slack
        if not within.any():
            raise ConfigError(
                f"{self.path} has no view from {first:g} to {last:g} degrees.",
                f"Its angles run from {self.angles.min():g} to {self.angles.max():g}.",
                "Choose another --arc.",
            )
        return self._of(np.flatnonzero(within))

    def part(self, first: int, last: int) -> Sinogram:
        """The slices ``first`` to ``last - 1`` alone; of a cone beam there is no part, and `ConfigError` says so."""
        if self.volume:
            raise ConfigError(
                f"{self.path}: slices {first} to {last} were asked for.",
                "The rows of a cone beam see all slices together.",
                "Leave the choice out.",
            )
        if not 0 <= first < last <= self.slices:
            raise ConfigError(
                f"{self.path}: slices {first} to {last} were asked for.",
                f"It has {self.slices}.",
                "Use fewer.",
            )
        std = None if self.std is None else self.std[first:last]
        return replace(self, data=self.data[first:last], std=std)

    def _of(self, chosen: np.ndarray) -> Sinogram:
        """The views of these indices."""

        def taken(array: np.ndarray) -> np.ndarray:
            return array[chosen] if self.volume else array[:, chosen]

        return replace(
            self,
            data=taken(self.data),
            angles=self.angles[chosen],
            std=None if self.std is None else taken(self.std),
        )
