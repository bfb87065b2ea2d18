"""The points of ``recon bench curve``: one line per point in a CSV file that only grows."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..sharing import append_line, whole_lines

COMMON = (
    "file", "prior", "sampler", "sampler_options", "start", "sigma_start", "sigma_end", "samples", "seed"
)  # fmt: skip
"""What the points of one curve have in common."""
KEY = (*COMMON, "case", "solver", "solver_options", "steps")


@dataclass(frozen=True)
class Point:
    """One reconstruction and its scores in dB; ``calls`` of the network per sample, as they were counted.

    ``psnr`` and ``object_psnr`` (`metrics.scaled_psnr`, `metrics.object_psnr`) are of the mean of the
    samples, ``sample_psnr`` and ``sample_object_psnr`` the medians over single samples. A run that
    diverged has no scores and says so in ``note``.
    """

    file: str
    prior: str
    case: str
    sampler: str
    sampler_options: str
    start: str
    sigma_start: float
    sigma_end: float
    samples: int
    seed: int
    solver: str
    solver_options: str
    steps: int
    calls: int = 0
    psnr: float = math.nan
    object_psnr: float = math.nan
    sample_psnr: float = math.nan
    sample_object_psnr: float = math.nan
    seconds: float = math.nan
    note: str = ""

    @property
    def key(self) -> tuple:
        """The settings that it was made with: a point of the same key is not made again."""
        return tuple(getattr(self, name) for name in KEY)

    @property
    def digest(self) -> str:
        """A hash of the key, for a file name."""
        return hashlib.blake2b(repr(self.key).encode(), digest_size=8).hexdigest()

    @property
    def settings(self) -> tuple:
        """What it has in common with the other points of its curve."""
        return tuple(getattr(self, name) for name in COMMON)

    @property
    def label(self) -> str:
        """The solver with its options: the name of its curve."""
        return f"{self.solver} {self.solver_options}".strip()


POINT_COLUMNS = [field.name for field in fields(Point)]
COLUMN_TYPES = {"int": int, "float": float, "str": str}


def options_text(options: Mapping[str, Any]) -> str:
    """Options as ``key=value`` in the order of their names."""
    return " ".join(f"{key}={value}" for key, value in sorted(options.items()))


def read_points(path: Path) -> list[Point]:
    """The points of a file, none where there is no file; a line that is damaged or was cut short is left out."""
    points = []
    for row in csv.DictReader(whole_lines(path)):
        try:
            values = {f.name: COLUMN_TYPES[str(f.type)](row[f.name]) for f in fields(Point)}
            points.append(Point(**values))
        except (KeyError, TypeError, ValueError):
            continue
    return points


def append_point(path: Path, point: Point) -> None:
    """Add one line, and the names of the columns above the first; raises `OutputError`."""
    values = (f"{v:.6g}" if isinstance(v, float) else v for v in asdict(point).values())
    append_line(path, csv_line(values), head=csv_line(POINT_COLUMNS))


def csv_line(values: Any) -> str:
    """Values as one line of CSV, without its end."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return " ".join(text.getvalue().splitlines())
