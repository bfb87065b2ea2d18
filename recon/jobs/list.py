"""The job behind ``recon list``: the names there are, and what is known of each."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from operators.masks import MASKS

from ..networks.load import WEIGHTS, shipped
from ..posteriors import POSTERIORS
from ..registry.objects import make_sampler, make_solver, sampler_class, usual_of
from ..registry.operators import OPERATORS
from ..solvers import SOLVERS

Words = tuple[str, ...]  # one of each column


def operators() -> tuple[Words, list[Words]]:
    """Operators by name: which images they act on, their options, what they are."""
    rows = [
        (
            name,
            "real" if entry.real_only else "complex" if entry.complex_images else "real, complex",
            ", ".join(entry.options) or "-",
            first_line(entry.kind),
        )
        for name, entry in OPERATORS.items()
    ]
    return ("name", "images", "options", "what it is"), rows


def samplers() -> tuple[Words, list[Words]]:
    """Samplers by name: network calls per step under a solver of one call, which operators, options, recipe."""
    rows = [
        (
            name,
            f"{made.calls} + {made.level_calls}" if made.level_calls else str(made.calls),
            "linear" if kind.linear_only else "any",
            ", ".join(p for p in inspect.signature(kind).parameters if p not in ("prior", "problem")) or "-",
            usual.in_words,
            first_line(kind),
        )
        for name in POSTERIORS
        for kind in [sampler_class(name)]
        for usual in [usual_of(name)]
        for made in [make_sampler(name, None, options=usual.options)]
    ]
    return ("name", "calls per step", "operators", "options", "recipe", "what it is"), rows


def solvers() -> tuple[Words, list[Words]]:
    """Solvers by name: order, network calls per step, whether they add noise, options with their defaults."""
    rows = []
    for name, kind in SOLVERS.items():
        solver = make_solver(name)
        set_by_name = getattr(kind, "keywords", {})
        options = (
            f"{key}={in_short(getattr(solver, key))}"
            for key in inspect.signature(kind).parameters
            if key not in set_by_name
        )
        noisy = "yes" if solver.stochastic else "no"
        calls = str(solver.evals) + (
            f" (first {', '.join(map(str, solver.warmup))})" if solver.warmup else ""
        )
        rows.append((name, str(solver.order), calls, noisy, ", ".join(options) or "-", solver.reference))
    return ("name", "order", "calls per step", "stochastic", "options", "reference"), rows


def in_short(value: object) -> str:
    """A number or word as it is, an object by the name of its class."""
    return str(value) if isinstance(value, str | int | float) else type(value).__name__


def priors() -> tuple[Words, list[Words]]:
    """Priors that ship: kind of images, size, noise levels, training data."""
    rows = []
    for name in shipped():
        card = json.loads((WEIGHTS / f"{name}.json").read_text())
        rows.append(
            (
                name,
                "complex" if card["complex_images"] else "real",
                f"{card['parameters'] / 1e6:.1f} M",
                f"{card['sigma_min']:g} to {card['sigma_max']:g}",
                ", ".join(dict.fromkeys(map(file_of, card["data"]))),
            )
        )
    return ("name", "images", "parameters", "sigma", "trained on"), rows


def file_of(entry: str | Mapping[str, Any]) -> str:
    """The file of a training set, as a card names it: by itself, or with what was chosen of it."""
    return entry if isinstance(entry, str) else str(entry["file"])


def masks() -> tuple[Words, list[Words]]:
    """Sampling masks by name."""
    return ("name", "what it is"), [(name, first_line(make)) for name, make in MASKS.items()]


LISTINGS: dict[str, Callable[[], tuple[Words, list[Words]]]] = {
    "operators": operators,
    "samplers": samplers,
    "solvers": solvers,
    "priors": priors,
    "masks": masks,
}


def listing(kinds: Iterable[str]) -> str:
    """For each kind its name, and below it what there is of it, in columns."""
    return "\n\n".join(f"{kind}\n{in_columns(*LISTINGS[kind]())}" for kind in kinds)


def in_columns(head: Words, rows: list[Words]) -> str:
    """Columns as wide as their longest entry, without spaces at the end of a line."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return "\n".join(
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    )


def first_line(thing: object) -> str:
    """The first line of the docstring."""
    return (inspect.getdoc(thing) or "").partition("\n")[0].replace("`", "")
