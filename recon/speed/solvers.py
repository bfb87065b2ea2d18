"""``recon bench solvers``: what the walk costs besides the network, with a denoiser and noise that cost nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..grids import karras
from ..noise import Noise
from ..posteriors import Posterior
from ..runtime.allocation import keep_memory
from ..solvers import SOLVERS, Solver
from ..walk import walk
from .timing import Timed, interleaved

SIZE, STEPS, BAR = 320, 20, 0.5  # pixels, steps of a walk, milliseconds per step
STATE_DTYPES = {"complex64": torch.complex64, "float32": torch.float32}


@dataclass(frozen=True)
class StoredNoise(Noise):
    """Noise that was drawn before: always ``stored``."""

    stored: Tensor = field(kw_only=True)

    def __call__(self, like: Tensor, step: int, stream: str = "step") -> Tensor:
        return self.stored


@dataclass(frozen=True)
class StepCost:
    """Milliseconds per step of ``walk``, by dtype of the state; ``evals``: denoiser calls per step."""

    name: str
    evals: int
    milliseconds: dict[str, float]

    @property
    def held(self) -> bool | None:
        """Whether the time is within the bar; None for solvers of several calls per step, which have no bar."""
        return max(self.milliseconds.values()) <= BAR if self.evals == 1 else None

    def __str__(self) -> str:
        times = ", ".join(f"{kind} {time:.3f} ms" for kind, time in self.milliseconds.items())
        bar = {True: f"bar {BAR} ms: held", False: f"bar {BAR} ms: missed", None: "no bar"}[self.held]
        return f"{self.name}: {times} per step, {self.evals} call{'s' * (self.evals > 1)} per step ({bar})"


def solver_costs(repetitions: int, size: int = SIZE) -> list[StepCost | str]:
    """Every registered solver, measured in turns; last, the cost of one draw of noise, which is in none of them."""
    solvers = {name: make() for name, make in SOLVERS.items()}
    times = {
        kind: step_times(list(solvers.values()), dtype, repetitions, size)
        for kind, dtype in STATE_DTYPES.items()
    }
    rows: list[StepCost | str] = [
        StepCost(name, solver.evals, {kind: found[place] for kind, found in times.items()})
        for place, (name, solver) in enumerate(solvers.items())
    ]
    draws = ", ".join(f"{kind} {found[-1]:.3f} ms" for kind, found in times.items())
    return [*rows, f"one draw of noise, not part of these: {draws}"]


def step_times(solvers: list[Solver], dtype: torch.dtype, repetitions: int, size: int) -> list[float]:
    """Milliseconds per step of each solver, then of one draw of noise, for one image (1, 1, size, size)."""
    like = torch.zeros(1, 1, size, size, dtype=dtype)
    clean, stored = Noise(0)(like, 0), Noise(1)(like, 0)
    grid, free = karras(STEPS, 10.0, 0.01), Posterior(lambda x, sigma: clean)

    def walked(solver: Solver) -> Timed:
        return lambda: deque(walk(free, solver, grid, 10.0 * stored, StoredNoise(0, stored=stored)), maxlen=0)

    calls: list[Callable[[], object]] = [walked(solver) for solver in solvers]
    keep_memory()
    with torch.no_grad():
        *walks, draw = interleaved(*calls, lambda: Noise(2)(like, 0), repetitions=repetitions)
    return [*(1e3 * seconds / STEPS for seconds in walks), 1e3 * draw]
