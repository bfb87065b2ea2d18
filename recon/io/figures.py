"""What figures and Markdown tables of different reports have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

INK, GRID = "#222222", "#dddddd"


def unique(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def spread(heights: Sequence[float], low: float, top: float, gap: float) -> list[float]:
    """Rising ``heights`` moved apart to at least ``gap``, as near to where they were as that allows."""
    placed: list[float] = []
    for height in heights:
        placed.append(max([height, low, *(p + gap for p in placed[-1:])]))
    over = top
    for place in reversed(range(len(placed))):
        placed[place] = min(placed[place], over)
        over = placed[place] - gap
    return placed
