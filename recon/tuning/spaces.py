"""What is searched: of a sampler's options, of solvers, and of noise levels in standard deviations of the images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.dataclasses import dataclass

from ..benchmark.specs import emptied
from ..errors import ConfigError
from ..posteriors.usual import Usual
from ..registry.configuration import parse_solver
from ..registry.objects import make_solver
from ..registry.schema import SCHEMA

Number = Annotated[int, Field(strict=True)] | Annotated[float, Field(strict=True)]


@dataclass(frozen=True, config=SCHEMA)
class Range:
    """Numbers from ``low`` to ``high``, both included: whole ones where both are; even in the logarithm with ``log``."""

    low: Number
    high: Number
    log: bool = False

    def __post_init__(self):
        if not self.low < self.high:
            raise ConfigError(
                f"low {self.low} is not below high {self.high}.", "A range has two ends.", "Correct one."
            )
        if self.log and self.low <= 0:
            raise ConfigError(f"low is {self.low}.", "A logarithm needs numbers above 0.", "Raise low.")

    @property
    def ends(self) -> tuple[float, ...]:
        """The values that are tried before any work."""
        return self.low, self.high

    @property
    def in_words(self) -> str:
        """The range in a few characters."""
        return f"{self.low:g} to {self.high:g}" + (", log" if self.log else "")


def as_choices(value: Any) -> Any:
    """A list of values as a tuple."""
    return tuple(value) if isinstance(value, list) else value


Plain = (
    Annotated[bool, Field(strict=True)] | Number | Annotated[str, Field(strict=True)] | None
)  # what optuna can choose among
Alternatives = Annotated[tuple[Plain, ...], BeforeValidator(as_choices), Field(min_length=2)]
Axis = Range | Alternatives


def known_solvers(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names themselves; raises `ConfigError` for one that is that of no solver."""
    for name in names:
        make_solver(*parse_solver(name))
    return names


@dataclass(frozen=True, config=SCHEMA)
class Search:
    """The values that are tried. Each of ``options``: a `Range`, or a list to choose from.

    ``solver``: names, with options after commas: ``renoise,eta=1``. ``highest`` and ``lowest``: the first noise level
    and the last above 0, in standard deviations of the prior's images, as in `posteriors.usual.Usual`.
    What is not named keeps the recipe's value.
    """

    options: Annotated[dict[str, Axis], BeforeValidator(emptied)] = field(default_factory=dict)
    solver: Annotated[tuple[str, ...], AfterValidator(known_solvers)] = ()
    highest: Range | None = None
    lowest: Range | None = None

    def __post_init__(self):
        if self.highest and self.lowest and not self.lowest.high < self.highest.low:
            raise ConfigError(
                f"lowest goes up to {self.lowest.high}, highest down to {self.highest.low}.",
                "Noise levels fall from the highest to the lowest.",
                "Separate the two ranges.",
            )

    def axes(self) -> Iterator[tuple[str, Range | tuple[Any, ...]]]:
        """What is searched, by the name it has in a trial."""
        yield from self.options.items()
        for name in (SOLVER, *LEVELS):
            if getattr(self, name):
                yield f"recipe.{name}", getattr(self, name)

    def found(self, values: Mapping[str, Any], recipe: Usual) -> Usual:
        """The recipe with ``values`` of `axes` in the place of its own; numbers to three significant digits."""
        short = {
            name: float(f"{value:.3g}") if isinstance(value, float) else value
            for name, value in values.items()
        }
        solver, solver_options = recipe.solver, recipe.solver_options
        if "recipe.solver" in short:
            solver, solver_options = parse_solver(str(short["recipe.solver"]))
        options = {name: value for name, value in short.items() if name in self.options}
        return Usual(
            {**recipe.options, **options},
            solver,
            solver_options,
            recipe.grid,
            *(short.get(f"recipe.{name}", getattr(recipe, name)) for name in LEVELS),
        )


SOLVER, LEVELS = "solver", ("highest", "lowest")
START_AND_END: dict[str, Any] = {"highest": Range(2.0, 20.0, log=True), "lowest": Range(0.02, 0.2, log=True)}
LOW_START: dict[str, Any] = START_AND_END | {"highest": Range(0.3, 20.0, log=True)}
SOLVERS_TRIED = ("renoise,eta=1.0", "renoise,eta=0.5", "sde-dpm++1", "sde-dpm++2m", "euler", "dpm++2m")
WALK: dict[str, Any] = {"solver": SOLVERS_TRIED, **START_AND_END}

SPACES = {
    "dds": Search(
        {"steps": Range(3, 100, log=True), "keep": ("noise", "state"), "variance": ("uniform", "local")},
        **WALK,
    ),
    "ddnm": Search(
        {"keep": ("noise", "state"), "steps": Range(1, 20, log=True), "cutoff": Range(1e-4, 0.1, log=True)},
        **WALK,
    ),
    "ddrm": Search(
        {"eta": Range(0.0, 1.0), "eta_b": Range(0.0, 1.0), "start": ("measured", "noise")}, **START_AND_END
    ),
    "diffpir": Search({"lam": Range(0.1, 10.0, log=True), "steps": Range(2, 20, log=True)}, **WALK),
    "dps": Search({"form": ("auto", "squared"), "zeta": Range(0.3, 10.0, log=True)}, **WALK),
    "mcg": Search({"zeta": Range(0.3, 1.95), "steps": Range(1, 10)}, **WALK),
    "pigdm": Search({"form": ("adaptive", "score"), "steps": Range(3, 30, log=True)}, **WALK),
    "mmps": Search({"steps": Range(1, 10)}, **WALK),
    "daps": Search({"spread": Range(0.1, 2.0, log=True), "ode_steps": Range(1, 3)}, **START_AND_END),
    "reddiff": Search(
        {
            "lr": Range(0.02, 1.0, log=True),
            "weight": Range(0.05, 2.0, log=True),
            "weighting": ("linear", "sqrt", "square", "const"),
            "init": ("smooth", "pinv", "backprojection", "zeros"),
        },
        **LOW_START,
    ),
    "stsl": Search({"inner": Range(1, 5), "eta": Range(0.0, 0.1)}, **START_AND_END),
    "smc": Search({"temper": Range(0.0, 0.95), "ess": Range(0.1, 0.9)}, **START_AND_END),
}
"""The search of each sampler where its settings name none; the recipe's own values lie in it.

DPS's recipe, whose operator decides the step, is compared with and not a trial."""
