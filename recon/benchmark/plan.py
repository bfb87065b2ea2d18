"""The grid of a benchmark: problems x methods x solvers x budgets x seeds over images or k-space, as cells."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatch
from typing import Any

from ..acquisition import MaskChoice
from ..config import admit, construct, parameters, read_config, refuse_unknown
from ..errors import ConfigError, unknown
from ..forward import OPERATORS
from ..grids import GRIDS
from ..posteriors import POSTERIORS, Active, Ensemble
from ..runtime import Runtime
from ..solvers import SOLVERS
from .classical import CLASSICAL
from .peers import PEERS

STARTS = ("noise", "fit")
FORMAT = 1  # of a cell: another number makes every cell a new one


@dataclass(frozen=True)
class ProblemSpec:
    """What is measured. Of images: ``operator`` (`recon list operators`, or module:Class), its ``options``, ``sigma``.

    ``sigma``: noise a real component, where the 99.5th percentile of the image is 1. Of k-space files: the
    ``mask`` alone (name, accel, center), seeded by the file's name. ``inputs``: others than the benchmark's.
    """

    operator: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    sigma: float | None = None
    mask: dict[str, Any] | None = None
    inputs: tuple[str, ...] = ()

    def __post_init__(self):
        if (self.operator is None) == (self.mask is None):
            raise ConfigError(
                "A problem has an operator or a mask.",
                "Images are measured by an operator, k-space is undersampled by a mask.",
                "Give one of the two.",
            )
        if self.operator is not None:
            if ":" not in self.operator and self.operator not in OPERATORS:
                raise unknown("operator", self.operator, OPERATORS)
            if ":" not in self.operator:
                known = OPERATORS[self.operator].options
                refuse_unknown(self.options, known, f"The operator {self.operator}")
            if not (isinstance(self.sigma, int | float) and self.sigma >= 0):
                raise ConfigError(
                    f"sigma of {self.operator} is {self.sigma!r}.",
                    "It is the noise's standard deviation a real component, images being 0 to 1.",
                    "Write sigma: 0.02.",
                )
        if self.mask is not None:
            if self.sigma is not None or self.options:
                raise ConfigError("A mask was given with sigma or options.", "The noise is that of the file.")
            construct(MaskChoice, self.mask, "A mask")


@dataclass(frozen=True)
class MethodSpec:
    """How a problem is solved: a sampler of ours, one of deepinv's, or a classical method, by name.

    ``options`` are the sampler's. ``solver`` and ``calls`` are lists to run over: network calls a sample, null for
    a method's own default. ``start``: "noise", or "fit", the least-squares fit plus noise of
    ``sigma_start``; the grid ends at ``sigma_end``. ``ensemble`` and ``active``: options of an
    `Ensemble` and an `Active` around the sampler. ``problems``: only these (patterns); ``limit``: the
    first slices only.
    """

    sampler: str
    options: dict[str, Any] = field(default_factory=dict)
    solver: tuple[str, ...] = ()
    solver_options: dict[str, Any] = field(default_factory=dict)
    calls: tuple[int | None, ...] = ()
    samples: int | None = None
    grid: str = "karras"
    start: str = "noise"
    sigma_start: float | None = None
    sigma_end: float | None = None
    ensemble: dict[str, Any] | None = None
    active: dict[str, Any] | None = None
    problems: tuple[str, ...] = ("*",)
    limit: int | None = None

    def __post_init__(self):
        if not self.ours:
            return
        known, _, anything = parameters(POSTERIORS[self.sampler])
        if not anything:
            options = [key for key in known if key not in ("prior", "problem")]
            refuse_unknown(self.options, options, f"The sampler {self.sampler}")
        for name, options, kind, own in (
            ("ensemble", self.ensemble, Ensemble, ("inner", "problem")),
            ("active", self.active, Active, ("inner", "problem", "measure")),
        ):
            refuse_unknown(options or {}, [k for k in parameters(kind)[0] if k not in own], f"An {name}")
        if self.grid not in GRIDS:
            raise unknown("grid", self.grid, GRIDS)
        if self.start not in STARTS:
            raise unknown("start", self.start, STARTS)
        if self.start == "fit" and self.sigma_start is None:
            raise ConfigError(
                f"The method {self.sampler} starts at the fit, without sigma_start.",
                "A warm start is the image plus noise of a stated level.",
                "Write sigma_start: 1.0.",
            )
        for name in self.solver:
            construct(SOLVERS[name], self.solver_options, f"The solver {name}")

    @property
    def ours(self) -> bool:
        return self.sampler not in PEERS and self.sampler not in CLASSICAL


@dataclass(frozen=True)
class Plan:
    """A benchmark, checked. ``slices``: how many of each input, spread evenly; ``pictures``: of the first so many."""

    inputs: tuple[str, ...]
    problems: dict[str, ProblemSpec]
    methods: dict[str, MethodSpec]
    title: str = "Benchmark"
    prior: str = "brain-mri"
    solver: tuple[str, ...] = ("dpm++2m",)
    calls: tuple[int | None, ...] = (20,)
    samples: int = 4
    seeds: tuple[int, ...] = (0,)
    slices: int | tuple[int, ...] = 1
    pictures: int = 1
    level: float = 0.9
    runtime: Runtime = field(default_factory=Runtime)


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


def make_plan(config: str | Mapping[str, Any]) -> Plan:
    """The plan of a YAML file or preset, or of its mapping; raises `ConfigError` for what it does not know."""
    settings = dict(read_config(config) if isinstance(config, str) else config)
    refuse_unknown(settings, parameters(Plan)[0], "A benchmark")
    for key in ("problems", "methods"):
        if not isinstance(settings.get(key), Mapping) or not settings[key]:
            raise ConfigError(f"The benchmark names no {key}.", f"{key} is a mapping from names to settings.")
    problems = {
        name: construct(ProblemSpec, as_mapping(spec, name), f"The problem {name}")
        for name, spec in settings["problems"].items()
    }
    methods = {name: make_method(name, spec) for name, spec in settings["methods"].items()}
    for name in (listed := as_list(settings.get("solver", Plan.solver))):
        admit(str(name), SOLVERS, "solver")
    for name, method in methods.items():
        for pattern in method.problems:
            if not any(fnmatch(problem, pattern) for problem in problems):
                raise unknown(f"problem for the method {name}", pattern, problems)
    runtime = construct(Runtime, settings.get("runtime") or {}, "The runtime")
    changes = {key: tuple(as_list(settings[key])) for key in ("inputs", "calls", "seeds") if key in settings}
    slices = settings.get("slices", 1)
    changes |= {"slices": tuple(slices) if isinstance(slices, list) else slices, "solver": tuple(listed)}
    plan = construct(
        Plan,
        {"inputs": (), **settings, **changes, "problems": problems, "methods": methods, "runtime": runtime},
        "A benchmark",
    )
    if not plan.inputs and not all(problem.inputs for problem in problems.values()):
        raise ConfigError("The benchmark has no inputs.", do="Write inputs: [FILE or FOLDER, ...].")
    return plan


def make_method(name: str, spec: Any) -> MethodSpec:
    """A method from its settings; without ``sampler`` its name says which."""
    settings = {"sampler": name, **as_mapping(spec, name)}
    sampler = str(settings["sampler"])
    if sampler not in PEERS and sampler not in CLASSICAL:
        if ":" not in sampler and sampler not in POSTERIORS:
            raise unknown("method", sampler, [*POSTERIORS, *PEERS, *CLASSICAL])
        admit(sampler, POSTERIORS, "sampler")
    settings |= {k: as_list(settings[k]) for k in ("solver", "calls", "problems") if k in settings}
    for solver in settings.get("solver", ()):
        admit(str(solver), SOLVERS, "solver")
    return construct(MethodSpec, settings, f"The method {name}")


def as_mapping(spec: Any, name: str) -> dict[str, Any]:
    if spec is not None and not isinstance(spec, Mapping):
        raise ConfigError(f"{name} is {spec!r}.", "Its settings are a mapping.", "Write key: value below it.")
    return dict(spec or {})


def as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def cells(plan: Plan, slices: Mapping[str, Mapping[str, Sequence[int]]]) -> Iterator[Cell]:
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


def budgets(plan: Plan, method: MethodSpec) -> Iterable[tuple[str | None, int | None, int]]:
    """(solver, calls, seed) to run over; a classical method has only the one."""
    if method.sampler in CLASSICAL:
        return [(None, None, plan.seeds[0])]
    solvers = (method.solver or plan.solver) if method.ours else (None,)
    calls = method.calls or (plan.calls if method.ours else (None,))
    return [(solver, budget, seed) for solver in solvers for budget in calls for seed in plan.seeds]
