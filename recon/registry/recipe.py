"""How an image is sampled, as settings: the `Recipe`, its defaults and its checks, and what is built from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError, unknown
from ..grids import GRIDS
from ..pairing import refuse_order
from ..posteriors import Posterior
from ..posteriors.usual import Usual
from ..priors import about
from ..solvers import Solver
from .configuration import construct
from .objects import make_sampler, make_solver, refuse_sampler_options, sampler_class, usual_of

SCANS = {"dds": Usual({"steps": 30, "keep": "state", "variance": "local"}, "sde-dpm++2m")}
"""Recipes of samplers for scans, in the place of their own."""

LAST_LEVELS = (0.01, 0.005, 0.0025)

RECIPE_STARTS = ("noise", "zero-filled", "cg-sense")  # of k-space
STARTS_OF_SINOGRAMS = ("noise", "fit")


@dataclass(frozen=True)
class Recipe:
    """How an image is sampled; the defaults are the product's for scans.

    ``prior``, ``sampler``, ``solver``, ``grid``: names. ``sampler_options`` add to those of the
    sampler's own recipe (`posteriors.usual.Usual`, for DDS that of `SCANS`), which also gives the solver where that
    is "". ``steps`` noise levels above 0, ``samples`` of each image.
    ``start``: "noise" at the prior's largest sigma, or an image ("fit", of tomography: least squares without negative
    values) plus noise of ``sigma_start``, in units of the normalised image, whose 99.5th percentile is 1 (of a latent prior: of its latents). ``sigma_end``: the
    last level above 0, None for that of `last_level`. ``sigma_y``: std of the measurement noise per real component, in the file's
    units; None to estimate it. ``sigma_floor``: its least value, in normalised units, because no scan is known better
    than that. ``sets`` of maps: None for `needed_sets`. ``calibration``, ``kernel``, ``crop``, ``soft``: as in
    `operators.espirit`.
    """

    prior: str = "brain-mri"
    sampler: str = "dds"
    sampler_options: dict[str, Any] = field(default_factory=dict)
    solver: str = ""
    solver_options: dict[str, Any] = field(default_factory=dict)
    grid: str = "karras"
    steps: int = 10
    samples: int = 16
    seed: int = 0
    start: str = "cg-sense"
    sigma_start: float = 6.0
    sigma_end: float | None = None
    sigma_y: float | None = None
    sigma_floor: float = 0.001
    sets: int | None = None
    calibration: tuple[int, int] | None = (48, 24)
    kernel: int | None = None
    crop: float | None = None
    soft: bool = False

    def __post_init__(self):
        if self.start not in (*RECIPE_STARTS, *STARTS_OF_SINOGRAMS):
            raise unknown("start", self.start, (*RECIPE_STARTS, *STARTS_OF_SINOGRAMS))
        usual = SCANS.get(self.sampler) or usual_of(self.sampler)
        for name, value in usual.settings(self.solver).items():
            own = getattr(self, name)
            object.__setattr__(self, name, {**value, **own} if isinstance(value, dict) else value)
        refuse_sampler_options(self.sampler, self.sampler_options)
        if self.grid not in GRIDS:
            raise unknown("grid", self.grid, GRIDS)
        for name in ("steps", "samples", "sets"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}.", do="It is at least 1.")
        refuse_order(make_solver(self.solver, self.solver_options), self.steps)

    def last_level(self, prior: Any, noise: float = math.inf) -> float:
        """The last level above 0 for measurements with ``noise``, relative to the image.

        ``sigma_end``, where it is named; else .01, halved until it is at most 1.5 times the noise, and at least .0025:
        below the noise the prior has little to add, and above it the posterior would come out too narrow. At least the
        lowest level that the prior knows.
        """
        level = self.sigma_end
        if level is None:
            level = next((end for end in LAST_LEVELS if end <= 1.5 * noise), LAST_LEVELS[-1])
        return max(level, about(prior).allowed[0])

    def refuse_start(self, known: tuple[str, ...]) -> None:
        """Raise `ConfigError` where the start is none of those ``known`` to what is measured."""
        if self.start not in known:
            raise ConfigError(
                f"The start is {self.start}.",
                f"Here it is {' or '.join(known)}: an image is made of the measurements, k-space or sinograms.",
                f"Set start: {known[-1]}.",
            )

    def refuse_prior(self, prior: Any) -> None:
        """Raise `ConfigError` where the sampler cannot use the prior, whatever is measured."""
        if about(prior).space.latent and getattr(sampler_class(self.sampler), "linear_only", False):
            raise ConfigError(
                f"The sampler {self.sampler} was given the latent prior {self.prior}.",
                "Its data step solves normal equations, and measurements of decoded latents are not linear in them.",
                "Use --sampler dps or stsl, or a prior of images, such as brain-mri.",
            )


def make_recipe(settings: Mapping[str, Any]) -> Recipe:
    """The `Recipe` of settings by keyword, with solver, sampler and their options checked; raises `ConfigError`."""
    for key in ("steps", "samples", "sets", "seed"):
        value = settings.get(key, 1)
        if (not isinstance(value, int) or isinstance(value, bool)) and not (key == "sets" and value is None):
            raise ConfigError(f"{key} is {value!r}.", "It is a whole number.")
    if settings.get("steps") == 1 and "solver" not in settings:
        settings = {**settings, "solver": "sde-dpm++1"}  # the default's own first step
    for key in ("sampler", "solver"):
        if key in settings:
            settings = {**settings, key: str(settings[key])}
    for key in ("sampler_options", "solver_options"):
        if not isinstance(settings.get(key, {}), Mapping):
            raise ConfigError(
                f"{key} is {settings[key]!r}.", "Options are a mapping.", "Write key: value below it."
            )
    return construct(Recipe, settings, "A recipe")


def build(recipe: Recipe, prior: Any) -> tuple[Posterior, Solver]:
    """The sampler and the solver that ``recipe`` names, for ``prior``."""
    sampler = make_sampler(recipe.sampler, prior, options=recipe.sampler_options)
    return sampler, make_solver(recipe.solver, recipe.solver_options)
