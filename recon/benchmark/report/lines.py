"""Rows of a benchmark, one per cell, aggregated into lines: the numbers that every output of a report shows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from ...io.reports import DASH, number_text

CellRow = Mapping[str, Any]
"""One cell as `recon.benchmark.rows` keeps it."""
Key = tuple[str, str, str | None, int | None]


@dataclass(frozen=True)
class Stat:
    """Mean of ``n`` numbers and its standard error ``s / sqrt(n)``, s with n - 1; None where there is none."""

    mean: float | None = None
    error: float | None = None
    n: int = 0


@dataclass(frozen=True)
class Line:
    """One (problem, method, solver, calls) over inputs, slices and seeds.

    ``n`` cells are done, ``failed`` are not. ``calls`` is the budget asked for, None where it was left
    to the method; ``network_calls`` is what each of the ``samples`` took. PSNR in dB, residual in
    units of sigma_y, coverage as a share, seconds per cell.
    """

    problem: str
    method: str
    solver: str | None
    calls: int | None
    n: int
    failed: int
    samples: tuple[int, ...]
    psnr: Stat
    object_psnr: Stat
    ssim: Stat
    nmse: Stat
    lpips: Stat
    residual: Stat
    coverage: Stat
    ess: Stat
    network_calls: Stat
    seconds: Stat

    @property
    def classical(self) -> bool:
        """Whether no network was called."""
        return self.network_calls.mean == 0

    @property
    def peer(self) -> bool:
        """Whether the method is another library's."""
        return is_peer(self.method)

    @property
    def name(self) -> str:
        """Method and solver."""
        return self.method if self.solver is None else f"{self.method} · {self.solver}"


@dataclass(frozen=True)
class FailedCells:
    """Cells of one line that failed with the same error; ``where`` names the first."""

    problem: str
    method: str
    solver: str | None
    calls: int | None
    what: str
    why: str
    do: str
    where: str
    count: int = 1


METRICS = ("psnr", "object_psnr", "ssim", "nmse", "lpips")
MEASURES = ("residual", "coverage", "ess", "network_calls", "seconds")


def latest(rows: Iterable[CellRow]) -> list[CellRow]:
    """The last row of each key, in the order in which the keys came."""
    return list({row["key"]: row for row in rows}.values())


def aggregate(rows: Iterable[CellRow]) -> list[Line]:
    """The lines of all cells that are done, in the order of the problems, then by falling PSNR."""
    cells: dict[Key, list[CellRow]] = {}
    for row in latest(rows):
        cells.setdefault(line_key(row), []).append(row)
    lines = [line(key, of) for key, of in cells.items() if any(map(row_is_done, of))]
    places = {name: place for place, name in enumerate(dict.fromkeys(key[0] for key in cells))}
    return sorted(lines, key=lambda one: (places[one.problem], -finite_or(one.psnr.mean, -math.inf)))


def line(key: Key, rows: Sequence[CellRow]) -> Line:
    """The line of the cells of one key."""
    done = [row for row in rows if row_is_done(row)]
    metrics = {name: statistic(row.get("metrics", {}).get(name) for row in done) for name in METRICS}
    measures = {name: statistic(row.get(name) for row in done) for name in MEASURES}
    samples = sorted({int(row["cell"]["samples"]) for row in done if row["cell"].get("samples") is not None})
    return Line(*key, len(done), len(rows) - len(done), tuple(samples), **metrics, **measures)


def line_key(row: CellRow) -> Key:
    """What the cells of one line have in common: problem, method, solver, calls."""
    cell = row["cell"]
    return str(cell["problem"]), str(cell["method"]), cell.get("solver"), cell.get("calls")


def row_is_done(row: CellRow) -> bool:
    """Whether the cell was measured."""
    return row.get("status") == "done"


def is_peer(method: str) -> bool:
    """Whether a method is another library's: those begin with its name."""
    return method.lower().startswith("deepinv")


def statistic(values: Iterable[Any]) -> Stat:
    """Of the numbers among ``values``; one infinite value (the PSNR of an exact result) makes the mean infinite."""
    numbers = [float(v) for v in values if v is not None and not math.isnan(float(v))]
    if not numbers:
        return Stat()
    if not all(map(math.isfinite, numbers)):
        return Stat(fmean(numbers), None, len(numbers))
    error = stdev(numbers) / math.sqrt(len(numbers)) if len(numbers) > 1 else None
    return Stat(fmean(numbers), error, len(numbers))


def failures(rows: Iterable[CellRow]) -> list[FailedCells]:
    """What failed and how; equal errors of one line are counted, not repeated."""
    alike: dict[tuple[Any, ...], list[CellRow]] = {}
    for row in latest(rows):
        if not row_is_done(row):
            error = row.get("error") or {}
            texts = (str(error.get(name) or "") for name in ("what", "why", "do"))
            alike.setdefault((*line_key(row), *texts), []).append(row)
    return [FailedCells(*key, where=where(of[0]), count=len(of)) for key, of in alike.items()]


def where(row: CellRow) -> str:
    """Which of the cells of a line a row is: input, slice and seed."""
    cell = row["cell"]
    parts = [str(cell["input"])] if cell.get("input") is not None else []
    return ", ".join(
        [*parts, *(f"{key} {cell[key]}" for key in ("slice", "seed") if cell.get(key) is not None)]
    )


# --- numbers as text -------------------------------------------------------------------------------------


def finite_or(value: float | None, other: float) -> float:
    """``value``, or ``other`` if it is None or NaN."""
    return other if value is None or math.isnan(value) else value


def duration(seconds: float | None) -> str:
    """Seconds with as many digits as matter."""
    if seconds is None or not math.isfinite(seconds):
        return number_text(seconds)
    return f"{seconds:.3f}" if seconds < 0.1 else f"{seconds:.2f}" if seconds < 10 else f"{seconds:.0f}"


def calls_made(line: Line) -> str:
    """Samples × calls of each, such as 4 × 20; 0 without a network."""
    if line.classical:
        return "0"
    samples = DASH if not line.samples else "–".join(map(str, dict.fromkeys((line.samples[0], line.samples[-1]))))  # fmt: skip
    return f"{samples} × {number_text(line.network_calls.mean, '.0f')}"
