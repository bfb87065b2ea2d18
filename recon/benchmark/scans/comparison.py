"""``recon bench mri``: image quality on real scans beside the tools in use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...intervals import LEVEL
from ...io.reports import number_text
from ...jobs.shared.settings import Settings, prepared_prior, settle
from ...priors import Prior
from ...registry.configuration import read_config
from .methods import DEFAULT, REAL_METHODS, RIVALS, chosen_methods
from .real import RealScan, Say, real_scans, undersampled
from .scan import Scan, Trial
from .score import scored_scan

TITLES = {
    "cg-sense": "CG-SENSE",
    "bart": "BART L1-wavelets",
    "tv": "total variation",
    DEFAULT: "recon, mean of",
}
Scored = dict[str, Any]


def run_comparison(
    config: str | None = None,
    data: str | Path | None = None,
    *,
    files: Sequence[str | Path] = (),
    cases: Sequence[str] = (),
    methods: Sequence[str] = (),
    say: Say = print,
) -> None:
    """`compare_on_scan` with the settings of ``config`` (a preset or a YAML file) on each of `real.real_scans`."""
    settings = settle(read_config(config) if config else {}, {})
    names = chosen_methods(methods, say, REAL_METHODS)
    scans = real_scans(data, files, cases)
    prior = prepared_prior(settings)
    for scan in scans:
        compare_on_scan(scan, names, settings, prior, say)


def compare_on_scan(
    scan: RealScan, methods: Sequence[str], settings: Settings, prior: Prior, say: Say = print
) -> None:
    """Every method on the first slice of a fully sampled file in each of the scan's cases, as Markdown.

    Reference: root sum of squares of the fully sampled data. Convention of the first PSNR and of SSIM:
    `metrics.SCALED`; fastMRI's PSNR beside it. CG-SENSE, BART and TV have the best weight for the reference, which no
    user has; CG-SENSE and TV have the maps of ours. Residual: in units of the estimated noise.
    """
    say(f"{scan.path.name}:")
    say(
        "| case | lines | method | network calls | PSNR | in the object | SSIM | PSNR, fastMRI | residual | s |"
    )
    say("|---|---|---|---|---|---|---|---|---|---|")
    ahead = []
    for case, here in undersampled(scan, settings, prior):
        trial, rows = Trial(here, settings, prior), {}
        for method in methods:
            rows[method] = scored_scan(here, REAL_METHODS[method](trial), LEVEL)
            say(line_of(case.name, here, method, rows[method]))
        ahead += ahead_in_words(case.name, rows)
    for line in ahead:
        say(line)


def line_of(case: str, scan: Scan, method: str, row: Scored) -> str:
    """One row of the table."""
    metrics, notes, title = row["metrics"], row["notes"], TITLES.get(method, method)
    calls = str(row["network_calls"])
    if method == DEFAULT:
        title, calls = f"{title} {notes['samples']}", f"{notes['samples']} x {calls}"
    elif "lambda" in notes:
        title = f"{title}, lambda {notes['lambda']:g}"
    forms = {"psnr": ".2f", "object_psnr": ".2f", "ssim": ".3f", "fastmri_psnr": ".2f"}
    numbers = [number_text(metrics[name], form) for name, form in forms.items()]
    lines = str(int(scan.mask.any(0).sum()))
    cells = [case, lines, title, calls, *numbers, number_text(row["residual"]), f"{row['seconds']:.0f}"]
    return f"| {' | '.join(cells)} |"


def ahead_in_words(case: str, rows: dict[str, Scored]) -> list[str]:
    """How far ours is ahead of each of the others, in a sentence; none where one of them is missing."""
    others = [name for name in RIVALS if name in rows]
    if DEFAULT not in rows or not others:
        return []
    found = [
        f"{TITLES[name]} by "
        + " / ".join(
            f"{rows[DEFAULT]['metrics'][m] - rows[name]['metrics'][m]:+.2f}" for m in ("psnr", "object_psnr")
        )
        for name in others
    ]
    return [f"{case}: recon is ahead of {', '.join(found)} dB (whole image / in the object)"]
