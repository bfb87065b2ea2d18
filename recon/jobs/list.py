"""What ``recon list`` says: the names there are, and what is known of each."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable

from operators.masks import MASKS

from ..networks.load import WEIGHTS, shipped
from ..posteriors import POSTERIORS
from ..registry.operators import OPERATORS
from ..solvers import SOLVERS

Row = tuple[str, ...]


def operators() -> tuple[Row, list[Row]]:
    rows = [
        (
            name,
            "complex" if entry.complex_images else "real, complex",
            ", ".join(entry.options) or "-",
            first_line(entry.kind),
        )
        for name, entry in OPERATORS.items()
    ]
    return ("name", "images", "options", "what it is"), rows


def samplers() -> tuple[Row, list[Row]]:
    rows = [
        (
            name,
            f"{kind.calls} + {kind.level_calls}" if kind.level_calls else str(kind.calls),
            "linear" if kind.linear_only else "any",
            ", ".join(p for p in inspect.signature(kind).parameters if p not in ("prior", "problem")) or "-",
            first_line(kind),
        )
        for name, kind in POSTERIORS.items()
    ]
    return ("name", "calls a step", "operators", "options", "what it is"), rows


def solvers() -> tuple[Row, list[Row]]:
    rows = []
    for name, kind in SOLVERS.items():
        solver = kind()
        set_by_name = getattr(kind, "keywords", {})
        options = (
            f"{key}={shown(getattr(solver, key))}"
            for key in inspect.signature(kind).parameters
            if key not in set_by_name
        )
        noisy = "yes" if solver.stochastic else "no"
        calls = str(solver.evals) + (
            f" (first {', '.join(map(str, solver.warmup))})" if solver.warmup else ""
        )
        rows.append((name, str(solver.order), calls, noisy, ", ".join(options) or "-", solver.reference))
    return ("name", "order", "calls a step", "stochastic", "options", "reference"), rows


def shown(value: object) -> str:
    """A number or word as it is, an object by its kind."""
    return str(value) if isinstance(value, str | int | float) else type(value).__name__


def priors() -> tuple[Row, list[Row]]:
    rows = []
    for name in shipped():
        card = json.loads((WEIGHTS / f"{name}.json").read_text())
        rows.append(
            (
                name,
                "complex" if card["complex_images"] else "real",
                f"{card['parameters'] / 1e6:.1f} M",
                f"{card['sigma_min']:g} to {card['sigma_max']:g}",
                ", ".join(card["data"]),
            )
        )
    return ("name", "images", "parameters", "sigma", "trained on"), rows


def masks() -> tuple[Row, list[Row]]:
    return ("name", "what it is"), [(name, first_line(make)) for name, make in MASKS.items()]


LISTS: dict[str, Callable[[], tuple[Row, list[Row]]]] = {
    "operators": operators,
    "samplers": samplers,
    "solvers": solvers,
    "priors": priors,
    "masks": masks,
}


def listing(kinds: Iterable[str]) -> str:
    """A table for each kind."""
    return "\n\n".join(f"{kind}\n{table(*LISTS[kind]())}" for kind in kinds)


def table(head: Row, rows: list[Row]) -> str:
    """Columns as wide as their longest entry, the last one open."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return "\n".join(
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    )


def first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0].replace("`", "")
