"""The cells of a benchmark: every combination that is measured once, each with its key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from typing import Any

from .methods.classical import CLASSICAL
from .problems import ProblemSpec
from .specs import Benchmark, MethodSpec

FORMAT = 1  # of a cell: another number makes every cell a new one


@dataclass(frozen=True)
class Cell:
    """One measurement of a benchmark: everything its numbers depend on but the code."""

    problem: str
    problem_spec: ProblemSpec
    input: str
    slice: int
    place: int  # among the slices of its input
    method: str
    spec: MethodSpec
    solver: str | None
    calls: int | None
    samples: int
    seed: int
    prior: str
    level: float

    def key(self, data: str, weights: str) -> str:
        """The hash of the resolved cell, the digests of its input and of the prior's weights among it."""
        spec = {k: v for k, v in asdict(self.spec).items() if k not in UNSEEN}
        told = asdict(self) | {"spec": spec, "data": data, "weights": weights, "format": FORMAT}
        del told["place"]
        text = json.dumps(told, sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    @property
    def scene(self) -> str:
        """A name for what is measured, which all methods share."""
        text = f"{self.problem}|{self.input}|{self.slice}|{self.seed}"
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()

    @property
    def label(self) -> str:
        budget = "" if self.calls is None else f", {self.calls} calls"
        solver = "" if self.solver is None else f", {self.solver}"
        return f"{self.problem} / {self.input} {self.slice} / {self.method}{solver}{budget}"

    def told(self) -> dict[str, Any]:
        """As a row keeps it."""
        rest = {k: v for k, v in asdict(self.spec).items() if k not in (*UNSEEN, "sampler") and v}
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


UNSEEN = ("solver", "calls", "samples", "problems", "limit")  # what a cell says itself, or does not depend on


def cells(plan: Benchmark, slices: Mapping[str, Mapping[str, Sequence[int]]]) -> Iterator[Cell]:
    """All cells; ``slices[problem][input]`` are those of each. The first slices of everything come first."""
    most = max((len(s) for inputs in slices.values() for s in inputs.values()), default=0)
    for place in range(most):
        for problem, spec in plan.problems.items():
            for source, indices in slices[problem].items():
                if place >= len(indices):
                    continue
                for name, method in plan.methods.items():
                    if not applies(method, problem, place):
                        continue
                    for solver, calls, seed in budgets(plan, method):
                        yield Cell(
                            problem,
                            replace(spec, inputs=()),
                            source,
                            indices[place],
                            place,
                            name,
                            method,
                            solver,
                            calls,
                            1 if method.sampler in CLASSICAL else method.samples or plan.samples,
                            seed,
                            plan.prior,
                            plan.level,
                        )


def applies(method: MethodSpec, problem: str, place: int) -> bool:
    named = any(fnmatch(problem, pattern) for pattern in method.problems)
    return named and (method.limit is None or place < method.limit)


def budgets(plan: Benchmark, method: MethodSpec) -> Iterable[tuple[str | None, int | None, int]]:
    """(solver, calls, seed) to run over; a classical method has only the one."""
    if method.sampler in CLASSICAL:
        return [(None, None, plan.seeds[0])]
    solvers = (method.solver or plan.solver) if method.ours else (None,)
    calls = method.calls or (plan.calls if method.ours else (None,))
    return [(solver, budget, seed) for solver in solvers for budget in calls for seed in plan.seeds]
