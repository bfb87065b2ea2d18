"""The settings of a job on k-space: recipe, mask, maps, coils, and where the network runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...io.acquisition import MaskChoice
from ...io.checks.layout import Layout
from ...priors import about
from ...registry.configuration import construct, parameters, refuse_unknown
from ...registry.objects import make_prior
from ...registry.recipe import RECIPE_STARTS, Recipe, make_recipe
from ...runtime.runtime import Runtime

USUAL_RUNTIME: dict[str, Any] = {"dtype": "auto"}
"""Of the jobs on k-space, for which bf16 is measured to lose nothing (`Runtime`)."""


@dataclass(frozen=True)
class Settings:
    """Everything but the inputs: recipe, mask, maps (a file), how the files lie, and where the network runs.

    ``whiten`` the noise of the coils, and compress them to ``coils`` virtual ones, None to keep all: `coils.mixing`.
    Raises `ConfigError` for fewer coils than 1.
    """

    recipe: Recipe = field(default_factory=Recipe)
    mask: MaskChoice = field(default_factory=MaskChoice)
    maps: str | None = None
    runtime: Runtime = field(default_factory=lambda: Runtime(**USUAL_RUNTIME))
    layout: Layout = field(default_factory=Layout)
    whiten: bool = False
    coils: int | None = None

    def __post_init__(self):
        if not isinstance(self.whiten, bool):
            raise ConfigError(f"whiten is {self.whiten!r}.", do="It is true or false.")
        if self.coils is not None and (type(self.coils) is not int or self.coils < 1):
            raise ConfigError(
                f"coils is {self.coils!r}.",
                "It is the number of virtual coils.",
                "Use 1 or more, or leave it out.",
            )

    @property
    def files(self) -> list[Path]:
        """The files that the settings name: mask, maps and prior, where they are files."""
        mask = self.mask.name if self.mask.is_file else None
        return [Path(name) for name in (mask, self.maps, self.recipe.prior) if name]


def settle(config: Mapping[str, Any], flags: Mapping[str, Any]) -> Settings:
    """Settings of a configuration, flags first: the keys of `Recipe`, and `PARTS`.

    Flags that are None are left out; ``mask_name``, ``accel`` and ``center`` are the mask's. Raises
    `ConfigError` for unknown keys and names.
    """
    mask = config.get("mask") or {}
    mask = dict(mask) if isinstance(mask, Mapping) else {"name": str(mask)}
    runtime = dict(config.get("runtime") or {})
    recipe = {key: value for key, value in config.items() if key not in PARTS}
    known = [*parameters(Recipe)[0], *PARTS]
    refuse_unknown(recipe, known, "The configuration")
    given = {key: value for key, value in flags.items() if value is not None}
    maps, whiten, coils = (given.pop(key, config.get(key)) for key in ("maps", "whiten", "coils"))
    if "mask_name" in given and given["mask_name"] != mask.get("name"):
        mask = {}
    mask |= {name: given.pop(flag) for flag, name in MASK_FLAGS.items() if flag in given}
    runtime |= {name: given.pop(name) for name in parameters(Runtime)[0] if name in given}
    layout = dict(config.get("layout") or {})
    layout |= {name: given.pop(name) for name in parameters(Layout)[0] if name in given}
    settled = make_recipe(recipe | given)
    settled.refuse_start(RECIPE_STARTS)
    return Settings(
        settled,
        construct(MaskChoice, mask, "A mask"),
        None if maps is None else str(maps),
        construct(Runtime, USUAL_RUNTIME | runtime, "The runtime"),
        construct(Layout, layout, "The layout"),
        False if whiten is None else whiten,
        coils,
    )


PARTS = ("mask", "maps", "whiten", "coils", "runtime", "layout")
MASK_FLAGS = {"mask_name": "name", "accel": "accel", "center": "center"}


def prepared_prior(settings: Settings) -> Any:
    """The prior of the recipe on its device, which must be one of complex images."""
    prior = make_prior(settings.recipe.prior)
    known = about(prior)
    if known.card and not known.complex_images:
        raise ConfigError(
            f"The prior {settings.recipe.prior} is one of real images.",
            "Images made of k-space are complex.",
            "Choose one trained with complex_images: true; recon list priors.",
        )
    settings.recipe.refuse_prior(prior)
    return settings.runtime.prepare(prior)
