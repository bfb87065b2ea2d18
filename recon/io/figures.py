"""What the figures and Markdown tables of different reports share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

INK, GRID = "#222222", "#dddddd"


def unique(values: Iterable[Any]) -> list[Any]:
    """The values, each once, in the order in which they first came."""
    return list(dict.fromkeys(values))


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the head first."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


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
