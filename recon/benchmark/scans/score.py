"""What is measured of a reconstruction of a scan."""

from __future__ import annotations

from typing import Any

from ...io.reports import finite_or_null
from ...metrics import coverage, least_squares_scale
from ..scene import image_scores
from .scan import Found, Scan

CERTAIN = 0.1  # of the reference's maximum: certainly object


def scored_scan(scan: Scan, found: Found, level: float) -> dict[str, Any]:
    """What a row says of a reconstruction: `image_scores`, coverage of the ``level`` intervals, and what the support lost.

    ``outside``: number of pixels above `CERTAIN` of the reference's maximum that are outside the support;
    ``outside_std`` and ``outside_error``: the medians there of std and of the error, relative to that maximum.
    """
    image, reference = scan.cropped(found.image), scan.reference
    samples = None if found.samples is None else scan.cropped(found.samples)
    row: dict[str, Any] = {
        "metrics": image_scores(image, reference),
        "residual": found.residual,
        "coverage": None if samples is None else coverage(reference, samples, level=level).value,
        "level": level,
        "network_calls": found.network_calls,
        "seconds": round(found.seconds, 3),
        "notes": found.notes or {},
    }
    if found.support is not None:
        lost = (reference > CERTAIN * reference.max()) & ~scan.cropped(found.support)
        row |= {"outside": int(lost.sum())}
        if lost.any():
            error = (least_squares_scale(image, reference) * image - reference).abs()[lost]
            top = float(reference.max())
            row["outside_error"] = float(error.median()) / top
            if samples is not None:
                row["outside_std"] = float(samples.std(0)[lost].median()) / top
    return finite_or_null(row)


def scores_in_words(row: dict[str, Any]) -> str:
    """The numbers of a row in one line."""
    metrics, notes = row["metrics"], row["notes"]
    words = [f"{metrics['psnr']:.2f} dB, {metrics['object_psnr']:.2f} in the object"]
    for name, form in (("residual", ".2f"), ("coverage", ".3f")):
        if row[name] is not None:
            words.append(f"{name} {row[name]:{form}}")
    if row.get("outside"):
        words.append(f"{row['outside']} pixels of the object outside the support")
    if "lambda" in notes:
        words.append(f"lambda {notes['lambda']:g}")
    return ", ".join([*words, f"{row['seconds']:.1f} s"])
