"""What a benchmark is, as its configuration says it: problems, methods, solvers, budgets, seeds and inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any, TypeGuard

from ..errors import ConfigError, unknown
from ..intervals import refuse_level
from ..io.acquisition import MaskChoice
from ..posteriors import Active, Ensemble
from ..registry.configuration import construct, parameters, read_config, refuse_unknown
from ..registry.objects import make_grid, make_solver, refuse_sampler_options
from ..registry.operators import refuse_operator_options
from ..runtime.runtime import Runtime
from .methods.kinds import Kind, kind_of, refuse_method, refuse_method_options

METHOD_STARTS = ("noise", "fit")


@dataclass(frozen=True)
class ProblemSpec:
    """What is measured. Of images: ``operator`` (`recon list operators`, or module:Class), its ``options``, ``sigma``.

    ``sigma``: noise per real component, where the 99.5th percentile of the image is 1. Of k-space files: the
    ``mask`` alone (name, accel, center), seeded by the file's name. ``inputs``: these instead of the benchmark's.
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
        refuse_names(self.inputs, "inputs of a problem")
        if self.operator is not None:
            refuse_mapping(self.options, "options of a problem")
            refuse_operator_options(str(self.operator), self.options)
            if not (is_finite_number(self.sigma) and self.sigma >= 0):
                raise ConfigError(
                    f"sigma of {self.operator} is {self.sigma!r}.",
                    "It is the standard deviation of the noise per real component, images being 0 to 1.",
                    "Write sigma: 0.02.",
                )
        if self.mask is not None:
            if self.sigma is not None or self.options:
                raise ConfigError("A mask was given with sigma or options.", "The noise is that of the file.")
            refuse_mapping(self.mask, "mask of a problem")
            construct(MaskChoice, self.mask, "A mask")


@dataclass(frozen=True)
class MethodSpec:
    """How a problem is solved: a sampler of ours, one of deepinv's, or a classical method, by name.

    ``options`` are the sampler's. ``solver`` and ``calls`` are lists to run over; ``calls``: network calls
    per sample, null for a method's own default. ``start``: "noise", or "fit", the least-squares fit plus noise of
    ``sigma_start``; the grid ends at ``sigma_end``. ``ensemble`` and ``active``: options of an
    `Ensemble` and an `Active` around the sampler. ``problems``: only these (patterns); ``limit``: only
    the first so many slices.
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
        refuse_mapping(self.options, f"options of {self.sampler}")
        refuse_mapping(self.solver_options, f"solver_options of {self.sampler}")
        refuse_names(self.problems, f"problems of {self.sampler}")
        for calls in self.calls:
            refuse_count(calls, f"calls of {self.sampler}", optional=True)
        for name in ("samples", "limit"):
            refuse_count(getattr(self, name), f"{name} of {self.sampler}", optional=True)
        for name in ("sigma_start", "sigma_end"):
            sigma = getattr(self, name)
            if sigma is not None and not (is_finite_number(sigma) and sigma > 0):
                raise ConfigError(f"{name} of {self.sampler} is {sigma!r}.", "A noise level is above 0.")
        if self.kind is not Kind.RECON:
            refuse_method_options(self.sampler, self.options)
            return
        refuse_sampler_options(self.sampler, self.options)
        for name, options, wrapper, own in (
            ("ensemble", self.ensemble, Ensemble, ("inner", "problem")),
            ("active", self.active, Active, ("inner", "problem", "measure")),
        ):
            if options is not None:
                refuse_mapping(options, f"{name} of {self.sampler}")
                known = [key for key in parameters(wrapper)[0] if key not in own]
                refuse_unknown(options, known, f"An {name}")
        make_grid(str(self.grid), 2, 1.0, 0.1)
        if self.start not in METHOD_STARTS:
            raise unknown("start", str(self.start), METHOD_STARTS)
        if self.start == "fit" and self.sigma_start is None:
            raise ConfigError(
                f"The method {self.sampler} starts at the fit, without sigma_start.",
                "A warm start is the image plus noise of a stated level.",
                "Write sigma_start: 1.0.",
            )
        for name in self.solver:
            make_solver(str(name), self.solver_options)

    @property
    def kind(self) -> Kind:
        """Whose method it is."""
        return kind_of(self.sampler)


@dataclass(frozen=True)
class Benchmark:
    """A benchmark, checked.

    ``slices``: how many of each input, spread evenly, or which. ``pictures``: of the first so many slices.
    ``level`` of the intervals whose coverage is counted. ``inputs`` are relative to the folder of the data.
    """

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

    def __post_init__(self):
        refuse_names(self.inputs, "inputs")
        refuse_names((self.prior,), "prior")
        refuse_names((self.title,), "title")
        for calls in self.calls:
            refuse_count(calls, "calls", optional=True)
        refuse_count(self.samples, "samples")
        refuse_count(self.pictures, "pictures", least=0)
        if not self.seeds:
            raise ConfigError("The benchmark has no seeds.", do="Write seeds: [0].")
        for seed in self.seeds:
            refuse_count(seed, "seeds", least=0)
        if isinstance(self.slices, tuple):
            for index in self.slices:
                refuse_count(index, "slices", least=0)
        else:
            refuse_count(self.slices, "slices")
        refuse_level(self.level)
        for name in self.solver:
            make_solver(str(name))
        for name, method in self.methods.items():
            for pattern in method.problems:
                if not any(fnmatch(problem, pattern) for problem in self.problems):
                    raise unknown(f"problem for the method {name}", pattern, self.problems)
        if not self.inputs and not all(problem.inputs for problem in self.problems.values()):
            raise ConfigError("The benchmark has no inputs.", do="Write inputs: [FILE or FOLDER, ...].")


def read_benchmark(config: str | Mapping[str, Any]) -> Benchmark:
    """The benchmark of a YAML file, a preset or a mapping; raises `ConfigError` for what it does not know."""
    settings = dict(read_config(config) if isinstance(config, str) else config)
    refuse_unknown(settings, parameters(Benchmark)[0], "A benchmark")
    for key in ("problems", "methods"):
        if not isinstance(settings.get(key), Mapping) or not settings[key]:
            raise ConfigError(f"The benchmark names no {key}.", f"{key} is a mapping from names to settings.")
    made = {
        "inputs": (),
        **settings,
        "problems": {str(name): read_problem(str(name), spec) for name, spec in settings["problems"].items()},
        "methods": {str(name): read_method(str(name), spec) for name, spec in settings["methods"].items()},
        "runtime": construct(Runtime, as_mapping(settings.get("runtime"), "runtime"), "The runtime"),
    }
    made |= {key: tuple(as_list(made[key])) for key in ("inputs", "calls", "seeds", "solver") if key in made}
    if isinstance(made.get("slices"), list):
        made["slices"] = tuple(made["slices"])
    return construct(Benchmark, made, "A benchmark")


def read_problem(name: str, spec: Any) -> ProblemSpec:
    """A problem from its settings."""
    settings = as_mapping(spec, name)
    settings |= {key: as_list(settings[key]) for key in ("inputs",) if key in settings}
    return construct(ProblemSpec, settings, f"The problem {name}")


def read_method(name: str, spec: Any) -> MethodSpec:
    """A method from its settings; without ``sampler`` its name is the sampler's."""
    settings = {"sampler": name, **as_mapping(spec, name)}
    settings["sampler"] = str(settings["sampler"])
    refuse_method(settings["sampler"])
    settings |= {key: as_list(settings[key]) for key in ("solver", "calls", "problems") if key in settings}
    return construct(MethodSpec, settings, f"The method {name}")


# --- values ------------------------------------------------------------------------------------------------


def as_mapping(spec: Any, name: str) -> dict[str, Any]:
    """Settings as a dict, empty for None; raises `ConfigError` for anything else."""
    if spec is not None:
        refuse_mapping(spec, name)
    return dict(spec or {})


def as_list(value: Any) -> list[Any]:
    """The value itself if it is a list, else a list of it alone."""
    return list(value) if isinstance(value, list | tuple) else [value]


def refuse_mapping(value: Any, name: str) -> None:
    """Raise `ConfigError` for anything but a mapping with text keys."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{name} is {value!r}.", "It must be a mapping.", "Write key: value below it.")


def refuse_names(values: tuple[Any, ...], name: str) -> None:
    """Raise `ConfigError` for values that are not text."""
    for value in values:
        if not isinstance(value, str):
            raise ConfigError(f"{name}: {value!r} is not a name.", "A name is text.", "Put it in quotes.")


def refuse_count(value: Any, name: str, least: int = 1, optional: bool = False) -> None:
    """Raise `ConfigError` for anything but a whole number of at least ``least`` (or None, if ``optional``)."""
    if optional and value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name}: {value!r} cannot be used.", f"It is a whole number, at least {least}.")


def is_finite_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
