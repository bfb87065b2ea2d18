"""Curves of PSNR against network calls as tables in Markdown and as a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import fmean
from typing import Any

from ...errors import ConfigError
from ...io.reports import GRID, INK, markdown, moved_apart, unique
from ...metrics import SCALED
from ...registry.objects import make_solver
from .points import Point

MEAN_SCORES = {"psnr": "PSNR", "object_psnr": "PSNR in the object"}
SAMPLE_SCORES = {"sample_psnr": "PSNR", "sample_object_psnr": "PSNR in the object"}
BASE = "euler"
CURVE_SPAN = 3.0  # dB that a panel shows below its best point


def curves(points: Sequence[Point]) -> dict[str, list[Point]]:
    """The points of each solver that have a score, by increasing calls."""
    scored = [point for point in points if math.isfinite(point.psnr)]
    labels = unique(point.label for point in points)
    by_calls = sorted(scored, key=lambda point: point.calls)
    return {label: [point for point in by_calls if point.label == label] for label in labels}


def bases(points: Sequence[Point]) -> list[str]:
    """The goals of a fast solver: `BASE` at its most calls, and the one-step solver that is best there."""
    labels = unique(p.label for p in points if one_step(p.solver))
    cases = [curves([p for p in points if p.case == case]) for case in unique(p.case for p in points)]
    ends = {label: [of[label][-1].psnr for of in cases if of.get(label)] for label in labels}
    means = {label: fmean(values) for label, values in ends.items() if len(values) == len(cases)}
    return unique([*([BASE] if BASE in means else []), *sorted(means, key=lambda label: -means[label])[:1]])


def one_step(name: str) -> bool:
    """Whether a solver makes one network call per step and looks back no further."""
    try:
        solver = make_solver(name)
    except ConfigError:  # of a plugin that is not loaded now
        return False
    return solver.nodes == solver.evals == 1


def goal(points: Sequence[Point], base: str, score: str) -> float:
    """The score of ``base`` at its most calls."""
    return getattr(curves(points)[base][-1], score)


def points_within(of: Sequence[Point], budgets: Sequence[int]) -> list[Point | None]:
    """For each budget the point with the most calls that it allows and the next lower budget does not."""
    return [
        max((p for p in of if low < p.calls <= high), key=lambda p: p.calls, default=None)
        for low, high in pairwise([0, *budgets])
    ]


def fewest(of: Sequence[Point], score: str, goal: float) -> int | None:
    """The fewest calls with a score of at least ``goal``."""
    return min((p.calls for p in of if getattr(p, score) >= goal), default=None)


# --- tables ----------------------------------------------------------------------------------------------


def curve_report(points: Sequence[Point], budgets: Sequence[int]) -> str:
    """All tables as Markdown: what the points have in common, then the curves of each sampler setting and case."""
    first, budgets = points[0], sorted(budgets)
    parts = [
        "# PSNR against network calls",
        f"Made by `recon bench curve --data DIR` from `{first.file}`: prior {first.prior}, start {first.start} "
        f"with noise of {first.sigma_start:g}, {first.samples} samples, seed {first.seed}. In dB over the image / in the object.",
        f"PSNR: {SCALED}. In the object: over those pixels alone. A solver of several calls per step takes fewer steps; "
        "where it makes fewer calls than the column says, their number is in parentheses.",
    ]
    for settings in unique(p.settings for p in points):
        group = [p for p in points if p.settings == settings]
        parts.append(f"## {group[0].sampler}, {group[0].sampler_options}")
        for base in bases(group):
            parts += reached(group, base)
        parts += diverged(group)
        group = [*over_cases(group), *group]
        for case in unique(p.case for p in group):
            of = curves([p for p in group if p.case == case])
            parts.append(f"### {case}, mean of {first.samples}")
            parts.append(budget_table(of, list(MEAN_SCORES), budgets))
            if first.samples > 1:
                parts.append(f"### {case}, one sample (median of {first.samples})")
                parts.append(budget_table(of, list(SAMPLE_SCORES), budgets))
    return "\n\n".join(parts) + "\n"


def over_cases(group: Sequence[Point]) -> list[Point]:
    """Points with the mean scores over the cases, where all cases were made; none for a single case."""
    cases = unique(p.case for p in group)
    made = {
        key: [p for p in group if (p.label, p.steps) == key]
        for key in unique((p.label, p.steps) for p in group)
    }
    return [
        replace(
            of[0],
            case="All cases",
            **{s: fmean(getattr(p, s) for p in of) for s in (*MEAN_SCORES, *SAMPLE_SCORES)},
        )
        for of in made.values()
        if len(of) == len(cases) > 1
    ]


def diverged(group: Sequence[Point]) -> list[str]:
    """A sentence about the runs that diverged, if any did."""
    runs = [f"{p.label} with {p.steps} steps, {p.case}: {p.note}" for p in group if p.note]
    return ["Not shown: " + " ".join(runs)] if runs else []


def budget_table(of: dict[str, list[Point]], scores: Sequence[str], budgets: Sequence[int]) -> str:
    """A row for each solver, a column for each budget."""
    rows = [["solver", *map(str, budgets)]]
    for label, of_solver in of.items():
        rows.append(
            [
                label,
                *(
                    scores_text(p, scores, b)
                    for p, b in zip(points_within(of_solver, budgets), budgets, strict=True)
                ),
            ]
        )
    return markdown(rows)


def scores_text(point: Point | None, scores: Sequence[str], budget: int) -> str:
    """The scores of a point, with its calls where they are fewer than the budget."""
    if point is None:
        return "-"
    values = " / ".join(f"{getattr(point, score):.2f}" for score in scores)
    return values if point.calls == budget else f"{values} ({point.calls})"


def reached(group: Sequence[Point], base: str) -> list[str]:
    """A table of the fewest calls with which each solver reaches the score of ``base`` at its most calls."""
    cases = {case: [p for p in group if p.case == case] for case in unique(p.case for p in group)}
    rows = [["solver", *cases]]
    for label in unique(p.label for p in group):
        row = [label]
        for of in cases.values():
            mine = curves(of).get(label, [])
            calls = [fewest(mine, score, goal(of, base, score)) for score in MEAN_SCORES]
            row.append(" / ".join("-" if n is None else str(n) for n in calls))
        rows.append(row)
    goals = "; ".join(
        f"{case} {' / '.join(f'{goal(of, base, score):.2f}' for score in MEAN_SCORES)}"
        for case, of in cases.items()
    )
    most = max(p.calls for p in group if p.label == base)
    title = f"Fewest calls that reach {base} at {most} calls ({goals} dB), over the image / in the object, mean of the samples:"
    return [title, markdown(rows)]


# --- figure ----------------------------------------------------------------------------------------------


def curve_figure(points: Sequence[Point], budgets: Sequence[int]) -> Any:
    """The curves of one sampler setting, scores of the mean of the samples: a column for each case, a row for each score."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cases, labels = unique(p.case for p in points), unique(p.label for p in points)
    look = {label: style(place, label, points) for place, label in enumerate(labels)}
    drawn = Figure(figsize=(1 + 5 * len(cases), 1 + 4.5 * len(MEAN_SCORES)), dpi=90, layout="constrained")
    FigureCanvasAgg(drawn)
    panels = drawn.subplots(len(MEAN_SCORES), len(cases), squeeze=False)
    first, goals = points[0], bases(points)
    drawn.suptitle(
        f"{first.sampler} ({first.sampler_options}), prior {first.prior}\n"
        f"mean of {first.samples} samples; dashed: {' and '.join(goals)} at the most calls",
        color=INK,
        fontsize=11,
    )
    for column, case in enumerate(cases):
        of_case = [p for p in points if p.case == case]
        for row, (score, name) in enumerate(MEAN_SCORES.items()):
            curve_panel(panels[row, column], of_case, score, budgets, look, goals)
            panels[row, column].set_title(f"{case}: {name}", color=INK, fontsize=11)
    return drawn


def style(place: int, label: str, points: Sequence[Point]) -> dict[str, Any]:
    """A colour for each solver; dotted where a step takes several calls, so that fewer steps were made."""
    from matplotlib import colormaps

    of = [p for p in points if p.label == label]
    several = any(p.calls > p.steps for p in of)
    shade = colormaps["tab10"](place % 10)[:3]
    dark = tuple(0.62 * c for c in shade) if place >= 10 else shade
    return {"color": dark, "linestyle": ":" if several else "-", "marker": "s" if several else "o"}


def curve_panel(
    ax: Any,
    points: Sequence[Point],
    score: str,
    budgets: Sequence[int],
    look: dict[str, Any],
    goals: Sequence[str],
) -> None:
    """One case and one score: dB over the logarithm of the calls, each curve named at the right."""
    by_solver = {label: of for label, of in curves(points).items() if of}
    values = [getattr(p, score) for of in by_solver.values() for p in of]
    if not values:
        return
    top, low = max(values), max(min(values), max(values) - CURVE_SPAN)
    margin = 0.04 * max(top - low, 0.1)
    ax.set_xscale("log")
    ax.set_xlim(0.9 * min(budgets), 2.5 * max(budgets))  # room for the names
    ax.set_ylim(low - margin, top + margin)
    ax.set_xticks(list(budgets), labels=[str(b) for b in budgets])
    ax.minorticks_off()
    ax.grid(color=GRID, linewidth=0.6)
    ax.set_xlabel("network calls per sample")
    ax.set_ylabel("dB")
    ax.spines[["top", "right"]].set_visible(False)
    for base in goals:
        height = goal(points, base, score)
        ax.plot([min(budgets), max(budgets)], [height] * 2, "--", color=look[base]["color"], linewidth=1)
    for label, of in by_solver.items():
        ax.plot([p.calls for p in of], [getattr(p, score) for p in of], **look[label], markersize=3.5, linewidth=1.3, clip_on=True)  # fmt: skip
    ends = sorted(by_solver, key=lambda label: getattr(by_solver[label][-1], score))
    heights = moved_apart(
        [getattr(by_solver[label][-1], score) for label in ends], low, top, (top - low) / 26
    )
    for label, height in zip(ends, heights, strict=True):
        end = by_solver[label][-1]
        start = (end.calls, max(getattr(end, score), low))
        place = (1.18 * max(budgets), height)
        ax.plot(*zip(start, place, strict=True), color=look[label]["color"], linewidth=0.5, alpha=0.6)
        ax.text(*place, f" {label}", color=look[label]["color"], fontsize=8, va="center")
