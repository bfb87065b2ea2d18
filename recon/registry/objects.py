"""Samplers, solvers, grids and priors from their names and options: nobody else looks into the registries."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

from ..errors import ConfigError, unknown
from ..grids import GRIDS
from ..networks.load import load_prior, shipped
from ..posteriors import POSTERIORS, Posterior
from ..posteriors.usual import PAPER, Usual
from ..problem import Problem
from ..solvers import SOLVERS, Solver
from ..solvers.base import as_solver, completed
from .configuration import construct, parameters, refuse_unknown
from .plugins import find_object, is_own
from .schema import refuse_misfits


def sampler_class(name: str) -> Any:
    """The class of the sampler ``name``, or a function that makes one of ``(prior, problem)``.

    A class of the user's own need not be derived from `Posterior`: it gets from there what it lacks.
    Raises `ConfigError` for an unknown name, and for a class that does nothing a sampler does.
    """
    kind = entry(POSTERIORS, name, "sampler")
    if isinstance(kind, type) and not issubclass(kind, Posterior):
        if not any(callable(getattr(kind, seam, None)) for seam in SEAMS):
            raise ConfigError(
                f"{name} is not a sampler.",
                f"It has none of the methods {', '.join(SEAMS)}.",
                "Write a subclass of recon.posteriors.Posterior with denoise(self, x, sigma, memo).",
            )
        kind = POSTERIORS[name] = completed(kind, Posterior)
    return kind


def usual_of(name: str) -> Usual:
    """The recipe of the sampler ``name``; that of the papers for one that has none. Raises `ConfigError`."""
    return getattr(sampler_class(name), "usual", PAPER)


SEAMS = ("start", "denoise", "correct", "run")
"""What a sampler changes about the prior; one of them at least."""


def make_sampler(
    name: str, prior: Any, problem: Problem | None = None, options: Mapping[str, Any] | None = None
) -> Posterior:
    """The sampler ``name`` of ``prior``, with its ``options`` by keyword; raises `ConfigError`."""
    options = options or {}
    refuse_sampler_options(name, options)
    refuse_misfits(sampler_class(name), options, f"The sampler {name}")
    made = sampler_class(name)(prior, problem, **options)
    if not isinstance(made, Posterior):
        raise ConfigError(
            f"{name} made a {type(made).__name__}, which is not a sampler.",
            "A sampler is a recon.posteriors.Posterior.",
            "Name a subclass of it, or a function that returns one.",
        )
    return made


def refuse_sampler_options(name: str, options: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for options that the sampler ``name`` does not take."""
    known, _, anything = parameters(sampler_class(name))
    if not anything:
        refuse_unknown(options, [key for key in known if key not in FROM_THE_CALLER], f"The sampler {name}")


FROM_THE_CALLER = ("prior", "problem")
"""Parameters of a sampler that are not options: whoever builds it gives them."""


def make_solver(name: str, options: Mapping[str, Any] | None = None) -> Solver:
    """The solver ``name`` with its ``options`` by keyword; one of the user's own needs a ``step`` only.

    Raises `ConfigError` for an unknown name, and for options that it does not take.
    """
    return as_solver(construct(entry(SOLVERS, name, "solver"), options or {}, f"The solver {name}"))


def known_solver(name: str) -> str:
    """The name itself; raises `ConfigError` where it is that of no solver."""
    entry(SOLVERS, name, "solver")
    return name


def make_grid(name: str, steps: int, highest: float, lowest: float) -> list[float]:
    """``steps`` noise levels from ``highest`` down to ``lowest``, then 0; raises `ConfigError`."""
    return entry(GRIDS, name, "grid")(steps, highest, lowest)


def entry(registry: dict[str, Any], name: str, kind: str) -> Any:
    """``registry[name]``; one of the user's own (`find_object`) stands in the registry from then on."""
    if name not in registry:
        if not is_own(name):
            raise unknown(kind, name, registry)
        registry[name] = find_object(name)
    return registry[name]


def make_prior(name: str) -> Any:
    """A denoiser: by the name it ships under, by the path of its weights, or of the user's own (`own_prior`)."""
    if Path(name).suffix in (".json", ".safetensors") or name in shipped() or not is_own(name):
        return load_prior(name)
    return own_prior(name)


def own_prior(name: str) -> Any:
    """The denoiser ``module:name``: a callable of (x, sigma), or what a class or function returns, called bare.

    Raises `ConfigError` where that is not callable.
    """
    found = find_object(name)
    makes_one = isinstance(found, type) or (
        isinstance(found, FunctionType | partial) and len(parameters(found)[1]) != 2
    )
    made = construct(found, {}, f"The prior {name}") if makes_one else found
    if not callable(made):
        raise ConfigError(
            f"{name} is a {type(made).__name__}, which is not a prior.",
            "A prior is called as D(x, sigma) and returns the clean image, of the shape of x.",
            "Name such a function or object, or a function without arguments that returns one.",
        )
    return made
