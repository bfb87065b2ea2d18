"""A calibration as a table, in sentences, and as a figure: coverage by level, and ranks of the reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...calibration import Calibration, LevelRow
from ...io.acquisition import MaskChoice
from ...io.reports import GRID, INK, markdown, number_text, percent_text
from ...registry.recipe import Recipe

MAIN = 0.9  # the level that the last line is about, or the nearest to it
OURS = "#1f77b4"
DIGITS = ".3g"  # of a level in percent


def calibration_markdown(found: Calibration, names: Sequence[str], recipe: Recipe, mask: MaskChoice) -> str:
    """The whole report in Markdown."""
    given = {"acceleration": mask.accel, "centre": mask.center}
    chosen = ", ".join(
        [f"mask {mask.name or mask.key}", *(f"{k} {v:g}" for k, v in given.items() if v is not None)]
    )
    made = (
        f"{found.images} slices of {', '.join(names)}, {chosen}. Prior {recipe.prior}, sampler {recipe.sampler} "
        f"{recipe.sampler_options}, solver {recipe.solver}, {recipe.steps} steps, {recipe.samples} samples, seed {recipe.seed}."
    )
    how = (
        f"Object: where the reference exceeds 5 % of its maximum, {found.pixels} pixels in all. Every slice counts the "
        "same; ± is the standard error over slices. Scale: the factor by which the std, and so the width of the "
        "interval, would have to be multiplied for the interval to hold its level. Width: mean, relative to the "
        "object's mean."
    )
    parts = [
        "# Calibration of the intervals",
        verdict(found),
        made,
        coverage_table(found),
        ranks_in_words(found),
        how,
    ]
    return "\n\n".join([*parts, "![Coverage by level, and ranks](calibration.png)"]) + "\n"


def coverage_table(found: Calibration) -> str:
    """One row per level, in Markdown."""
    rows = [["level", "held", "±", "slices", "scale", "width"]]
    rows += [
        [
            percent_text(r.level, DIGITS),
            f"{100 * r.held:.1f} %",
            f"{100 * r.error:.1f}",
            str(found.images),
            number_text(r.scale),
            f"{r.width:.3f}",
        ]
        for r in found.rows
    ]
    return markdown(rows)


def ranks_in_words(found: Calibration) -> str:
    """Z-scores and ranks in a sentence."""
    expected = (
        number_text(found.expected_z) if math.isfinite(found.expected_z) else "unbounded for so few samples"
    )
    return (
        f"Mean squared z-score {number_text(found.squared_z)} (for exact samples: {expected}). Ranks of the reference among "
        f"the samples: {found.shape} (variance {found.rank_variance:.2f} of uniform ranks', mean {found.mean_rank:.2f})."
    )


def verdict(found: Calibration) -> str:
    """One line on the level nearest to 90 %."""
    row = min(found.rows, key=lambda row: abs(row.level - MAIN))
    return f"{percent_text(row.level, DIGITS)} interval holds {100 * row.held:.1f} % of the object's pixels ({judgement(row)})"


def judgement(row: LevelRow) -> str:
    """Whether the intervals of a level are true, too narrow or too wide, and the factor that would mend them."""
    level = percent_text(row.level, DIGITS)
    if not math.isfinite(row.scale):
        return f"too narrow: no std would hold {level}, since it is 0 where the reference differs"
    off = row.held - row.level
    said = (
        "true within the standard error" if abs(off) <= row.error else "too narrow" if off < 0 else "too wide"
    )
    return f"{said}: std x {row.scale:.2f} would hold {level}"


def reliability_figure(found: Calibration) -> Any:
    """Left: coverage against level, with its standard error. Right: ranks of the reference among the samples."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(9, 4.4), dpi=100, layout="constrained")
    FigureCanvasAgg(drawn)
    left, right = drawn.subplots(1, 2)
    drawn.suptitle(verdict(found), color=INK, fontsize=10)
    levels, held = [100 * r.level for r in found.rows], [100 * r.held for r in found.rows]
    left.plot([0, 100], [0, 100], "--", color=INK, linewidth=1)
    left.text(22, 16, "true", color=INK, fontsize=9, rotation=45, rotation_mode="anchor")
    left.errorbar(
        levels, held, [100 * r.error for r in found.rows], color=OURS, marker="o", markersize=4, capsize=3
    )
    left.set(
        xlim=(0, 100),
        ylim=(0, 100),
        aspect="equal",
        xlabel="level of the interval, %",
        ylabel="pixels of the object within it, %",
    )
    uniform = 100 / len(found.ranks)
    right.bar(range(len(found.ranks)), [100 * share for share in found.ranks], width=0.9, color=OURS)
    right.axhline(uniform, linestyle="--", color=INK, linewidth=1)
    right.set(xlabel="samples below the reference", ylabel="pixels of the object, %")
    right.xaxis.get_major_locator().set_params(integer=True)
    right.set_title(found.shape, color=INK, fontsize=9)
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(color=GRID, linewidth=0.6)
        ax.set_axisbelow(True)
    return drawn
