"""Times that can be compared: calls are made in turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

Timed = Callable[[], object]


def interleaved(*calls: Timed, repetitions: int) -> list[float]:
    """Median seconds of each call, after one round that only warms up."""
    times: list[list[float]] = [[] for _ in calls]
    for repetition in range(repetitions + 1):
        for call, kept in zip(calls, times, strict=True):
            started = time.perf_counter()
            call()
            if repetition:
                kept.append(time.perf_counter() - started)
    return [median(kept) for kept in times]
