"""What a benchmark is, as its configuration says it: problems, methods, solvers, budgets, seeds and inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields, replace
from fnmatch import fnmatch
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import AfterValidator, BeforeValidator, Field, InstanceOf
from pydantic.dataclasses import dataclass

from ..errors import ConfigError, unknown
from ..grids import GRIDS
from ..io.acquisition import MaskChoice
from ..posteriors import Active, Ensemble
from ..posteriors.usual import PAPER, Usual
from ..registry.configuration import config_file, construct, parameters, read_config, refuse_unknown
from ..registry.objects import known_solver, make_sampler, make_solver, usual_of
from ..registry.operators import refuse_operator_options
from ..registry.schema import SCHEMA, Origin, made_of
from ..runtime.runtime import Runtime
from .methods.kinds import Kind, kind_of, refuse_method, refuse_method_options

Value = TypeVar("Value")


def as_list(value: Any) -> Any:
    """A list as a tuple, any other value as a tuple of it alone."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def refuse_twice(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Values of which none occurs twice; raises `ConfigError`."""
    for place, value in enumerate(values):
        if value in values[:place]:
            raise ConfigError(f"{value!r} is listed twice.", "Each is measured once.", "Leave one out.")
    return values


def emptied(value: Any) -> Any:
    """``name:`` with nothing behind it is an empty mapping."""
    return {} if value is None else value


def named_methods(value: Any) -> Any:
    """Methods without ``sampler`` have that of their name."""
    if not isinstance(value, Mapping):
        return value
    given = {name: emptied(spec) for name, spec in value.items()}
    return {
        name: {"sampler": name, **spec} if isinstance(spec, Mapping) else spec for name, spec in given.items()
    }


def as_runtime(value: Any) -> Any:
    """The `Runtime` of a mapping."""
    value = emptied(value)
    return construct(Runtime, value, "The runtime") if isinstance(value, Mapping) else value


Count = Annotated[int, Field(strict=True, ge=1, lt=2**31)]
Index = Annotated[int, Field(strict=True, ge=0, lt=2**31)]
NoiseLevel = Annotated[float, Field(strict=True, gt=0)]
Several = Annotated[tuple[Value, ...], BeforeValidator(as_list), AfterValidator(refuse_twice)]
Some = Annotated[Several[Value], Field(min_length=1)]
SolverName = Annotated[str, AfterValidator(known_solver)]
Options = Annotated[dict[str, Any], BeforeValidator(emptied)]
ChosenSlices = Count | Annotated[tuple[Index, ...], AfterValidator(refuse_twice), Field(min_length=1)]


@dataclass(frozen=True, config=SCHEMA)
class ProblemSpec:
    """What is measured. Of images: ``operator`` (`recon list operators`, or module:Class), its ``options``, ``sigma``.

    ``sigma``: noise per real component, where the 99.5th percentile of the image is 1. Of k-space files: the
    ``mask`` alone (name, accel, center), seeded by the file's name. ``inputs``: these instead of the benchmark's.
    """

    operator: str | None = None
    options: Options = field(default_factory=dict)
    sigma: Annotated[float, Field(strict=True, ge=0)] | None = None
    mask: dict[str, Any] | None = None
    inputs: Several[str] = ()

    def __post_init__(self):
        if (self.operator is None) == (self.mask is None):
            raise ConfigError(
                "A problem has an operator or a mask.",
                "Images are measured by an operator, k-space is undersampled by a mask.",
                "Give one of the two.",
            )
        if self.operator is not None:
            refuse_operator_options(self.operator, self.options)
            if self.sigma is None:
                raise ConfigError(
                    f"{self.operator} has no sigma.",
                    "It is the standard deviation of the noise per real component, images being 0 to 1.",
                    "Write sigma: 0.02.",
                )
        if self.mask is not None:
            if self.sigma is not None or self.options:
                raise ConfigError("A mask was given with sigma or options.", "The noise is that of the file.")
            construct(MaskChoice, self.mask, "A mask")


@dataclass(frozen=True, config=SCHEMA)
class MethodSpec:
    """How a problem is solved: a sampler of ours, one of deepinv's, or a classical method, by name.

    What is not said is the sampler's own recipe (`posteriors.usual.Usual`), or with ``form: paper`` its
    constructor's. ``options`` are the sampler's. ``solver`` and ``calls`` are lists to run over; ``calls``: network calls
    per sample, null for a method's own default. ``start``: "noise", or "fit", the least-squares fit plus noise of
    ``sigma_start``; the grid ends at ``sigma_end``. ``ensemble`` and ``active``: options of an
    `Ensemble` and an `Active` around the sampler. ``problems``: only these (patterns); ``limit``: only
    the first so many slices.
    """

    sampler: str
    options: Options = field(default_factory=dict)
    solver: Several[SolverName] = ()
    solver_options: Options = field(default_factory=dict)
    calls: Several[Count | None] = ()
    samples: Count | None = None
    grid: str | None = None
    form: Literal["usual", "paper"] = "usual"
    start: Literal["noise", "fit"] = "noise"
    sigma_start: NoiseLevel | None = None
    sigma_end: NoiseLevel | None = None
    ensemble: dict[str, Any] | None = None
    active: dict[str, Any] | None = None
    problems: Some[str] = ("*",)
    limit: Count | None = None

    def __post_init__(self):
        refuse_method(self.sampler)
        if self.kind is not Kind.RECON:
            self.refuse_ours()
            refuse_method_options(self.sampler, self.options)
            return
        self.refuse_options()
        if self.grid is not None and self.grid not in GRIDS:
            raise unknown("grid", self.grid, GRIDS)
        if self.start == "fit" and self.sigma_start is None:
            raise ConfigError(
                f"The method {self.sampler} starts at the fit, without sigma_start.",
                "A warm start is the image plus noise of a stated level.",
                "Write sigma_start: 1.0.",
            )
        if self.sigma_start is not None and self.sigma_end is not None and self.sigma_end >= self.sigma_start:
            raise ConfigError(
                f"sigma_end {self.sigma_end} is not below sigma_start {self.sigma_start}.",
                "Noise levels fall.",
                "Lower sigma_end.",
            )

    def refuse_ours(self) -> None:
        """Raise `ConfigError` for a setting that only a sampler of ours has, or only one that calls a network."""
        theirs = OF_ALL if self.kind is Kind.CLASSICAL else (*OF_ALL, *OF_BUDGETS)
        plain = MethodSpec("prior")
        for name in (each.name for each in fields(MethodSpec)):
            if name not in theirs and getattr(self, name) != getattr(plain, name):
                raise ConfigError(
                    f"The method {self.sampler} has no {name}.",
                    f"It takes {', '.join(theirs)}.",
                    f"Leave {name} out.",
                )

    def refuse_options(self) -> None:
        """Raise `ConfigError` for options of the sampler, or of what stands around it, that cannot be used."""
        made = make_sampler(self.sampler, None, options={**self.usual.options, **self.options})
        if self.ensemble is not None:
            refuse_unknown(self.ensemble, options_of(Ensemble, "inner", "problem"), "An ensemble")
            made = construct(Ensemble, {**self.ensemble, "inner": made}, "An ensemble")
        if self.active is not None:
            refuse_unknown(self.active, options_of(Active, "inner", "problem", "measure"), "An active")
            construct(Active, {**self.active, "inner": made, "measure": torch.clone}, "An active")

    @property
    def kind(self) -> Kind:
        """Whose method it is."""
        return kind_of(self.sampler)

    @property
    def usual(self) -> Usual:
        """The recipe of a sampler of ours, for what is not said."""
        return PAPER if self.form == "paper" else usual_of(self.sampler)


def options_of(wrapper: type, *own: str) -> list[str]:
    """The keyword arguments of a sampler around a sampler but its ``own``, which it is given."""
    return [key for key in parameters(wrapper)[0] if key not in own]


OF_ALL = ("sampler", "options", "problems", "limit")
OF_BUDGETS = ("calls", "samples")


@dataclass(frozen=True, config=SCHEMA)
class Benchmark:
    """A benchmark, checked.

    ``slices``: how many of each input, spread evenly, or which. ``crop``: of each image the middle so many pixels
    in each direction; not for k-space. ``pictures``: of the first so many slices.
    ``level`` of the intervals whose coverage is counted. ``metrics``: beside PSNR, SSIM and NMSE, by name, each with
    the file of its network's weights. ``inputs`` and such files are relative to the folder of the data.
    """

    problems: Annotated[dict[str, Annotated[ProblemSpec, BeforeValidator(emptied)]], Field(min_length=1)]
    methods: Annotated[dict[str, MethodSpec], BeforeValidator(named_methods), Field(min_length=1)]
    inputs: Several[str] = ()
    title: str = "Benchmark"
    prior: str = "brain-mri"
    solver: Several[SolverName] = ()
    calls: Some[Count | None] = (20,)
    samples: Count = 4
    seeds: Some[Index] = (0,)
    slices: ChosenSlices = 1
    crop: Count | None = None
    pictures: Index = 1
    metrics: Annotated[dict[Literal["lpips"], str], BeforeValidator(emptied)] = field(default_factory=dict)
    level: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.9
    runtime: Annotated[InstanceOf[Runtime], BeforeValidator(as_runtime)] = field(default_factory=Runtime)


def with_recipe(method: MethodSpec, solver: tuple[str, ...]) -> MethodSpec:
    """The method with what it does not say taken from its recipe; its solver only where the benchmark names none."""
    if method.kind is not Kind.RECON:
        return method
    usual = method.usual
    own: dict[str, Any] = {
        "options": {**usual.options, **method.options},
        "grid": method.grid or usual.grid,
    }
    if not method.solver and not solver:
        own |= {
            "solver": (usual.solver,),
            "solver_options": {**usual.solver_options, **method.solver_options},
        }
    return replace(method, **own)


def read_benchmark(config: str | Mapping[str, Any]) -> Benchmark:
    """The benchmark of a YAML file, a preset or a mapping.

    Raises `ConfigError` for what no cell could be measured with, with its place in the file.
    """
    origin = Origin(config_file(config) if isinstance(config, str) else None)
    made = made_of(Benchmark, read_config(config) if isinstance(config, str) else config, origin)
    for name, method in made.methods.items():
        with origin.placed("methods", name, "problems"):
            for pattern in method.problems:
                if not any(fnmatch(problem, pattern) for problem in made.problems):
                    raise unknown("problem", pattern, made.problems)
        if method.kind is Kind.RECON:
            with origin.placed("methods", name):
                for solver in method.solver or made.solver or (method.usual.solver,):
                    make_solver(solver, method.solver_options)
    if not made.inputs and not all(problem.inputs for problem in made.problems.values()):
        raise ConfigError("The benchmark has no inputs.", do="Write inputs: [FILE or FOLDER, ...].")
    methods = {name: with_recipe(method, made.solver) for name, method in made.methods.items()}
    return replace(made, methods=methods)
