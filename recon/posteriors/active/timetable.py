"""When to measure: the steps in the window, and how many actions after each."""

from __future__ import annotations

import math
from collections import Counter

from ...errors import ConfigError

Timetable = dict[float, tuple[int, list[int]]]
"""Level that a step ends at to (step, actions of each image measured there)."""


def measuring_steps(
    grid: list[float], window: tuple[float, float], sigmas: tuple[float, float] | None
) -> list[int]:
    """The steps after which something may be measured: in the window, and not the last.

    ``window``: shares of the steps; ``sigmas``: (high, low) levels, which go first. Raises `ConfigError` where
    none is left.
    """
    last = len(grid) - 2  # the step to the end of the grid
    if sigmas is not None:
        high, low = sigmas
        inside = [i for i in range(last) if low <= grid[i + 1] <= high]
    else:
        first = min(math.ceil(window[0] * last), max(last - 1, 0))
        inside = list(range(last))[first : max(math.ceil(window[1] * last), first + 1)]
    if not inside:
        raise ConfigError(
            "No step to measure at.",
            f"None of the {last + 1} steps ends in the window.",
            "Take more steps, or a wider window.",
        )
    return inside


def timetable(steps: list[int], grid: list[float], wanted: list[int]) -> Timetable:
    """``wanted[b]`` actions of image b spread evenly over ``steps``; the counts add up exactly."""
    counts = []
    for amount in wanted:
        span = (len(steps) - 1) / max(amount - 1, 1)
        counts.append(Counter(steps[round(i * span)] for i in range(amount)))
    return {
        grid[step + 1]: (step, [count[step] for count in counts])
        for step in steps
        if any(count[step] for count in counts)
    }
