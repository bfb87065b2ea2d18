"""From an image back to the noise that the ODE starts from: exactly with BDIA, to first order with DDIM.

Both yield one `State` a level, lowest first, the reverse of `recon.walk.walk`; the last is the noise:

    for state in ddim_inversion(prior, image, levels):
        pass
    noise = state.x                                            # at levels[0]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from .errors import ConfigError
from .noise import Noise
from .solvers import BDIA, Euler, Solver
from .solvers.base import as_solver
from .state import Estimate, State

USEFUL = 1e-2
"""Largest growth of a rounding error, relative to the state, with which an inversion is still useful."""


def ddim_inversion(
    denoise: Callable[[Tensor, float], Tensor | Estimate],
    image: Tensor,
    levels: Sequence[float],
    solver: Solver | None = None,
) -> Iterator[State]:
    """``x' = x + (t - s) eps(x, s)`` with t > s: Euler's method up the levels. Error O(h), or that of ``solver``.

    ``image`` (rows, *domain) is taken as the state at the smallest positive level of ``levels``, a grid
    that falls; ``denoise`` a prior, or the ``denoise`` of a posterior. ``solver``: any deterministic one
    (default `Euler`; `Heun` for order 2). Raises `ConfigError` for a stochastic one.
    """
    solver = Euler() if solver is None else as_solver(solver)
    if solver.stochastic:
        raise ConfigError(
            f"ddim_inversion was given {solver!r}, which adds noise.",
            "Only the ODE can be followed upwards.",
            "Use a deterministic solver: euler or heun.",
        )
    rising = positive(levels)[::-1]
    return climbed(estimating(denoise), image, rising, solver)


def climbed(denoise, x: Tensor, rising: list[float], solver: Solver) -> Iterator[State]:
    """The states of an inversion by ``solver`` up the ``rising`` levels, the first of them x itself."""
    state = State(x, rising[0])
    yield state
    draw = Noise(0, range(len(x))).at(0)
    for sigma, target in pairwise(rising):
        step = solver.step(denoise, state.x, sigma, target, state.past, draw)
        state = State(step.mean, target, step.est.x0, past=step.past)
        yield state


def bdia_inversion(
    denoise: Callable[[Tensor, float], Tensor | Estimate],
    state: State,
    levels: Sequence[float],
    solver: BDIA | None = None,
) -> Iterator[State]:
    """The states of a walk with `BDIA` from its last positive level back to ``levels[0]``, exact but for rounding.

    ``state`` is the walk's at that level, with its ``past``: the last but one where ``levels`` ends at
    0, since the step to 0 cannot be undone. ``denoise`` is what the walk saw: a prior, or a posterior's
    ``denoise`` that keeps the state (x = x0 + sigma eps); it has to give the same image again for the
    same point. One call a level. Raises `ConfigError` where ``state`` is not the end of such a walk, and
    where rounding makes the inversion useless: ``50 u gamma^-n > 1e-2`` for n two-step moves, u the
    spacing of the state's dtype at 1.
    """
    solver = BDIA() if solver is None else solver
    falling = positive(levels)
    whole = len(falling) == 1 or (len(state.past) == 2 and state.past[1] == falling[-2])
    if state.sigma != falling[-1] or not whole:
        raise ConfigError(
            f"The state at sigma {state.sigma:.4g} is not the end of a walk with BDIA to {falling[-1]:.4g}.",
            "The inversion starts from the state at the last positive level and from its past, which editing the state clears.",
            "Keep the walk's state at that level, unedited.",
        )
    refuse_rounding(solver, len(falling), state.x.dtype)
    return retraced(estimating(denoise), state, falling, solver)


def retraced(denoise, state: State, falling: list[float], solver: BDIA) -> Iterator[State]:
    """The states of a walk with BDIA, backwards over the ``falling`` levels."""
    yield state
    for index in range(len(falling) - 1, 0, -1):
        before = falling[index - 2] if index > 1 else None
        x, past = solver.reverse(denoise, state.x, falling[index], state.past, before)
        state = State(x, falling[index - 1], past=past)
        yield state


def rounding_growth(gamma: float, count: int) -> float:
    """``gamma^-n``: how much a rounding error grows in the inversion over ``count`` positive levels.

    n = count - 2: the first step is Euler's, and is undone by subtraction.
    """
    return gamma ** -max(count - 2, 0)


def refuse_rounding(solver: BDIA, count: int, dtype: torch.dtype) -> None:
    """Raise `ConfigError` where rounding errors grow to more than `USEFUL` over ``count`` levels."""
    growth, spacing = rounding_growth(solver.gamma, count), torch.finfo(dtype).eps
    if 50 * spacing * growth > USEFUL:
        raise ConfigError(
            f"BDIA with gamma={solver.gamma:g} cannot be inverted over {count} levels in {str(dtype)[6:]}.",
            f"Rounding errors grow by 1 / gamma a step, {growth:.1e} in all: {50 * spacing * growth:.1e} of the state.",
            "Use gamma=1, fewer steps, or float64.",
        )


def positive(levels: Sequence[float]) -> list[float]:
    """The levels above zero, which alone can be inverted; raises `ConfigError` where there is none, or they do not fall."""
    kept = [float(level) for level in levels if level > 0]
    if not kept or any(high <= low for high, low in pairwise(kept)):
        raise ConfigError(
            f"The grid {list(levels[:4])} cannot be walked back.",
            "A grid is falling levels, at least one of them positive.",
            "See recon.grids.karras for one that works.",
        )
    return kept


def estimating(denoise: Callable[[Tensor, float], Tensor | Estimate]) -> Callable[[Tensor, float], Estimate]:
    """A prior's image as the estimate that a solver sees; a posterior's estimate as it is."""

    def see(x: Tensor, sigma: float) -> Estimate:
        found = denoise(x, sigma)
        return found if isinstance(found, Estimate) else Estimate.keep_state(x, sigma, found)

    return see
