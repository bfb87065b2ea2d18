"""The page of a benchmark: tables and pictures in one HTML file that needs only the pictures beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from ...io.reports import number_text
from .lines import CellRow, FailedCells, Line, finite_or, latest, line_key, row_is_done, where
from .tables import OVERVIEW, best, footnotes, overview, shown_columns

TEMPLATE = "page.html.j2"
PICTURE_KINDS = ("mean", "error", "std")  # pictures of a method, in this order; only samplers have the last


def page(
    rows: Sequence[CellRow],
    lines: Sequence[Line],
    failed: Sequence[FailedCells],
    out: Path,
    *,
    title: str,
    conventions: Mapping[str, str],
    command: str,
    figures: Mapping[str, str],
) -> str:
    """HTML of a report in the folder ``out``; ``figures`` maps file names there to what they show."""
    from jinja2 import Environment, StrictUndefined

    rows, shown = latest(rows), shown_columns(lines)
    problems = []
    for name in dict.fromkeys(one.problem for one in (*lines, *failed)):
        of = [line for line in lines if line.problem == name]
        problems.append(
            {
                "name": name,
                "lines": of,
                "best": {column.head: best(column, of) for column in shown},
                "failures": [failure for failure in failed if failure.problem == name],
                "strip": strip(rows, of, out),
            }
        )
    finished = sorted(str(row["finished"]) for row in rows if row.get("finished"))
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(
        resources.files("recon.benchmark.report").joinpath(TEMPLATE).read_text("utf-8")
    )
    return template.render(
        title=title,
        command=command,
        columns=shown,
        problems=problems,
        overview=overview(lines),
        overview_title=OVERVIEW,
        figures={link(name): text for name, text in figures.items()},
        done=sum(map(row_is_done, rows)),
        failed=sum(not row_is_done(row) for row in rows),
        methods=len({line.method for line in lines}),
        finished=(finished[0], finished[-1]) if finished else None,
        footnotes=footnotes(lines, conventions),
        versions=versions_of(rows),
    )


def strip(rows: Sequence[CellRow], lines: Sequence[Line], out: Path) -> dict[str, Any] | None:
    """One image of a problem as each method reconstructs it, by its best line; the image that most methods have."""
    winners = {line_key(row): [] for row in rows}
    for row in rows:
        if row_is_done(row) and pictures_of(row, out):
            winners[line_key(row)].append(row)
    chosen: dict[
        str, Sequence[CellRow]
    ] = {}  # of each method the best line that has pictures: lines come best first
    for line in lines:
        of = winners[line.problem, line.method, line.solver, line.calls]
        if of and line.method not in chosen:
            chosen[line.method] = of
    if not chosen:
        return None
    images = [image for of in chosen.values() for image in dict.fromkeys(map(image_of, of))]
    image = max(dict.fromkeys(images), key=images.count)
    cards, shared = [], {}
    for method, of in chosen.items():
        row = next((row for row in of if image_of(row) == image), of[0])
        pictures = pictures_of(row, out)
        if image_of(row) == image:
            shared = {k: pictures[k] for k in ("reference", "measured") if k in pictures} | shared
        kinds = [(kind, pictures[kind]) for kind in PICTURE_KINDS if kind in pictures]
        if kinds:
            cards.append(
                {
                    "method": method,
                    "setting": setting(row),
                    "psnr": number_text(row.get("metrics", {}).get("psnr")),
                    "order": -finite_or(row.get("metrics", {}).get("psnr"), -1e9),
                    "elsewhere": None if image_of(row) == image else where(row),
                    "pictures": kinds,
                }
            )
    cards.sort(key=lambda card: card["order"])
    first = next(row for of in chosen.values() for row in of if image_of(row) == image)
    return {"where": where(first), "reference": shared.get("reference"), "measured": shared.get("measured"), "cards": cards}  # fmt: skip


def image_of(row: CellRow) -> tuple[Any, Any, Any]:
    """Input, slice and seed of a row."""
    return tuple(row["cell"].get(key) for key in ("input", "slice", "seed"))  # type: ignore[return-value]


def setting(row: CellRow) -> str:
    """Solver and calls of a cell, as far as it has them."""
    cell, made = row["cell"], row.get("network_calls")
    calls = f"{number_text(made, '.0f')} calls" if made else ""
    return ", ".join(part for part in (cell.get("solver") or "", calls) if part)


def pictures_of(row: CellRow, out: Path) -> dict[str, str]:
    """Links to the pictures of a row, by what they show: those that exist below ``out``."""
    named = {kind: str(path) for kind, path in (row.get("pictures") or {}).items() if path}
    return {kind: link(path) for kind, path in named.items() if inside(path) and (out / path).is_file()}


def inside(path: str) -> bool:
    """Whether a relative path stays in its folder."""
    pure = PurePosixPath(path)
    return not pure.is_absolute() and ".." not in pure.parts


def link(path: str) -> str:
    """``path`` as a relative address, with characters such as # and : quoted."""
    return quote(path)


def versions_of(rows: Sequence[CellRow]) -> dict[str, list[str]]:
    """The versions of the software that made the rows: each name with all its versions."""
    seen: dict[str, list[str]] = {}
    for row in rows:
        for name, version in (row.get("versions") or {}).items():
            seen.setdefault(str(name), []).append(str(version))
    return {name: list(dict.fromkeys(values)) for name, values in sorted(seen.items())}
