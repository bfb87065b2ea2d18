"""The report of ``recon bench simulated``: a table of all scans, and how ours compares with the best of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from ...intervals import LEVEL
from ...io.reports import DASH, markdown, number_text, percent_text, unique
from ...metrics import SCALED
from ...registry.recipe import Recipe
from .design import RANGE, SimulatedCell
from .methods import DEFAULT, RIVALS, SCAN_METHODS

BELOW = 0.2  # dB: so much under the best of the others is below it
BELOW_ORACLE = 0.5  # dB under CG-SENSE with the true maps and support
SCORES = {"psnr": "whole image", "object_psnr": "in the object"}

Row = Mapping[str, Any]


@dataclass(frozen=True)
class ScanLine:
    """The rows of one scan: method -> row, those that failed among them."""

    cell: SimulatedCell
    rows: dict[str, Row]

    def score(self, method: str, score: str = "psnr") -> float | None:
        """A score of a method, None where there is none."""
        row = self.rows.get(method)
        return None if row is None or row["status"] != "done" else row["metrics"][score]

    def ours(self, name: str) -> Any:
        """A number of our row, None where there is none."""
        return self.rows.get(DEFAULT, {}).get(name)

    def ahead(self, score: str = "psnr", of: Sequence[str] = RIVALS) -> float | None:
        """Ours less the best of the others in dB; None where either is missing."""
        mine = self.score(DEFAULT, score)
        others = [value for method in of if (value := self.score(method, score)) is not None]
        return None if mine is None or not others else mine - max(others)


def lines_of(rows: Sequence[Row]) -> list[ScanLine]:
    """The rows by scan, in their order."""
    found: dict[SimulatedCell, dict[str, Row]] = {}
    for row in rows:
        spec = {k: v for k, v in row["cell"].items() if k != "method"}
        found.setdefault(SimulatedCell(**spec), {})[row["cell"]["method"]] = row
    return [ScanLine(cell, of) for cell, of in found.items()]


def simulated_report(rows: Sequence[Row], recipe: Recipe, name: str) -> tuple[str, list[str]]:
    """The page in Markdown, and the sentences of its summary."""
    lines = lines_of(rows)
    methods = [method for method in SCAN_METHODS if any(method in line.rows for line in lines)]
    summary = summarised(lines)
    made = (
        f"{len(lines)} scans simulated from slices of {name}. Ours: prior {recipe.prior}, {recipe.sampler} "
        f"{recipe.sampler_options}, {recipe.solver}, {recipe.steps} steps, mean of {recipe.samples} samples."
    )
    how = (
        f"PSNR in dB, whole image / in the object. {SCALED[0].upper()}{SCALED[1:]}. The reference is the root sum of squares of "
        "the full data without noise. CG-SENSE, TV (both with our maps) and BART have the best weight for the reference, "
        "which no user has; oracle: CG-SENSE with the true maps and support. Noise: per real component of k-space, "
        "relative to the reference's 99.5th percentile. Ahead: ours less the best of the others. Outside: pixels above 10 % of the maximum "
        "outside the support, with the std there relative to the maximum."
    )
    parts = ["# Simulated scans", made, "\n".join(f"- {line}" for line in summary), how]
    if any(line.ahead() is not None for line in lines):
        parts += ["## Ahead of the best of the others, by setting", axes_table(lines)]
    parts += ["## Every scan", cells_table(lines, methods)]
    if failed := failures_table(lines):
        parts += ["## Failed", failed]
    return "\n\n".join(parts) + "\n", summary


def summarised(lines: Sequence[ScanLine]) -> list[str]:
    """How ours compares, in sentences."""
    said = []
    for score, words in SCORES.items():
        found = {line.cell.label: ahead for line in lines if (ahead := line.ahead(score)) is not None}
        if found:
            worst = min(found, key=lambda label: found[label])
            below = sum(value < -BELOW for value in found.values())
            said.append(
                f"{words}: ahead of the best of {', '.join(RIVALS)} by {median(found.values()):.2f} dB in the median of "
                f"{len(found)} scans, worst {found[worst]:.2f} dB ({worst}); {below} below by more than {BELOW} dB"
            )
    beyond = [value for line in lines if (value := line.ahead(of=("oracle",))) is not None]
    if beyond:
        below = sum(value < -BELOW_ORACLE for value in beyond)
        said.append(
            f"against CG-SENSE with the true maps and support: {median(beyond):.2f} dB in the median, worst "
            f"{min(beyond):.2f} dB; {below} below by more than {BELOW_ORACLE} dB"
        )
    outside = {line.cell.label: line.ours("outside") for line in lines if line.ours("outside")}
    if any(line.score(DEFAULT) is not None for line in lines):
        worst = max(outside, key=lambda label: outside[label], default=None)
        said.append(
            f"scans with pixels of the object outside the support: {len(outside)}"
            + (f", at most {outside[worst]} ({worst})" if worst else "")
        )
    covered = [value for line in lines if (value := line.ours("coverage")) is not None]
    if covered:
        said.append(
            f"{LEVEL:.0%} intervals hold {percent_text(fmean(covered))} of the object's pixels, "
            f"{percent_text(min(covered))} to {percent_text(max(covered))} over the scans"
        )
    failed = [
        f"{row['cell']['method']}" for line in lines for row in line.rows.values() if row["status"] != "done"
    ]
    if failed:
        counts = ", ".join(f"{name} {failed.count(name)}" for name in unique(failed))
        said.append(f"failed: {counts}")
    return said


def axes_table(lines: Sequence[ScanLine]) -> str:
    """For each value of each axis: median and worst over the scans that have it, and how many are below."""
    table = [
        [
            "axis",
            "value",
            "scans",
            "median",
            "worst",
            "median in the object",
            "below",
            "oracle worst",
            "outside",
            "coverage",
        ]
    ]
    for axis in RANGE:
        for value in sorted({getattr(line.cell, axis) for line in lines}):
            of = [line for line in lines if getattr(line.cell, axis) == value]
            ahead = [a for line in of if (a := line.ahead()) is not None]
            inside = [a for line in of if (a := line.ahead("object_psnr")) is not None]
            oracle = [a for line in of if (a := line.ahead(of=("oracle",))) is not None]
            covered = [share for line in of if (share := line.ours("coverage")) is not None]
            table.append(
                [
                    axis,
                    str(value),
                    str(len(ahead)),
                    number_text(median(ahead) if ahead else None),
                    number_text(min(ahead, default=None)),
                    number_text(median(inside) if inside else None),
                    str(sum(a < -BELOW for a in ahead)),
                    number_text(min(oracle, default=None)),
                    str(sum(bool(line.ours("outside")) for line in of)),
                    percent_text(fmean(covered) if covered else None),
                ]
            )
    return markdown(table)


def cells_table(lines: Sequence[ScanLine], methods: Sequence[str]) -> str:
    """One row per scan: the settings, PSNR of every method, and what else is known of ours."""
    table = [[*RANGE, "slice", *methods, "ahead", "residual", "coverage", "outside", "s"]]
    for line in sorted(lines, key=lambda line: [getattr(line.cell, axis) for axis in RANGE]):
        scores = [
            "failed"
            if line.rows.get(method, {}).get("status") == "failed"
            else " / ".join(number_text(line.score(method, score)) for score in SCORES)
            for method in methods
        ]
        outside = line.ours("outside")
        std = line.ours("outside_std")
        table.append(
            [
                *(str(getattr(line.cell, axis)) for axis in (*RANGE, "slice")),
                *scores,
                " / ".join(number_text(line.ahead(score)) for score in SCORES),
                number_text(line.ours("residual")),
                percent_text(line.ours("coverage")),
                DASH if outside is None else f"{outside}" + (f" ({std:.3f})" if std is not None else ""),
                number_text(line.ours("seconds"), ".0f"),
            ]
        )
    return markdown(table)


def failures_table(lines: Sequence[ScanLine]) -> str:
    """What failed, and why; empty where nothing did."""
    table = [["scan", "method", "what", "why"]]
    for line in lines:
        for method, row in line.rows.items():
            if row["status"] != "done":
                table.append([line.cell.label, method, row["error"]["what"], row["error"]["why"]])
    return markdown(table) if len(table) > 1 else ""
