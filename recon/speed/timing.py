"""Times that can be compared: calls are made in turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Comparison:
    """Two times in seconds, ``ours`` and ``theirs``; ``ratio`` as ``meaning`` says, ``bar``: what it should be."""

    name: str
    ours: float
    theirs: float
    ratio: float
    meaning: str
    bar: str

    def __str__(self) -> str:
        return (
            f"{self.name}: {1e3 * self.ours:.2f} ms against {1e3 * self.theirs:.2f} ms, "
            f"{self.ratio:.2f} x ({self.meaning}; bar {self.bar})"
        )


def versus(
    name: str, ours: Timed, theirs: Timed, bar: str, repetitions: int, peer: str = "deepinv"
) -> Comparison:
    """Our time beside a peer's."""
    a, b = interleaved(ours, theirs, repetitions=repetitions)
    return Comparison(name, a, b, b / a, f"{peer}'s time over ours", bar)
