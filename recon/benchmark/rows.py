"""The rows of a benchmark: what is measured of an answer, and the file that keeps one row a cell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import OutputError
from ..io.reports import finite_or_null, json_text
from ..metrics import CONVENTIONS, coverage
from .answer import Answer
from .cells import Cell
from .perceptual import LPIPS, Perceptual
from .scene import COLOUR, Scene
from .sharing import append_line, whole_lines

ROWS = "rows.jsonl"
FIELDS = {"key": str, "status": str, "cell": dict}


def scored(scene: Scene, answer: Answer, cell: Cell, perceptual: Perceptual | None = None) -> dict[str, Any]:
    """What a row says of an answer.

    ``metrics`` of the mean against the reference; ``residual``: of a sample, in units of the noise, the median
    over the samples; ``coverage``: the share of the object within the intervals of ``level``.
    """
    samples, residual = answer.samples.to(scene.problem.y.device), None
    if answer.phase:
        residual = float(torch.stack([scene.problem.residual(one[None]) for one in samples]).median())
    covered = None
    if len(samples) > 1:
        compared = scene.compared(samples)
        covered = coverage(scene.reference, compared, level=cell.level, weights=answer.weights).value
    row = {
        "network_calls": answer.network_calls,
        "seconds": round(answer.seconds, 3),
        "residual": residual,
        "metrics": scene.scores(answer.mean)
        | ({} if perceptual is None else {"lpips": perceptual(scene, answer)}),
        "coverage": covered,
        "level": cell.level,
        "notes": answer.notes,
    }
    return finite_or_null(row | ({"ess": answer.notes["ess"]} if "ess" in answer.notes else {}))


def row_in_words(row: Mapping[str, Any]) -> str:
    """The numbers of a row that is done, in one line."""
    metrics = row["metrics"]
    numbers = {
        "PSNR": (metrics["psnr"], ".2f"),
        "SSIM": (metrics["ssim"], ".3f"),
        "LPIPS": (metrics.get("lpips"), ".3f"),
        "residual": (row["residual"], ".2f"),
        "coverage": (row["coverage"], ".3f"),
    }
    words = [f"{name} {value:{form}}" for name, (value, form) in numbers.items() if value is not None]
    return ", ".join([*words, f"{row['network_calls']} calls", f"{row['seconds']:.1f} s"])


def conventions(colour: bool, perceptual: bool = False) -> dict[str, str]:
    """How the metrics of a row are defined, by name; those of pictures in colour are others."""
    more = {"lpips": LPIPS} if perceptual else {}
    if colour:
        return {"metrics": COLOUR} | more
    return more | {
        name: text for name, text in CONVENTIONS.items() if name in ("scaled_psnr", "fastmri_psnr")
    }


# --- the file ----------------------------------------------------------------------------------------------


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, none where there is no file; a last one that was cut short is left out.

    Raises `OutputError` for a line that is not a row.
    """
    return [parsed(path, number, line) for number, line in enumerate(whole_lines(path), 1)]


def parsed(path: Path, number: int, line: str) -> dict[str, Any]:
    """The row in one line of a file."""
    try:
        row = json.loads(line)
        wrong = [name for name, kind in FIELDS.items() if not isinstance(row[name], kind)]
        why = f"Its {' and '.join(wrong)} cannot be used." if wrong else ""
    except json.JSONDecodeError as error:
        row, why = {}, f"It is not JSON: {error}."
    except (KeyError, TypeError, IndexError, RecursionError):
        row, why = {}, f"It has no {', '.join(FIELDS)}."
    if why:
        raise OutputError(
            f"Line {number} of {path} is not a row.", why, "Remove the line, or choose another --out."
        )
    return row


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add one row: the whole of it, or the file stays as it was; raises `OutputError`."""
    append_line(path, json_text(row))
