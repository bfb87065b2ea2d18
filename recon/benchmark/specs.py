"""The grid of a benchmark: problems x methods x solvers x budgets x seeds over images or k-space, as cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

from ..errors import ConfigError, unknown
from ..grids import GRIDS
from ..posteriors import POSTERIORS, Active, Ensemble
from ..registry.configuration import construct, parameters, read_config, refuse_unknown
from ..registry.objects import make_solver, refuse_sampler_options, sampler_class
from ..runtime.runtime import Runtime
from .methods.classical import CLASSICAL
from .methods.peers import PEERS
from .problems import ProblemSpec

STARTS = ("noise", "fit")


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
        refuse_sampler_options(self.sampler, self.options)
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
            make_solver(str(name), self.solver_options)

    @property
    def ours(self) -> bool:
        return self.sampler not in PEERS and self.sampler not in CLASSICAL


@dataclass(frozen=True)
class Benchmark:
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


def read_benchmark(config: str | Mapping[str, Any]) -> Benchmark:
    """The plan of a YAML file or preset, or of its mapping; raises `ConfigError` for what it does not know."""
    settings = dict(read_config(config) if isinstance(config, str) else config)
    refuse_unknown(settings, parameters(Benchmark)[0], "A benchmark")
    for key in ("problems", "methods"):
        if not isinstance(settings.get(key), Mapping) or not settings[key]:
            raise ConfigError(f"The benchmark names no {key}.", f"{key} is a mapping from names to settings.")
    problems = {
        name: construct(ProblemSpec, as_mapping(spec, name), f"The problem {name}")
        for name, spec in settings["problems"].items()
    }
    methods = {name: make_method(name, spec) for name, spec in settings["methods"].items()}
    for name in (listed := as_list(settings.get("solver", Benchmark.solver))):
        make_solver(str(name))
    for name, method in methods.items():
        for pattern in method.problems:
            if not any(fnmatch(problem, pattern) for problem in problems):
                raise unknown(f"problem for the method {name}", pattern, problems)
    runtime = construct(Runtime, settings.get("runtime") or {}, "The runtime")
    changes = {key: tuple(as_list(settings[key])) for key in ("inputs", "calls", "seeds") if key in settings}
    slices = settings.get("slices", 1)
    changes |= {"slices": tuple(slices) if isinstance(slices, list) else slices, "solver": tuple(listed)}
    plan = construct(
        Benchmark,
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
        sampler_class(sampler)
    settings |= {k: as_list(settings[k]) for k in ("solver", "calls", "problems") if k in settings}
    return construct(MethodSpec, settings, f"The method {name}")


def as_mapping(spec: Any, name: str) -> dict[str, Any]:
    if spec is not None and not isinstance(spec, Mapping):
        raise ConfigError(f"{name} is {spec!r}.", "Its settings are a mapping.", "Write key: value below it.")
    return dict(spec or {})


def as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
