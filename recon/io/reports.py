"""What the reports of different jobs share: colours and label positions of figures, Markdown, numbers as text, JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

INK, GRID = "#222222", "#dddddd"
DASH = "–"


def unique(values: Iterable[Any]) -> list[Any]:
    """The values, each once, in the order in which they first came."""
    return list(dict.fromkeys(values))


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the head first."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def number_text(value: float | None, form: str = ".2f") -> str:
    """``value`` in ``form``; a dash where there is none."""
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return format(value, form)


def percent_text(share: float | None, form: str = ".1f") -> str:
    """A share in percent; a dash where there is none."""
    return DASH if share is None else f"{number_text(100 * share, form)} %"


def moved_apart(heights: Sequence[float], low: float, top: float, gap: float) -> list[float]:
    """Increasing ``heights`` moved to distances of at least ``gap`` within [low, top], for labels beside curves."""
    placed: list[float] = []
    for height in heights:
        placed.append(max([height, low, *(p + gap for p in placed[-1:])]))
    over = top
    for place in reversed(range(len(placed))):
        placed[place] = min(placed[place], over)
        over = placed[place] - gap
    return placed


def json_text(value: Any, indent: int | None = None) -> str:
    """``value`` as JSON: infinities and NaN, which JSON does not have, are null; unknown objects their text."""
    return json.dumps(finite_or_null(value), indent=indent, default=str, allow_nan=False)


def finite_or_null(value: Any) -> Any:
    """``value`` with None for every number that is not finite, at any depth."""
    if isinstance(value, Mapping):
        return {key: finite_or_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
