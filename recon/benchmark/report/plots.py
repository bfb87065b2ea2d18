"""Figures of a benchmark: PSNR against network calls, and coverage of the intervals, one panel per problem."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...intervals import LEVEL
from ...io.reports import GRID, INK, moved_apart, unique
from .lines import Line, is_peer

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#c25a94", "#3a9ad9", "#b07c00", "#222222")  # Okabe-Ito, darker
MARKERS = "os^v"
GRAY = "#6b6b6b"
PANEL_SPAN = 12.0  # dB that a panel shows below its best point; what lies lower is named with its value
ACROSS = 3  # panels side by side
BUDGETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


def psnr_figure(lines: Sequence[Line]) -> Any | None:
    """PSNR of each method over its budgets; None where no line has a finite PSNR."""
    lines = [line for line in lines if line.psnr.mean is not None and math.isfinite(line.psnr.mean)]
    if not lines:
        return None
    look, several = looks(lines), many_solvers(lines)
    figure, panels = sheet(unique(line.problem for line in lines), 5.0, 4.1)
    for problem, ax in panels.items():
        calls_panel(ax, [line for line in lines if line.problem == problem], look, several)
        ax.set_title(problem, color=INK, fontsize=11, loc="left")
    marks = {
        "filled: recon": any(not line.peer and not line.classical for line in lines),
        "open: deepinv": any(line.peer for line in lines),
        "dashed: no network": any(line.classical for line in lines),
    }
    figure.suptitle(
        "PSNR of the mean (dB) against network calls per sample, ± standard error\n"
        + "; ".join(mark for mark, used in marks.items() if used),
        color=INK,
        fontsize=12,
    )
    return figure


def coverage_figure(lines: Sequence[Line]) -> Any | None:
    """Coverage of each method at each budget, beside the level; None where no line has one."""
    lines = [line for line in lines if line.coverage.mean is not None]
    if not lines:
        return None
    look, several = looks(lines), many_solvers(lines)
    sides = sorted(lines, key=lambda one: (counterpart(one.method), one.peer, one.name), reverse=True)
    names = unique(label(line, several) for line in sides)  # a deepinv method below its counterpart
    figure, panels = sheet(unique(line.problem for line in lines), 4.2, 1.2 + 0.2 * len(names))
    top = max(line.network_calls.mean or 1 for line in lines)
    for place, (problem, ax) in enumerate(panels.items()):
        plain_axes(ax)
        ax.set_title(problem, color=INK, fontsize=11, loc="left")
        ax.set_xlim(-0.02, 1.02)
        ax.set_ylim(-0.7, len(names) - 0.3)
        ax.set_yticks(range(len(names)), labels=names if place % ACROSS == 0 else [], fontsize=8)
        ax.axvline(LEVEL, color=INK, linewidth=1, linestyle="--")
        of = [line for line in lines if line.problem == problem]
        for line in sorted(of, key=lambda one: -(one.network_calls.mean or 1)):
            part = math.log(max(line.network_calls.mean or 1, 1) + 1) / math.log(top + 1)
            style = look[line.method, line.solver]
            ax.plot(line.coverage.mean, names.index(label(line, several)), linestyle="none",
                    **{**style, "markersize": 2 + 7 * part**1.5}, alpha=0.85)  # fmt: skip
        ax.set_xlabel("share of the object's pixels inside", fontsize=8)
    figure.suptitle(
        f"Coverage of the {LEVEL:.0%} intervals (dashed: {LEVEL:.0%}); larger marks: more network calls",
        color=INK,
        fontsize=12,
    )
    return figure


def sheet(problems: Sequence[str], width: float, height: float) -> tuple[Any, dict[str, Any]]:
    """A figure with a panel for each problem, up to three side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across = min(ACROSS, len(problems))
    down = math.ceil(len(problems) / across)
    size = (max(width * across, 8.0), 0.8 + height * down)
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for ax in panels[len(problems) :]:
        ax.set_axis_off()
    return figure, dict(zip(problems, panels, strict=False))


def many_solvers(lines: Sequence[Line]) -> set[str]:
    """Methods that ran with several solvers, so that their names alone do not identify a curve."""
    methods = unique(line.method for line in lines)
    return {m for m in methods if len({line.solver for line in lines if line.method == m}) > 1}


def label(line: Line, several: set[str]) -> str:
    """The name of a line's curve."""
    return line.name if line.method in several else line.method


def looks(lines: Sequence[Line]) -> dict[tuple[str, str | None], dict[str, Any]]:
    """Colour and marker of each method and solver; a deepinv method has its counterpart's colour and an open marker."""
    keys = sorted({(line.method, line.solver) for line in lines if not line.classical}, key=str)
    names = unique((counterpart(m), None if is_peer(m) else s) for m, s in sorted(keys, key=lambda k: is_peer(k[0])))  # fmt: skip
    methods = {name[0]: place for place, name in reversed(list(enumerate(names)))}
    styles = {}
    for method, solver in keys:
        name = (counterpart(method), solver)
        place = names.index(name) if name in names and not is_peer(method) else methods[name[0]]
        colour = COLOURS[place % len(COLOURS)]
        style = {"color": colour, "marker": MARKERS[place // len(COLOURS) % len(MARKERS)], "markersize": 4.5}
        open_mark = {"marker": "D", "markerfacecolor": "white", "markersize": 5, "markeredgewidth": 1.3}
        styles[method, solver] = style | (open_mark if is_peer(method) else {})
    for line in lines:
        if line.classical:
            styles[line.method, line.solver] = {"color": GRAY, "marker": "o", "markersize": 4.5}
    return styles


def counterpart(method: str) -> str:
    """The name of a peer's method without its library."""
    return method[len("deepinv") :].strip(" -_:./") if is_peer(method) else method


def plain_axes(ax: Any) -> None:
    """Axes with a light grid, without a frame at the top and right."""
    ax.grid(color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8, colors=INK)


def calls_panel(ax: Any, lines: Sequence[Line], look: dict, several: set[str]) -> None:
    """One problem: PSNR over the logarithm of the calls, each curve named at the right."""
    plain_axes(ax)
    values = [line.psnr.mean for line in lines if line.psnr.mean is not None]
    top = max(values)
    low = min(value for value in values if value >= top - PANEL_SPAN)
    margin = 0.05 * max(top - low, 2.0)
    top, low = top + margin, low - margin
    reach = [max(line.network_calls.mean or 1, 1) for line in lines if not line.classical] or [1, 10]
    first, last = 0.8 * min(reach), 1.25 * max(reach)
    ax.set_xscale("log")
    ax.set_xlim(first, last)
    ax.set_ylim(low, top)
    ticks = [b for b in BUDGETS if first <= b <= last] or sorted(unique(reach))
    ax.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set_xlabel("network calls per sample", fontsize=8)
    ends: list[tuple[float, str, str, float | None]] = []  # height, name, colour, calls at the end
    for key in unique((line.method, line.solver) for line in lines):
        of = [line for line in lines if (line.method, line.solver) == key]
        name, style = label(of[0], several), look[key]
        if of[0].classical:
            height = max(line.psnr.mean or low for line in of)
            ax.axhline(height, color=GRAY, linestyle=(0, (5, 3)), linewidth=1)
            ends.append((height, name, GRAY, None))
            continue
        of = sorted(of, key=lambda line: line.network_calls.mean or 0)
        calls = [max(line.network_calls.mean or 1, 1) for line in of]
        heights = [line.psnr.mean for line in of]
        ax.errorbar(calls, heights, [line.psnr.error or 0 for line in of], **style, linewidth=1.3,
                    elinewidth=0.8, linestyle=":" if of[0].peer else "-")  # fmt: skip
        ends.append((heights[-1] or low, name, style["color"], calls[-1]))
    names(ax, sorted(ends, key=lambda end: end[0]), low, top, last)


def names(ax: Any, ends: Sequence[tuple], low: float, top: float, last: float) -> None:
    """The name of every curve beside the panel, moved apart, with a thin line from the end of the curve."""
    places = moved_apart([end[0] for end in ends], low, top, (top - low) / 24)
    beside = ax.get_yaxis_transform()  # x in widths of the panel, y in dB
    width = math.log(last / ax.get_xlim()[0])
    for (height, name, colour, calls), place in zip(ends, places, strict=True):
        start = 1.0 if calls is None else math.log(calls / ax.get_xlim()[0]) / width
        ax.plot([start, 1.0, 1.04], [max(height, low), max(height, low), place] if calls is None or start > 0.9
                else [max(height, low), place, place], color=colour, linewidth=0.5, alpha=0.55,
                transform=beside, clip_on=False)  # fmt: skip
        text = f"{name} ({height:.1f} dB)" if height < low else name
        ax.text(1.05, place, text, color=colour, fontsize=8, va="center", transform=beside,
                style="italic" if calls is None else "normal")  # fmt: skip
