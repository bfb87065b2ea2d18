"""Whose method a name stands for: the one place where the tables of other methods are looked up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from ...errors import unknown
from ...posteriors import POSTERIORS
from ...registry.configuration import parameters, refuse_unknown
from ...registry.objects import sampler_class
from ...registry.plugins import is_own
from ...registry.schema import refuse_misfits
from ..answer import Answer
from .classical import CLASSICAL
from .peers import PEERS


class Kind(Enum):
    """Whose a method is: ours runs over solvers, budgets and seeds, deepinv's over budgets and seeds, a classical one once."""

    RECON = "recon"
    DEEPINV = "deepinv"
    CLASSICAL = "classical"


OTHERS: dict[Kind, dict[str, Callable[..., Answer]]] = {Kind.DEEPINV: PEERS, Kind.CLASSICAL: CLASSICAL}
GIVEN = ("scene", "calls", "samples", "seed")
"""What every other method is given, and not an option of it."""


def kind_of(sampler: str) -> Kind:
    """The kind of a method; what is in no table is a sampler of ours."""
    return next((kind for kind, methods in OTHERS.items() if sampler in methods), Kind.RECON)


def other_method(sampler: str) -> Callable[..., Answer] | None:
    """The function of a method that is not ours, called as ``method(scene, calls, samples, seed, **options)``."""
    return next((methods[sampler] for methods in OTHERS.values() if sampler in methods), None)


def refuse_method(sampler: str) -> None:
    """Raise `ConfigError` for a name that stands for nothing."""
    if kind_of(sampler) is not Kind.RECON:
        return
    names = [*POSTERIORS, *(name for methods in OTHERS.values() for name in methods)]
    if sampler not in names and not is_own(sampler):
        raise unknown("method", sampler, names)
    sampler_class(sampler)


def refuse_method_options(sampler: str, options: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for options that a method of others does not take, as far as it says which it takes."""
    method = other_method(sampler)
    assert method is not None
    known, _, anything = parameters(method)
    if not anything:
        refuse_unknown(options, [name for name in known if name not in GIVEN], f"The method {sampler}")
    refuse_misfits(method, options, f"The method {sampler}")
