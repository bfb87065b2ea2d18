"""How a sampler's memory grows with its particles: by states and measurements, not by the network's activations."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from operators.masks import make_mask
from operators.mri import MRI

from ..noise import Noise
from ..posteriors import DDS, DPS, SMC, Ensemble
from ..priors import Prior, chunked
from ..problem import Problem
from ..sampling import sample

SIZE, CHUNK, FEW, MANY, STEPS = 64, 2, 4, 32, 2
SAMPLERS = {"SMC": SMC, "ensemble of DDS": lambda prior: Ensemble(DDS(prior)), "DPS": DPS}
SOLVER = "ddpm"
LOG_LEVEL = "5"  # the log level at which the profiler prints no lines of its own


@dataclass(frozen=True)
class Growth:
    """Peak bytes of runs with few and with many particles; ``states``: the growth of the peak with a free denoiser."""

    name: str
    few: int
    many: int
    states: int

    @property
    def held(self) -> bool:
        """Whether the peak grows by no more than the states and measurements."""
        return self.many - self.few <= self.states

    def __str__(self) -> str:
        few, many, grown, states = (
            n / 2**20 for n in (self.few, self.many, self.many - self.few, self.states)
        )
        return (
            f"memory of {self.name}, {SIZE} x {SIZE}, {CHUNK} rows through the network at a time: {few:.1f} MiB with "
            f"{FEW} particles, {many:.1f} MiB with {MANY}: {grown:.1f} MiB more, with states and measurements alone "
            f"{states:.1f} MiB (bar: no more than those: {'held' if self.held else 'missed'})"
        )


def memory_growth(prior: Prior, coils: Tensor) -> Iterator[Growth]:
    """The growth of each of `SAMPLERS`, with the prior in chunks and with a denoiser that allocates nothing more."""
    size = coils.shape[-1]
    mask = make_mask("equispaced-fraction", (size, size), 4).float()
    A = MRI(mask, coils)
    truth = Noise(0)(torch.zeros(1, 1, size, size, dtype=torch.complex64), 0)
    problem = Problem(A, A.forward(truth), 0.01)
    free = Prior(lambda x, sigma: x * (1 / (1 + sigma**2)), of=prior)
    for name, make in SAMPLERS.items():

        def peak(denoiser: Prior, particles: int, make=make) -> int:
            return peak_bytes(lambda: sample(problem, denoiser, make(denoiser), SOLVER, STEPS, particles))

        peak(free, 1)  # operators fill their caches
        few, many = (peak(chunked(prior, CHUNK), particles) for particles in (FEW, MANY))
        yield Growth(name, few, many, peak(free, MANY) - peak(free, FEW))


def peak_bytes(run: Callable[[], object]) -> int:
    """The most bytes that tensors on the CPU took at once while ``run`` ran, above what they took before."""
    with TemporaryDirectory() as folder, patch.dict(os.environ, {"KINETO_LOG_LEVEL": LOG_LEVEL}):
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            run()
        trace = Path(folder) / "trace.json"
        seen.export_chrome_trace(str(trace))
        events = [e for e in json.loads(trace.read_text())["traceEvents"] if e.get("name") == "[memory]"]
    events.sort(key=lambda event: event["ts"])
    now = most = 0
    for event in events:
        now += event["args"]["Bytes"]
        most = max(most, now)
    return most
