"""Which solver can walk which grid, under which sampler and prior: refused before the first network call."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .errors import ConfigError
from .posteriors import Posterior
from .priors import about
from .solvers.base import Solver, least_steps


def refuse_pair(sampler: Posterior, solver: Solver, levels: Sequence[float], dtype: torch.dtype) -> None:
    """Raise `ConfigError` for a solver that cannot walk this grid, or not under this sampler or prior."""
    refuse_order(solver, len(levels) - 1)
    sampler.pair(solver)
    refuse_levels(sampler.prior, solver, levels)
    solver.check_levels(levels, torch.finfo(dtype).eps)


def refuse_order(solver: Solver, steps: int) -> None:
    """Raise `ConfigError` for fewer steps than the solver takes to reach its order."""
    least = least_steps(solver)
    if least > steps:
        raise ConfigError(
            f"{type(solver).__name__} was given {steps} step{'s' if steps > 1 else ''}.",
            f"It is of order {least}: so few steps gain nothing from it.",
            f"Take at least {least} steps, or a solver of lower order: recon list solvers.",
        )


def refuse_levels(prior, solver: Solver, levels: Sequence[float]) -> None:
    """Raise `ConfigError` for levels outside the range that the prior was trained for, where it states one."""
    top, bottom = max(map(solver.raised, levels)), min(level for level in levels if level > 0)
    low, high = about(prior).allowed
    if top > high * (1 + 1e-6):
        raise ConfigError(
            f"The walk asks the prior at sigma {top:.4g}.",
            f"It was trained up to {high:g}.",
            f"Start at {high:g} or below (sigma_start, or the grid's first level).",
        )
    if bottom < low * (1 - 1e-6):
        raise ConfigError(
            f"The walk asks the prior at sigma {bottom:.4g}.",
            f"It was trained down to {low:g}.",
            f"End the grid at {low:g} (then 0), or start higher.",
        )
