"""The cells of a benchmark: every combination that is measured once, each with its key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from typing import Any

from .methods.kinds import Kind
from .specs import Benchmark, MethodSpec, ProblemSpec

FORMAT = 1  # of a cell's key: another number makes every cell a new one


@dataclass(frozen=True)
class Cell:
    """One measurement of a benchmark: everything its numbers depend on but the code.

    ``rank`` is the slice's place among the chosen slices of its input, from 0.
    """

    problem: str
    problem_spec: ProblemSpec
    input: str
    slice: int
    rank: int
    method: str
    spec: MethodSpec
    solver: str | None
    calls: int | None
    samples: int
    seed: int
    prior: str
    level: float

    def key(self, data: str, weights: str) -> str:
        """The hash of the cell's settings, of the digest of its input (``data``) and that of the prior's ``weights``."""
        spec = {k: v for k, v in asdict(self.spec).items() if k not in NOT_HASHED}
        hashed = asdict(self) | {"spec": spec, "data": data, "weights": weights, "format": FORMAT}
        del hashed["rank"]
        text = json.dumps(hashed, sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    @property
    def scene(self) -> str:
        """A name for what is measured, which all methods share."""
        text = f"{self.problem}|{self.input}|{self.slice}|{self.seed}"
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()

    @property
    def label(self) -> str:
        """The cell in words."""
        budget = "" if self.calls is None else f", {self.calls} calls"
        solver = "" if self.solver is None else f", {self.solver}"
        return f"{self.problem} / {self.input} {self.slice} / {self.method}{solver}{budget}"

    def as_row(self) -> dict[str, Any]:
        """The cell as its row keeps it."""
        rest = {k: v for k, v in asdict(self.spec).items() if k not in (*NOT_HASHED, "sampler") and v}
        return {
            "problem": self.problem,
            "input": self.input,
            "slice": self.slice,
            "method": self.method,
            "sampler": self.spec.sampler,
            "solver": self.solver,
            "calls": self.calls,
            "samples": self.samples,
            "seed": self.seed,
            "prior": self.prior,
            "measured": {k: v for k, v in asdict(self.problem_spec).items() if v and k != "inputs"},
            "settings": rest,
        }


NOT_HASHED = ("solver", "calls", "samples", "problems", "limit")
"""Settings of a method that a cell has itself, or whose value does not change its numbers."""


def cells(config: Benchmark, slices: Mapping[str, Mapping[str, Sequence[int]]]) -> Iterator[Cell]:
    """All cells, the first slices of everything first; ``slices[problem][input]`` are the slices of each input."""
    most = max((len(s) for inputs in slices.values() for s in inputs.values()), default=0)
    for rank in range(most):
        for problem, problem_spec in config.problems.items():
            for source, indices in slices[problem].items():
                if rank >= len(indices):
                    continue
                for name, method in config.methods.items():
                    if not applies(method, problem, rank):
                        continue
                    classical = method.kind is Kind.CLASSICAL
                    for solver, calls, seed in budgets(config, method):
                        yield Cell(
                            problem=problem,
                            problem_spec=replace(problem_spec, inputs=()),
                            input=source,
                            slice=indices[rank],
                            rank=rank,
                            method=name,
                            spec=method,
                            solver=solver,
                            calls=calls,
                            samples=1 if classical else method.samples or config.samples,
                            seed=seed,
                            prior=config.prior,
                            level=config.level,
                        )


def applies(method: MethodSpec, problem: str, rank: int) -> bool:
    """Whether a method runs on a problem's slice of this rank."""
    named = any(fnmatch(problem, pattern) for pattern in method.problems)
    return named and (method.limit is None or rank < method.limit)


def budgets(config: Benchmark, method: MethodSpec) -> Iterable[tuple[str | None, int | None, int]]:
    """(solver, calls, seed) to run over; a classical method has only the one."""
    if method.kind is Kind.CLASSICAL:
        return [(None, None, config.seeds[0])]
    ours = method.kind is Kind.RECON
    solvers = (method.solver or config.solver) if ours else (None,)
    calls = method.calls or (config.calls if ours else (None,))
    return [(solver, budget, seed) for solver in solvers for budget in calls for seed in config.seeds]
