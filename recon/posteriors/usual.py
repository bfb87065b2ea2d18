"""What a sampler's name alone stands for: its options, its solver and its noise levels, as they were measured best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..priors import about

FORMS_OF_A_SAMPLER = ("usual", "paper")


@dataclass(frozen=True)
class Usual:
    """The recipe of a sampler, taken wherever it is called by its name; what the caller names goes first.

    ``options`` of its constructor; ``solver`` and its ``solver_options``; the ``grid`` from ``highest`` to ``lowest``,
    noise levels in standard deviations of the prior's images (``sqrt(prior.data_var)``), None for the prior's own range.
    So nothing depends on the units of the images. The defaults are those of a sampler without a recipe, and of
    ``form="paper"``: pure noise at the prior's highest level, and no options.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    solver: str = "dpm++2m"
    solver_options: Mapping[str, Any] = field(default_factory=dict)
    grid: str = "karras"
    highest: float | None = None
    lowest: float | None = None

    def levels(self, prior: Any) -> tuple[float, float]:
        """(highest, lowest) noise level above 0 of a walk with this prior, inside its range.

        The prior's own where it does not say how its images vary.
        """
        known = about(prior)
        (low, high), (least, most) = known.usual, known.allowed
        if known.std is None:
            return high, low
        top = high if self.highest is None else min(most, self.highest * known.std)
        end = low if self.lowest is None else max(least, self.lowest * known.std)
        return top, min(end, top / 2)

    def settings(self, solver: str) -> dict[str, Any]:
        """Options, solver and its options as settings of a `Recipe` that names ``solver``, or "": then this one."""
        found: dict[str, Any] = {"sampler_options": dict(self.options)}
        if not solver:
            found |= {"solver": self.solver, "solver_options": dict(self.solver_options)}
        return found

    @property
    def in_words(self) -> str:
        """Solver, options and levels, in one line."""
        words = [called(self.solver, self.solver_options), *(f"{k}={v}" for k, v in self.options.items())]
        if self.highest is not None:
            words.append(f"from {self.highest:g} std")
        if self.lowest is not None:
            words.append(f"to {self.lowest:g} std")
        return ", ".join(words)


def called(name: str, options: Mapping[str, Any]) -> str:
    """A name with its options behind it."""
    return f"{name}({', '.join(f'{k}={v}' for k, v in options.items())})" if options else name


PAPER = Usual()
