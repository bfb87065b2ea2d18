"""The report of a benchmark: tables, figures and a page from its rows, all files or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...io.whole import write_together
from .lines import CellRow, Line, Stat, aggregate, failures
from .page import page
from .plots import coverage_figure, psnr_figure
from .tables import cells_csv, markdown_report

__all__ = ["Line", "Stat", "aggregate", "write_report"]

FIGURES = {
    "psnr_calls.png": (psnr_figure, "PSNR of the mean against network calls per sample"),
    "coverage.png": (coverage_figure, "Coverage of the intervals against their level"),
}


def write_report(
    rows: Sequence[CellRow], out: Path, *, title: str, conventions: Mapping[str, str], command: str
) -> list[Path]:
    """Write ``table.csv``, ``table.md``, ``psnr_calls.png``, ``coverage.png`` and ``index.html`` into ``out``.

    ``rows`` are the JSON objects of the cells; later ones of a key replace earlier ones. ``conventions``
    says by name how a number is defined; ``command`` runs the benchmark again. Everything is made
    before the first file is replaced. A figure without anything to show is not written. Returns the
    files that were written.

    Raises `ConfigError` without rows and `OutputError` where a file cannot be written.
    """
    if not rows:
        raise ConfigError(
            "There is nothing to report.",
            "No cell of the benchmark has been run.",
            "Run the benchmark first.",
        )
    lines, failed = aggregate(rows), failures(rows)
    drawn = {name: figure for name, (draw, _) in FIGURES.items() if (figure := draw(lines)) is not None}
    texts = {"title": title, "conventions": conventions, "command": command}
    shown = {name: FIGURES[name][1] for name in drawn}
    files = {
        "table.csv": cells_csv(rows).encode(),
        "table.md": markdown_report(lines, failed, **texts).encode(),
        **{name: png(figure) for name, figure in drawn.items()},
        "index.html": page(rows, lines, failed, out, figures=shown, **texts).encode(),
    }
    write_together({out / name: partial(write, content) for name, content in files.items()})
    return [out / name for name in files]


def write(content: bytes, file: Any) -> None:
    """Write ``content`` to an open file."""
    file.write(content)


def png(figure: Any) -> bytes:
    """A figure as a PNG file."""
    file = BytesIO()
    figure.savefig(file, format="png", facecolor="white")
    return file.getvalue()
