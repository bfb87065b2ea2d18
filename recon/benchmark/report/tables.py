"""The numbers of a benchmark as tables: one line per cell in CSV, one per method and budget in Markdown."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ...intervals import LEVEL
from ...io.reports import DASH, number_text, percent_text
from .lines import CellRow, FailedCells, Line, calls_made, duration, latest

OVERVIEW = "PSNR of the mean in dB: each method with the solver and number of calls that score best"
NOT_NUMBERS = ("pictures", "versions")  # in no table; the page shows them


@dataclass(frozen=True)
class Column:
    """``text`` is shown; the page sorts by ``value``; ``best`` is ``max`` or ``min`` where one of them is better."""

    head: str
    title: str
    text: Callable[[Line], str]
    value: Callable[[Line], float | str | None]
    best: Callable[[Iterable[float]], float] | None = None


def psnr_text(line: Line) -> str:
    """PSNR of the mean with its standard error."""
    return f"{number_text(line.psnr.mean)} ± {number_text(line.psnr.error)}"


RESULT_COLUMNS = (
    Column("method", "posterior sampler, or a method that it is compared with", lambda of: of.method, lambda of: of.method),
    Column("solver", "of the reverse diffusion", lambda of: of.solver or DASH, lambda of: of.solver or ""),
    Column("calls asked", "network calls per sample that were asked for; –: the method's own default",
           lambda of: number_text(of.calls, "d"), lambda of: of.calls),
    Column("PSNR of the mean", "dB, mean over the cells ± standard error", psnr_text, lambda of: of.psnr.mean, max),
    Column("object PSNR", "dB, over the pixels of the object alone",
           lambda of: number_text(of.object_psnr.mean), lambda of: of.object_psnr.mean, max),
    Column("SSIM", "structural similarity", lambda of: number_text(of.ssim.mean, ".3f"), lambda of: of.ssim.mean, max),
    Column("NMSE", "normalised mean squared error", lambda of: number_text(of.nmse.mean, "#.3g"), lambda of: of.nmse.mean, min),
    Column("LPIPS", "perceptual distance, mean over the samples", lambda of: number_text(of.lpips.mean, ".3f"), lambda of: of.lpips.mean, min),
    Column("residual", "distance to the measurements in units of their noise; noise alone gives 1",
           lambda of: number_text(of.residual.mean), lambda of: of.residual.mean),
    Column(f"coverage of {LEVEL:.0%}".replace("%", " %"), f"share of the object's pixels within the {LEVEL:.0%} intervals",
           lambda of: percent_text(of.coverage.mean), lambda of: of.coverage.mean),
    Column("ESS", "effective sample size", lambda of: number_text(of.ess.mean, ".1f"), lambda of: of.ess.mean),
    Column("network calls", "samples × calls of each", calls_made, lambda of: of.network_calls.mean),
    Column("seconds", "per cell, all its samples together", lambda of: duration(of.seconds.mean), lambda of: of.seconds.mean),
    Column("n", "cells: inputs, slices and seeds",
           lambda of: f"{of.n} ({of.failed} failed)" if of.failed else str(of.n), lambda of: of.n),
)  # fmt: skip


NOT_ALWAYS = ("object PSNR", "LPIPS", "ESS")


def shown_columns(lines: Sequence[Line]) -> list[Column]:
    """The columns to show: those of `NOT_ALWAYS` only where a line has such a number."""
    return [
        c
        for c in RESULT_COLUMNS
        if c.head not in NOT_ALWAYS or any(c.value(line) is not None for line in lines)
    ]


def best(column: Column, lines: Sequence[Line]) -> str | None:
    """The text of the best value of a column; lines that print the same are as good. None where none is better."""
    if column.best is None:
        return None
    values = {line: column.value(line) for line in lines}
    values = {line: v for line, v in values.items() if isinstance(v, int | float) and not math.isnan(v)}
    if len(values) < 2:
        return None
    winner = column.best(values.values())
    return column.text(next(line for line, value in values.items() if value == winner))


def footnotes(lines: Sequence[Line], conventions: Mapping[str, str]) -> list[tuple[str, str]]:
    """What the numbers mean: (name, sentence)."""
    own = [
        ("±", "standard error over the n cells of a line, taken as independent; the PSNR is that of the mean of the samples"),
        ("network calls", "samples × calls per sample (mean over the cells)"),
        ("seconds", "per cell, all its samples together"),
        (DASH, "not measured, or the method's own default"),
    ]  # fmt: skip
    if any(line.failed for line in lines):
        own.append(
            ("n", "the numbers are those of the cells that are done; the ones that failed may be harder")
        )
    return [*((str(k), str(v)) for k, v in conventions.items()), *own]


def overview(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Each method's best line of each problem; methods with the most problems first, then by their mean PSNR."""
    tops: dict[str, dict[str, Line]] = {}
    for line in lines:  # best first
        if line.psnr.mean is not None:
            tops.setdefault(line.method, {}).setdefault(line.problem, line)
    heights = {
        p: max(of[p].psnr.mean or 0 for of in tops.values() if p in of) for one in tops.values() for p in one
    }
    entries = [
        {
            "method": method,
            "mean": fmean(line.psnr.mean or 0 for line in of.values()),
            "cells": {
                problem: (number_text(line.psnr.mean), setting_of(line)) for problem, line in of.items()
            },
            "best": {problem for problem, line in of.items() if line.psnr.mean == heights[problem]},
        }
        for method, of in tops.items()
    ]
    return sorted(entries, key=lambda one: (-len(one["cells"]), -one["mean"]))


def setting_of(line: Line) -> str:
    """Solver and calls of a line, as far as it has them."""
    calls = "" if line.classical else f"{number_text(line.network_calls.mean, '.0f')} calls"
    return ", ".join(part for part in (line.solver or "", calls) if part)


# --- Markdown --------------------------------------------------------------------------------------------


def markdown_report(
    lines: Sequence[Line],
    failed: Sequence[FailedCells],
    *,
    title: str,
    conventions: Mapping[str, str],
    command: str,
) -> str:
    """All problems at a glance, a section for each, then what failed, then what the numbers mean."""
    parts = [f"# {escape_markdown(title)}", f"```sh\n{command}\n```"]
    problems = list(dict.fromkeys(line.problem for line in lines))
    if len(problems) > 1:
        body = [
            [one["method"], *(overview_cell(one, problem) for problem in problems)] for one in overview(lines)
        ]
        parts += [f"## {OVERVIEW}", markdown_table([["method", *problems], *body], numbers_from=1)]
    shown = shown_columns(lines)
    for problem in dict.fromkeys(one.problem for one in (*lines, *failed)):
        of = [line for line in lines if line.problem == problem]
        parts.append(f"## {escape_markdown(problem)}")
        if of:
            body = [[column.text(line) for column in shown] for line in of]
            parts.append(markdown_table([[column.head for column in shown], *body], numbers_from=2))
        else:
            parts.append("Every cell failed.")
    if failed:
        parts.append("## Failed cells")
        heads = ["problem", "method", "solver", "calls asked", "cells", "the first", "what", "why", "do"]
        body = [[f.problem, f.method, f.solver or DASH, number_text(f.calls, "d"), str(f.count),
                 f.where or DASH, f.what or DASH, f.why or DASH, f.do or DASH] for f in failed]  # fmt: skip
        parts.append(markdown_table([heads, *body]))
    parts.append("## Conventions")
    sentences = [
        f"- {escape_markdown(name)}: {escape_markdown(sentence.rstrip('.'))}."
        for name, sentence in footnotes(lines, conventions)
    ]
    parts.append("\n".join(sentences))
    return "\n\n".join(parts) + "\n"


def overview_cell(entry: Mapping[str, Any], problem: str) -> str:
    """The PSNR of a method for a problem, as text."""
    return entry["cells"].get(problem, (DASH, ""))[0]


def markdown_table(rows: Sequence[Sequence[str]], numbers_from: int | None = None) -> str:
    """A Markdown table of ``rows``, the head first; columns from ``numbers_from`` on are aligned to the right."""
    texts = [f"| {' | '.join(map(escape_markdown, row))} |" for row in rows]
    right = len(rows[0]) if numbers_from is None else numbers_from
    rule = "|" + "".join("---:|" if place >= right else "---|" for place in range(len(rows[0])))
    return "\n".join([texts[0], rule, *texts[1:]])


def escape_markdown(text: str) -> str:
    """``text`` in one line, with the characters that Markdown reads as markup escaped."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(text.split()))


# --- CSV -------------------------------------------------------------------------------------------------


def cells_csv(rows: Iterable[CellRow]) -> str:
    """One CSV line per cell with every number it has, nested names joined by dots; empty where there is none."""
    flat = [dict(flattened(row)) for row in latest(rows)]
    names = list(dict.fromkeys(name for row in flat for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def flattened(row: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """(name, value) of every number of a row; the cell's own names stand without a prefix."""
    for key, value in row.items():
        if isinstance(value, Mapping):
            if prefix or key not in NOT_NUMBERS:
                yield from flattened(value, "" if not prefix and key == "cell" else f"{prefix}{key}.")
        elif value is None or (isinstance(value, float) and math.isnan(value)):
            yield prefix + key, ""
        else:
            yield prefix + key, value
