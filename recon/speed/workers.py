"""``recon bench workers``: pieces of work by two workers of `recon.runtime.cluster` beside one, one thread each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache

import torch

from operators.coils import rss, simulate_coils
from operators.masks import make_mask
from operators.mri import MRI

from ..errors import ConfigError
from ..networks.load import load_prior
from ..problem import Problem
from ..runtime.cluster import Cluster, gathered, on_worker
from ..sampling import sample

PIECES, SIDE = 12, 256


@cache
def posed() -> tuple[Problem, object]:
    """A multi-coil problem of noise and the prior that ships, once a process."""
    maps = simulate_coils(8, (SIDE, SIDE))
    A = MRI(make_mask("random", (SIDE, SIDE), 4.0, 0.08, 0), maps / rss(maps))
    draw = torch.Generator().manual_seed(0)
    y = torch.randn(1, *A.codomain, dtype=torch.complex64, generator=draw)
    return Problem(A, y, 0.1), load_prior("brain-mri")


def piece(seed: int) -> int:
    """One piece of work, like a cell of a benchmark: two samples in five calls each. Its number of network calls."""
    with on_worker():
        problem, prior = posed()
        return sample(problem, prior, steps=5, samples=2, seed=seed).network_calls


def seconds_of(workers: int) -> float:
    """The time of `PIECES` pieces by so many workers that have loaded what they need."""
    with Cluster(workers=workers).client(PIECES) as client:
        list(gathered(client, piece, [(seed,) for seed in range(2 * workers)]))
        started = time.monotonic()
        list(gathered(client, piece, [(seed,) for seed in range(PIECES)]))
        return time.monotonic() - started


def worker_gain(repetitions: int) -> Iterator[str]:
    """How much faster two workers are than one, in a sentence; needs two free cores or GPUs."""
    try:
        one, two = seconds_of(1), seconds_of(2)
    except ConfigError as missing:
        yield f"workers: not measured. {missing.do}"
        return
    yield (
        f"{PIECES} pieces of work by two workers: {two:.1f} s against {one:.1f} s, {one / two:.2f} x "
        "(one worker's time over two's; bar at least 1.8)"
    )
