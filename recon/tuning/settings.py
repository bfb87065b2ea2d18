"""What ``recon tune`` is told: a sampler, problems, two splits of the data, a budget; checked before any work."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import field, fields, replace
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, InstanceOf
from pydantic.dataclasses import dataclass

from ..benchmark.methods.kinds import Kind, kind_of
from ..benchmark.specs import (
    Benchmark,
    ChosenSlices,
    Count,
    Index,
    MethodSpec,
    ProblemSpec,
    Some,
    as_runtime,
    emptied,
)
from ..errors import ConfigError, unknown
from ..posteriors import POSTERIORS
from ..posteriors.usual import Usual
from ..registry.configuration import config_file, read_config
from ..registry.objects import make_sampler, refuse_sampler_options, sampler_class, usual_of
from ..registry.schema import SCHEMA, Origin, made_of
from ..runtime.runtime import Runtime
from .spaces import SPACES, Range, Search


def sampler_of_ours(name: str) -> str:
    """The name itself; raises `ConfigError` where it is that of another method, or of none."""
    if kind_of(name) is not Kind.RECON:
        raise unknown("sampler of this project", name, POSTERIORS)
    sampler_class(name)
    return name


@dataclass(frozen=True, config=SCHEMA)
class Split:
    """Part of the data: ``inputs``, relative to the folder of the data, and ``slices`` of each, as in a benchmark."""

    inputs: Some[str]
    slices: ChosenSlices = 1


@dataclass(frozen=True, config=SCHEMA)
class Tuning:
    """A search for the options of ``sampler`` with ``trials`` tries, each at ``calls`` network calls a sample.

    What is maximised on the images of ``validation``, ``n_p`` for the problem p of P:
    ``1/P sum_p 1/n_p sum_i PSNR(mean of the samples of image i measured by p, image i)``, in dB, and nothing else.
    ``held_out``: images that no trial sees, on which what is found is compared with the recipe. ``problems``
    as in a benchmark, without inputs of their own. ``crop``: of each image the middle so many pixels in each direction.
    ``search``: default that of `spaces.SPACES`.
    """

    sampler: Annotated[str, AfterValidator(sampler_of_ours)]
    problems: Annotated[dict[str, Annotated[ProblemSpec, BeforeValidator(emptied)]], Field(min_length=1)]
    validation: Split
    held_out: Split
    prior: str = "brain-mri"
    calls: Count = 20
    samples: Count = 4
    seed: Index = 0
    trials: Count = 40
    crop: Count | None = None
    search: Search | None = None
    runtime: Annotated[InstanceOf[Runtime], BeforeValidator(as_runtime)] = field(default_factory=Runtime)

    @property
    def recipe(self) -> Usual:
        """What the sampler's name alone stands for."""
        return usual_of(self.sampler)

    @property
    def space(self) -> Search:
        """What is searched."""
        assert self.search is not None
        return self.search

    def benchmark(self, split: Split, methods: dict[str, MethodSpec]) -> Benchmark:
        """The benchmark of ``methods`` on the images of ``split``."""
        return Benchmark(
            problems=self.problems,
            methods=methods,
            inputs=split.inputs,
            title=f"{self.sampler} tuned, beside its recipe",
            prior=self.prior,
            calls=(self.calls,),
            samples=self.samples,
            seeds=(self.seed,),
            slices=split.slices,
            crop=self.crop,
            runtime=self.runtime,
        )


def read_tuning(config: str | Mapping[str, Any], **changes: Any) -> Tuning:
    """The search that a YAML file, a preset or a mapping describes, with ``changes`` of its settings.

    Raises `ConfigError` for what no trial could be made of, with its place in the file.
    """
    origin = Origin(config_file(config) if isinstance(config, str) else None)
    settings = {**(read_config(config) if isinstance(config, str) else config), **changes}
    made = made_of(Tuning, settings, origin)
    for name, problem in made.problems.items():
        if problem.inputs:
            with origin.placed("problems", name, "inputs"):
                raise ConfigError(
                    "A problem has inputs.", "They are those of the two splits.", "Leave them out."
                )
    if made.search is None:
        if made.sampler not in SPACES:
            raise ConfigError(
                f"Nothing is known to be searched of the sampler {made.sampler}.",
                f"There are searches of {', '.join(SPACES)}.",
                "Write search: {options: {NAME: {low: 0.1, high: 10, log: true}}}.",
            )
        made = replace(made, search=SPACES[made.sampler])
    refuse_search(made, origin)
    return made


def refuse_search(made: Tuning, origin: Origin) -> None:
    """Raise `ConfigError` for a search of nothing, and for options and values that the sampler does not take."""
    with origin.placed("search"):
        if not list(made.space.axes()):
            raise ConfigError(
                "Nothing is searched.", "", f"Name {', '.join(f.name for f in fields(Search))}."
            )
    for name, axis in made.space.options.items():
        with origin.placed("search", "options", name):
            refuse_sampler_options(made.sampler, {name: None})
            for value in axis.ends if isinstance(axis, Range) else axis:
                make_sampler(made.sampler, None, options={**made.recipe.options, name: value})


def recipe_values(made: Tuning) -> dict[str, Any]:
    """The recipe's own value of each of `Search.axes`; of an option that it does not name the constructor's."""
    recipe = made.recipe
    own = {key: p.default for key, p in inspect.signature(sampler_class(made.sampler)).parameters.items()}
    solver = ",".join((recipe.solver, *(f"{key}={value}" for key, value in recipe.solver_options.items())))
    levels = {"recipe.solver": solver, "recipe.highest": recipe.highest, "recipe.lowest": recipe.lowest}
    return {name: {**own, **recipe.options, **levels}.get(name) for name, _ in made.space.axes()}


def method_of(sampler: str, usual: Usual, prior: Any) -> MethodSpec:
    """A recipe as the method of a benchmark with ``prior``; raises `ConfigError` for options that cannot be used."""
    highest, lowest = usual.levels(prior)
    settings = {
        "sampler": sampler,
        "form": "paper",  # nothing is added
        "options": dict(usual.options),
        "solver": usual.solver,
        "solver_options": dict(usual.solver_options),
        "grid": usual.grid,
        "sigma_start": float(f"{highest:.4g}"),
        "sigma_end": float(f"{lowest:.4g}"),
    }
    return made_of(MethodSpec, settings, Origin())
