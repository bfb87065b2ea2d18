"""The page of a benchmark: tables and pictures in one HTML file that needs nothing but the pictures beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from .lines import Failure, Line, Row, finite_or, is_done, latest, line_key, number, where
from .tables import OVERVIEW, best, columns, footnotes, overview

TEMPLATE = "page.html.j2"
KINDS = ("mean", "error", "std")  # of pictures, in the order shown; what only samplers have comes last


def page(
    rows: Sequence[Row],
    lines: Sequence[Line],
    failed: Sequence[Failure],
    out: Path,
    *,
    title: str,
    conventions: Mapping[str, str],
    command: str,
    figures: Mapping[str, str],
) -> str:
    """HTML of a report in the folder ``out``; ``figures`` maps file names there to what they show."""
    from jinja2 import Environment, StrictUndefined

    rows, shown = latest(rows), columns(lines)
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
        done=sum(map(is_done, rows)),
        failed=sum(not is_done(row) for row in rows),
        methods=len({line.method for line in lines}),
        finished=(finished[0], finished[-1]) if finished else None,
        footnotes=footnotes(lines, conventions),
        versions=versions(rows),
    )


def strip(rows: Sequence[Row], lines: Sequence[Line], out: Path) -> dict[str, Any] | None:
    """One image of a problem as each method has it: of its best line, at the image that most of those have."""
    winners = {line_key(row): [] for row in rows}
    for row in rows:
        if is_done(row) and found(row, out):
            winners[line_key(row)].append(row)
    chosen: dict[str, Sequence[Row]] = {}  # lines come best first: a method's best that has pictures
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
        pictures = found(row, out)
        if image_of(row) == image:
            shared = {k: pictures[k] for k in ("reference", "measured") if k in pictures} | shared
        kinds = [(kind, pictures[kind]) for kind in KINDS if kind in pictures]
        if kinds:
            cards.append(
                {
                    "method": method,
                    "setting": setting(row),
                    "psnr": number(row.get("metrics", {}).get("psnr")),
                    "order": -finite_or(row.get("metrics", {}).get("psnr"), -1e9),
                    "elsewhere": None if image_of(row) == image else where(row),
                    "pictures": kinds,
                }
            )
    cards.sort(key=lambda card: card["order"])
    first = next(row for of in chosen.values() for row in of if image_of(row) == image)
    return {"where": where(first), "reference": shared.get("reference"), "measured": shared.get("measured"), "cards": cards}  # fmt: skip


def image_of(row: Row) -> tuple[Any, Any, Any]:
    return tuple(row["cell"].get(key) for key in ("input", "slice", "seed"))  # type: ignore[return-value]


def setting(row: Row) -> str:
    """Solver and calls of a cell, as far as it has them."""
    cell, made = row["cell"], row.get("network_calls")
    calls = f"{number(made, '.0f')} calls" if made else ""
    return ", ".join(part for part in (cell.get("solver") or "", calls) if part)


def found(row: Row, out: Path) -> dict[str, str]:
    """Links to the pictures of a row that lie below ``out``; those that do not exist are left out."""
    named = {kind: str(path) for kind, path in (row.get("pictures") or {}).items() if path}
    return {kind: link(path) for kind, path in named.items() if inside(path) and (out / path).is_file()}


def inside(path: str) -> bool:
    pure = PurePosixPath(path)
    return not pure.is_absolute() and ".." not in pure.parts


def link(path: str) -> str:
    """``path`` as a relative address: a colon or a number sign in it stays part of the name."""
    return quote(path)


def versions(rows: Sequence[Row]) -> dict[str, list[str]]:
    """What made the rows: each name with all versions there are, one where they agree."""
    said: dict[str, list[str]] = {}
    for row in rows:
        for name, version in (row.get("versions") or {}).items():
            said.setdefault(str(name), []).append(str(version))
    return {name: list(dict.fromkeys(values)) for name, values in sorted(said.items())}
