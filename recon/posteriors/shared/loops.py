"""Samplers with a loop of their own over the grid: they use no solver, or one inside every step."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ...errors import ConfigError
from ...grids import karras
from ...noise import Noise
from ...priors import Denoiser, about, flow
from ...solvers.base import Solver, least_steps
from ...state import State
from ..base import Posterior


class OwnLoop(Posterior):
    """A sampler whose steps are not a solver's: it overrides ``states``, not the seams, and no wrapper takes it."""

    needs_problem = True

    def network_calls(self, solver: Solver, steps: int, lowest: float | None = None) -> int:
        """One a step."""
        return steps

    def run(self, solver: Solver, grid: list[float], x: Tensor, noise: Noise) -> Iterator[State]:
        """The states of ``states``; refuses at the call what every sampler refuses."""
        super().run(solver, grid, x, noise)  # for what it refuses: its walk never starts
        return self.states(solver, grid, x, noise)

    def states(self, solver: Solver, grid: list[float], x: Tensor, noise: Noise) -> Iterator[State]:
        """The state after every step of ``grid``, from ``x`` (rows, *domain) at ``grid[0]``; the last is the answer."""
        raise NotImplementedError


def inner_levels(prior, steps: int, sigma: float) -> list[float]:
    """``steps`` Karras levels from sigma down to a hundredth of it, and 0; none below the prior's lowest.

    From the prior's lowest level itself: one step to 0.
    """
    lowest = max(0.01 * sigma, about(prior).allowed[0])
    return karras(steps, sigma, lowest) if lowest < sigma else [sigma, 0.0]


def flowing(prior, solver: Solver, steps: int, grid: list[float], dtype: torch.dtype) -> Denoiser:
    """`recon.priors.flow` of ``solver`` in ``steps`` steps on `inner_levels` of every level of ``grid``.

    Raises `ConfigError`, now and not in the walk, where the solver cannot walk one of them.
    """
    inner = [inner_levels(prior, steps, sigma) for sigma in grid if sigma > 0]
    for levels in inner:
        solver.check_levels(levels, torch.finfo(dtype).eps)
    return flow(prior, solver, steps, lambda count, sigma: inner_levels(prior, count, sigma))


def flow_calls(prior, solver: Solver, steps: int, levels: int, lowest: float | None) -> int:
    """Network calls of `flowing` at ``levels`` levels above 0, the last of them ``lowest``."""
    if lowest is None and levels == 1:  # the highest level of all
        return solver.calls(steps)
    end = about(prior).usual[0] if lowest is None else lowest
    return (levels - 1) * solver.calls(steps) + solver.calls(len(inner_levels(prior, steps, end)) - 1)


def refuse_inner_solver(name: str, solver: Solver, steps: int) -> None:
    """Raise `ConfigError` for a solver of the flow inside a step that adds noise, or never reaches its order."""
    kind = type(solver).__name__
    if solver.stochastic:
        raise ConfigError(
            f"{name} was given {kind}, which adds noise.",
            "The solver walks the probability flow inside every step, which is deterministic.",
            "Choose euler, heun, dpm++2m, or ddim with eta=0.",
        )
    least = least_steps(solver)
    if least > steps:
        raise ConfigError(
            f"{name} walks {steps} step{'s' if steps > 1 else ''} of {kind} inside every step.",
            f"It is of order {least}, and would never reach it.",
            "Take more inner steps, or a solver of lower order: recon list solvers.",
        )
