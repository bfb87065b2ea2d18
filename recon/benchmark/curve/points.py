"""The points of ``recon bench curve``: one line a point in a CSV file that only grows."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ...errors import OutputError

SETTINGS = (
    "file", "prior", "sampler", "sampler_options", "start", "sigma_start", "sigma_end", "samples", "seed"
)  # fmt: skip
"""What the points of one curve have in common."""
KEY = (*SETTINGS, "case", "solver", "solver_options", "steps")


@dataclass(frozen=True)
class Point:
    """One reconstruction and its scores in dB; ``calls`` of the network a sample, as they were counted.

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
        """What it was made with: a point of the same key is not made again."""
        return tuple(getattr(self, name) for name in KEY)

    @property
    def settings(self) -> tuple:
        return tuple(getattr(self, name) for name in SETTINGS)

    @property
    def label(self) -> str:
        return f"{self.solver} {self.solver_options}".strip()


KINDS = {"int": int, "float": float, "str": str}


def text(options: Mapping[str, Any]) -> str:
    """Options as ``key=value`` in the order of their names."""
    return " ".join(f"{key}={value}" for key, value in sorted(options.items()))


def read_points(path: Path) -> list[Point]:
    """The points of a file, none where there is no file; a line that was cut short is passed over."""
    if not path.exists():
        return []
    found = []
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            try:
                found.append(Point(**{f.name: KINDS[str(f.type)](row[f.name]) for f in fields(Point)}))
            except (KeyError, TypeError, ValueError):
                continue
    return found


def append_point(path: Path, point: Point) -> None:
    """One more line, and the names of the columns above the first; raises `OutputError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            file.seek(max(0, file.tell() - 1))
            cut_short = file.read(1) not in (b"", b"\n")
        with path.open("a", newline="") as file:
            lines = csv.DictWriter(file, [f.name for f in fields(Point)], lineterminator="\n")
            if cut_short:
                file.write("\n")
            if path.stat().st_size == 0:
                lines.writeheader()
            lines.writerow({name: short(value) for name, value in asdict(point).items()})
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written.", f"{error.strerror or error}.", "Choose another folder with --out."
        ) from error


def short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
