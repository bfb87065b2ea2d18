"""Samplers, solvers, grids and priors from their names and options: nothing else reads the registries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import unknown
from ..grids import GRIDS
from ..networks.load import load_prior
from ..posteriors import POSTERIORS, Posterior
from ..problem import Problem
from ..solvers import SOLVERS, Solver
from .configuration import construct, parameters, refuse_unknown
from .plugins import find_object


def sampler_class(name: str) -> Any:
    """The class of a sampler; a user's own ``module:Class`` stands in `POSTERIORS` from then on.

    Raises `ConfigError` for an unknown name.
    """
    return entry(POSTERIORS, name, "sampler")


def make_sampler(
    name: str, prior: Any, problem: Problem | None = None, options: Mapping[str, Any] | None = None
) -> Posterior:
    """The sampler ``name`` of ``prior``, with its ``options`` by keyword; raises `ConfigError`."""
    options = options or {}
    refuse_sampler_options(name, options)
    return sampler_class(name)(prior, problem, **options)


def refuse_sampler_options(name: str, options: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for options that the sampler ``name`` does not take."""
    known, _, anything = parameters(sampler_class(name))
    if not anything:
        refuse_unknown(options, [key for key in known if key not in OWN], f"The sampler {name}")


OWN = ("prior", "problem")
"""Parameters of a sampler that are not options: whoever builds it gives them."""


def make_solver(name: str, options: Mapping[str, Any] | None = None) -> Solver:
    """The solver ``name`` with its ``options`` by keyword; a user's own ``module:Class`` will do.

    Raises `ConfigError` for an unknown name, and for options that it does not take.
    """
    return construct(entry(SOLVERS, name, "solver"), options or {}, f"The solver {name}")


def make_grid(name: str, steps: int, highest: float, lowest: float) -> list[float]:
    """``steps`` noise levels from ``highest`` down to ``lowest``, then 0; raises `ConfigError`."""
    return entry(GRIDS, name, "grid")(steps, highest, lowest)


def entry(registry: dict[str, Any], name: str, kind: str) -> Any:
    """``registry[name]``; a ``module:Class`` is imported, and stands in the registry from then on."""
    if name not in registry:
        if ":" not in name:
            raise unknown(kind, name, registry)
        registry[name] = find_object(name)
    return registry[name]


def make_prior(name: str) -> Any:
    """A denoiser: by the name it ships under, the path of its weights, or ``module:factory`` (called bare)."""
    if ":" in name and Path(name).suffix not in (".json", ".safetensors"):
        return construct(find_object(name), {}, f"The prior {name}")
    return load_prior(name)
