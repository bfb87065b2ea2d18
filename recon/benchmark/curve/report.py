"""Curves of PSNR against network calls as tables in Markdown and as a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import fmean
from typing import Any

from ...io.figures import GRID, INK, markdown, spread, unique
from ...metrics import SCALED
from ...registry.objects import make_solver
from ...solvers import SOLVERS
from .points import Point

SCORES = {"psnr": "PSNR", "object_psnr": "PSNR in the object"}
ONE = {"sample_psnr": "PSNR", "sample_object_psnr": "PSNR in the object"}
BASE = "euler"
SPAN = 3.0  # dB that a panel shows below its best point


def curves(points: Sequence[Point]) -> dict[str, list[Point]]:
    """The points of each solver that have a score, by their calls."""
    found = {label: [p for p in points if p.label == label] for label in unique(p.label for p in points)}
    return {label: sorted((p for p in of if math.isfinite(p.psnr)), key=lambda p: p.calls) for label, of in found.items()}  # fmt: skip


def bases(points: Sequence[Point]) -> list[str]:
    """What a fast solver is to reach: `BASE` with its most calls, and the best that one-step solvers have there."""
    labels = unique(p.label for p in points if one_step(p.solver))
    cases = [curves([p for p in points if p.case == case]) for case in unique(p.case for p in points)]
    ends = {label: [of[label][-1].psnr for of in cases if of.get(label)] for label in labels}
    means = {label: fmean(values) for label, values in ends.items() if len(values) == len(cases)}
    return unique([*([BASE] if BASE in means else []), *sorted(means, key=lambda label: -means[label])[:1]])


def one_step(name: str) -> bool:
    solver = make_solver(name) if name in SOLVERS else None
    return solver is not None and solver.nodes == solver.evals == 1


def goal(points: Sequence[Point], base: str, score: str) -> float:
    """The score of ``base`` with its most calls."""
    return getattr(curves(points)[base][-1], score)


def within(of: Sequence[Point], budgets: Sequence[int]) -> list[Point | None]:
    """For each budget the point of the most calls that it allows, and the budget before it does not."""
    return [
        max((p for p in of if low < p.calls <= high), key=lambda p: p.calls, default=None)
        for low, high in pairwise([0, *budgets])
    ]


def fewest(of: Sequence[Point], score: str, goal: float) -> int | None:
    """The fewest calls with a score of at least ``goal``."""
    return min((p.calls for p in of if getattr(p, score) >= goal), default=None)


# --- tables ----------------------------------------------------------------------------------------------


def report(points: Sequence[Point], budgets: Sequence[int]) -> str:
    """All tables: what the points have in common, then for each sampler's options and case its curves."""
    first, budgets = points[0], sorted(budgets)
    parts = [
        "# PSNR against network calls",
        f"Made by `recon bench curve --data DIR` from `{first.file}`: prior {first.prior}, start {first.start} "
        f"with noise of {first.sigma_start:g}, {first.samples} samples, seed {first.seed}. In dB over the image / in the object.",
        f"PSNR: {SCALED}. In the object: over those pixels alone. A solver of several calls a step takes fewer steps; "
        "where it makes fewer calls than the column says, their number is in brackets.",
    ]
    for settings in unique(p.settings for p in points):
        group = [p for p in points if p.settings == settings]
        parts.append(f"## {group[0].sampler}, {group[0].sampler_options}")
        for base in bases(group):
            parts += reached(group, base)
        parts += failures(group)
        group = [*over_cases(group), *group]
        for case in unique(p.case for p in group):
            of = curves([p for p in group if p.case == case])
            parts.append(f"### {case}, mean of {first.samples}")
            parts.append(table(of, list(SCORES), budgets))
            if first.samples > 1:
                parts.append(f"### {case}, one sample (median of {first.samples})")
                parts.append(table(of, list(ONE), budgets))
    return "\n\n".join(parts) + "\n"


def over_cases(group: Sequence[Point]) -> list[Point]:
    """The mean of the scores over the cases, for what was made in all of them; nothing for one case."""
    cases = unique(p.case for p in group)
    made = {
        key: [p for p in group if (p.label, p.steps) == key]
        for key in unique((p.label, p.steps) for p in group)
    }
    return [
        replace(of[0], case="All cases", **{s: fmean(getattr(p, s) for p in of) for s in (*SCORES, *ONE)})
        for of in made.values()
        if len(of) == len(cases) > 1
    ]


def failures(group: Sequence[Point]) -> list[str]:
    """A sentence for what diverged."""
    said = [f"{p.label} with {p.steps} steps, {p.case}: {p.note}" for p in group if p.note]
    return ["Not shown: " + " ".join(said)] if said else []


def table(of: dict[str, list[Point]], scores: Sequence[str], budgets: Sequence[int]) -> str:
    """A row a solver, a column a budget; each cell has the scores."""
    rows = [["solver", *map(str, budgets)]]
    for label, found in of.items():
        rows.append(
            [label, *(cell(p, scores, b) for p, b in zip(within(found, budgets), budgets, strict=True))]
        )
    return markdown(rows)


def cell(point: Point | None, scores: Sequence[str], budget: int) -> str:
    if point is None:
        return "-"
    values = " / ".join(f"{getattr(point, score):.2f}" for score in scores)
    return values if point.calls == budget else f"{values} ({point.calls})"


def reached(group: Sequence[Point], base: str) -> list[str]:
    """How many calls each solver needs for what ``base`` has with its most."""
    cases = {case: [p for p in group if p.case == case] for case in unique(p.case for p in group)}
    rows = [["solver", *cases]]
    for label in unique(p.label for p in group):
        row = [label]
        for of in cases.values():
            mine = curves(of).get(label, [])
            calls = [fewest(mine, score, goal(of, base, score)) for score in SCORES]
            row.append(" / ".join("-" if n is None else str(n) for n in calls))
        rows.append(row)
    goals = "; ".join(
        f"{case} {' / '.join(f'{goal(of, base, score):.2f}' for score in SCORES)}"
        for case, of in cases.items()
    )
    most = max(p.calls for p in group if p.label == base)
    said = f"Fewest calls that reach {base} at {most} calls ({goals} dB), over the image / in the object, mean of the samples:"
    return [said, markdown(rows)]


# --- figure ----------------------------------------------------------------------------------------------


def figure(points: Sequence[Point], budgets: Sequence[int]) -> Any:
    """The curves of one sampler's options, means of the samples: a column a case, a row a score."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cases, labels = unique(p.case for p in points), unique(p.label for p in points)
    look = {label: style(place, label, points) for place, label in enumerate(labels)}
    drawn = Figure(figsize=(1 + 5 * len(cases), 1 + 4.5 * len(SCORES)), dpi=90, layout="constrained")
    FigureCanvasAgg(drawn)
    panels = drawn.subplots(len(SCORES), len(cases), squeeze=False)
    first, goals = points[0], bases(points)
    drawn.suptitle(
        f"{first.sampler} ({first.sampler_options}), prior {first.prior}\n"
        f"mean of {first.samples} samples; dashed: {' and '.join(goals)} with the most calls",
        color=INK,
        fontsize=11,
    )
    for column, case in enumerate(cases):
        here = [p for p in points if p.case == case]
        for row, (score, name) in enumerate(SCORES.items()):
            panel(panels[row, column], here, score, budgets, look, goals)
            panels[row, column].set_title(f"{case}: {name}", color=INK, fontsize=11)
    return drawn


def style(place: int, label: str, points: Sequence[Point]) -> dict[str, Any]:
    """A colour a solver; dots where a step is several calls, so that fewer steps were taken."""
    from matplotlib import colormaps

    of = [p for p in points if p.label == label]
    several = any(p.calls > p.steps for p in of)
    shade = colormaps["tab10"](place % 10)[:3]
    dark = tuple(0.62 * c for c in shade) if place >= 10 else shade
    return {"color": dark, "linestyle": ":" if several else "-", "marker": "s" if several else "o"}


def panel(
    ax: Any,
    points: Sequence[Point],
    score: str,
    budgets: Sequence[int],
    look: dict[str, Any],
    goals: Sequence[str],
) -> None:
    """One case and one score: log calls to the right, dB upwards, each curve named at its right end."""
    found = {label: of for label, of in curves(points).items() if of}
    values = [getattr(p, score) for of in found.values() for p in of]
    if not values:
        return
    top, low = max(values), max(min(values), max(values) - SPAN)
    margin = 0.04 * max(top - low, 0.1)
    ax.set_xscale("log")
    ax.set_xlim(0.9 * min(budgets), 2.5 * max(budgets))  # room for the names
    ax.set_ylim(low - margin, top + margin)
    ax.set_xticks(list(budgets), labels=[str(b) for b in budgets])
    ax.minorticks_off()
    ax.grid(color=GRID, linewidth=0.6)
    ax.set_xlabel("network calls a sample")
    ax.set_ylabel("dB")
    ax.spines[["top", "right"]].set_visible(False)
    for base in goals:
        height = goal(points, base, score)
        ax.plot([min(budgets), max(budgets)], [height] * 2, "--", color=look[base]["color"], linewidth=1)
    for label, of in found.items():
        ax.plot([p.calls for p in of], [getattr(p, score) for p in of], **look[label], markersize=3.5, linewidth=1.3, clip_on=True)  # fmt: skip
    ends = sorted(found, key=lambda label: getattr(found[label][-1], score))
    heights = spread([getattr(found[label][-1], score) for label in ends], low, top, (top - low) / 26)
    for label, height in zip(ends, heights, strict=True):
        end = found[label][-1]
        start = (end.calls, max(getattr(end, score), low))
        place = (1.18 * max(budgets), height)
        ax.plot(*zip(start, place, strict=True), color=look[label]["color"], linewidth=0.5, alpha=0.6)
        ax.text(*place, f" {label}", color=look[label]["color"], fontsize=8, va="center")
