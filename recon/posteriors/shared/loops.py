"""Samplers with a loop of their own over the grid: no path of a solver, or one inside every step."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ...errors import ConfigError
from ...grids import karras
from ...noise import Noise
from ...priors import Denoiser, about, flow
from ...solvers.base import least_steps
from ...state import State
from ..base import Posterior


class OwnLoop(Posterior):
    """A sampler whose steps are not a solver's: no kernel to weigh, nothing between steps to act on."""

    needs_problem = True

    def network_calls(self, solver, steps: int, lowest: float | None = None) -> int:
        return steps

    def run(self, solver, grid: list[float], x: Tensor, noise: Noise) -> Iterator[State]:
        super().run(solver, grid, x, noise)  # for what it refuses: its walk never starts
        return self.states(solver, grid, x, noise)

    def states(self, solver, grid: list[float], x: Tensor, noise: Noise) -> Iterator[State]:
        """All states from ``x`` at ``grid[0]`` to the answer."""
        raise NotImplementedError


def inner_levels(prior, steps: int, sigma: float) -> list[float]:
    """``steps`` Karras levels from sigma down to a hundredth of it, and 0; never below the prior's lowest.

    At the prior's lowest level there is nothing below to walk: one step to 0.
    """
    lowest = max(0.01 * sigma, about(prior).allowed[0])
    return karras(steps, sigma, lowest) if lowest < sigma else [sigma, 0.0]


def flowing(prior, solver, steps: int, grid: list[float], dtype: torch.dtype) -> Denoiser:
    """`recon.priors.flow` of ``solver`` on `inner_levels`, once every inner grid is known to be walkable."""
    inner = [inner_levels(prior, steps, sigma) for sigma in grid if sigma > 0]
    if hasattr(solver, "check_levels"):
        for levels in inner:
            solver.check_levels(levels, torch.finfo(dtype).eps)
    return flow(prior, solver, steps, lambda count, sigma: inner_levels(prior, count, sigma))


def flow_calls(prior, solver, steps: int, levels: int, lowest: float | None) -> int:
    """Network calls of `flowing` at so many levels above 0, the last of them ``lowest``."""
    if lowest is None and levels == 1:  # the highest level of all
        return solver.calls(steps)
    end = about(prior).usual[0] if lowest is None else lowest
    return (levels - 1) * solver.calls(steps) + solver.calls(len(inner_levels(prior, steps, end)) - 1)


def refuse_inner_solver(name: str, solver, steps: int) -> None:
    """Of a flow inside: noise, and orders it never reaches."""
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
