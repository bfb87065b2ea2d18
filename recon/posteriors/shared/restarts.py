"""Samplers that move the state between steps, so that every step is a solver's first."""

from __future__ import annotations

import warnings

from ...errors import ConfigError
from ...solvers.base import Solver


def refuse_warmup(sampler: str, solver: Solver) -> None:
    """Raises `ConfigError` for a solver that starts with Runge-Kutta steps; warns of a multistep one, which loses its order."""
    name = type(solver).__name__
    if solver.warmup:
        raise ConfigError(
            f"{sampler} was given {name}.",
            "It moves the state between steps, which restarts the solver, and it starts with Runge-Kutta steps.",
            "Take heun, which is the same at the same price, or a one-call solver: euler, ddim, ddpm.",
        )
    if solver.nodes > 1 or solver.order > solver.evals:
        warnings.warn(
            f"{sampler} moves the state between steps, so {name} restarts at each of them: it is of order one. "
            "euler is the same for less memory, heun is of order two.",
            stacklevel=3,
        )
