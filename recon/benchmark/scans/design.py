"""The cells of ``recon bench simulated``: every combination that a scan can have, or a few that cover the range."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import combinations, product
from typing import Any

import numpy as np

from operators.masks import MASKS

from ...errors import ConfigError, unknown

CENTRE = 2 / 3  # of all measured lines: the most that the central ones may be


@dataclass(frozen=True)
class SimulatedCell:
    """One simulated scan; see `simulated.simulate_scan`. ``slice`` of the stack."""

    coils: int
    matrix: int
    lines: int
    accel: float
    noise: float
    mask: str
    slice: int = 0
    seed: int = 0

    @property
    def label(self) -> str:
        """The cell in words."""
        return (
            f"{self.coils} coils, {self.matrix}, {self.lines} lines, {self.accel:g}x, noise {self.noise:g}, "
            f"{self.mask}, slice {self.slice}"
        )

    @property
    def possible(self) -> bool:
        """Whether lines are left for the periphery: the central ones are at most `CENTRE` of all."""
        return self.lines <= CENTRE * self.matrix / self.accel


RANGE: dict[str, tuple[Any, ...]] = {
    "coils": (1, 4, 8, 16, 32),
    "matrix": (64, 96, 128, 192, 256, 320, 384),
    "lines": (4, 8, 16, 24, 40),
    "accel": (2.0, 4.0, 6.0, 8.0, 10.0),
    "noise": (0.004, 0.02),
    "mask": ("equispaced-fraction", "random"),
}
"""The values that are measured where none are named."""


def design(
    axes: Mapping[str, Sequence[Any]], slices: int, count: int | None = None, seed: int = 0
) -> list[SimulatedCell]:
    """Every possible combination of the values of ``axes`` (those of `RANGE` where there are none), or ``count`` of them.

    Each has one of the ``slices`` of the stack and a seed of its own, drawn from ``seed``. Raises `ConfigError` where
    no combination is possible.
    """
    for name in axes:
        if name not in RANGE:
            raise unknown("axis", name, RANGE)
    refuse_values(axes, count)
    values = {name: [type(usual[0])(v) for v in axes.get(name) or usual] for name, usual in RANGE.items()}
    cells = [SimulatedCell(**dict(zip(values, chosen, strict=True))) for chosen in product(*values.values())]
    cells = [cell for cell in cells if cell.possible]
    if not cells:
        raise ConfigError(
            "No scan has these settings.",
            f"The central lines are at most {CENTRE:.0%} of all lines that are measured, matrix / acceleration.",
            "Use fewer --lines, a lower --accel, or a larger --matrix.",
        )
    cells = [drawn(cell, slices, seed) for cell in cells]
    return cells if count is None or count >= len(cells) else covering(cells, count, seed)


def refuse_values(axes: Mapping[str, Sequence[Any]], count: int | None) -> None:
    """Raise `ConfigError` for values that no scan has."""
    for name, least in {"coils": 1, "matrix": 16, "lines": 1, "accel": 1, "noise": 0}.items():
        for value in axes.get(name, ()):
            if not least <= value < math.inf:
                raise ConfigError(f"--{name} is {value}.", f"It is a number, at least {least}.")
    for name in axes.get("mask", ()):
        if name not in MASKS:
            raise unknown("mask", name, MASKS)
    if count is not None and count < 1:
        raise ConfigError(f"--cells is {count}.", "It is a number of scans, at least 1.")


def drawn(cell: SimulatedCell, slices: int, seed: int) -> SimulatedCell:
    """The cell with the slice and the seed that belong to its settings."""
    text = json.dumps([*asdict(cell).values(), seed])
    number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest())
    return replace(cell, slice=number % slices, seed=number // slices)


def covering(cells: Sequence[SimulatedCell], count: int, seed: int) -> list[SimulatedCell]:
    """``count`` of ``cells`` in which all values and pairs of values of two axes occur about equally often.

    One after another, each the one whose values and pairs have occurred least; of several a random one. Fewer
    cells are the first of more.
    """
    names = [field.name for field in fields(SimulatedCell) if field.name in RANGE]
    groups = [(name,) for name in names] + list(combinations(names, 2))
    codes = []
    for group in groups:
        kinds = [tuple(getattr(cell, name) for name in group) for cell in cells]
        codes.append(np.unique([str(kind) for kind in kinds], return_inverse=True)[1])
    often = [np.zeros(code.max() + 1) for code in codes]
    tie = np.random.default_rng(seed).random(len(cells))
    left = np.ones(len(cells), bool)
    chosen = []
    for _ in range(count):
        seen = sum(o[code] * len(o) for o, code in zip(often, codes, strict=True))
        best = int(np.lexsort((tie, np.where(left, seen, np.inf)))[0])
        left[best] = False
        chosen.append(cells[best])
        for o, code in zip(often, codes, strict=True):
            o[code[best]] += 1
    return chosen
