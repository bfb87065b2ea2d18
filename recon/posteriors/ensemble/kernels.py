"""What can be weighed: samplers that act through ``denoise`` alone, under solvers whose kernel is a density."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from ...errors import ConfigError
from ...noise import Noise
from ...solvers.base import Solver
from ...state import Estimate
from ..base import Posterior
from .potential import Each


def refuse_unweighable(inner: Posterior) -> None:
    """Raise `ConfigError` for a sampler that does more than ``denoise``: a loop of its own, or a state that it moves.

    One whose ``start`` and ``correct`` only change its memo says so by ``moves_state = False``.
    """
    kind, why = type(inner), ""
    acts = kind.start is not Posterior.start or kind.correct is not Posterior.correct
    if kind.run is not Posterior.run:
        why = "It runs a loop of its own, which has no kernels to weigh."
    elif getattr(kind, "moves_state", acts):
        why = "It moves the state between steps, and no density says how."
    if why:
        raise ConfigError(
            f"Ensemble was given {kind.__name__}.", why, "Put it around the prior, DDS, DPS or PiGDM."
        )


def refuse_solver(name: str, inner: Posterior, guided: bool, solver: Solver) -> None:
    """Raise `ConfigError` where the solver's steps have no density, or take calls that the unguided step does not."""
    kind = type(solver).__name__
    if not solver.kernel:
        raise ConfigError(
            f"{name} was given {kind}.",
            "It weighs by transition densities, and this solver adds noise inside its step.",
            "Choose a solver that draws once a step: ddpm, sde-dpm++1, sde-dpm++2m.",
        )
    if not solver.stochastic and guided:
        raise ConfigError(
            f"{name} around {type(inner).__name__} was given {kind}.",
            "A guided deterministic step has no density to weigh with.",
            "Choose a stochastic solver: ddpm, sde-dpm++1, sde-dpm++2m.",
        )
    if solver.stochastic and max(solver.evals, *solver.warmup, 1) > 1:
        raise ConfigError(
            f"{name} was given {kind}.",
            "Its unguided kernel needs evaluations at points that the guided step does not visit.",
            "Choose a solver with one evaluation a step: ddpm, sde-dpm++1, sde-dpm++2m.",
        )


def refuse_steps(
    solver: Solver, grid: list[float], guided: bool, pull: Callable[[float, float, float], Each]
) -> None:
    """Raise `ConfigError` for a guided step without noise, and for one too long for explicit guidance.

    ``pull(s, kept, std)`` is what the guidance takes off ``kept``.
    """
    for s, t, kept, std in kernels(solver, grid):
        if guided and std == 0:
            raise ConfigError(
                f"{solver!r} adds no noise from sigma {s:.4g} to {t:.4g}.",
                "A guided deterministic step has no density to weigh with.",
                "Raise its eta.",
            )
        gains = torch.as_tensor(kept - pull(s, kept, std)).flatten()
        gain = float(gains[gains.abs().argmax()])
        if abs(gain) > max(1.0, abs(kept)) + 1e-6:  # by the guidance, not by the solver
            raise ConfigError(
                f"The step from sigma {s:.4g} to {t:.4g} is too long for its explicit guidance.",
                f"It multiplies deviations in a measured direction by {gain:.3g}.",
                'Use annealing="matched", more steps, or a larger c.',
            )


def kernels(solver: Solver, grid: list[float]) -> Iterator[tuple[float, float, float, float]]:
    """(s, t, kept, std) of every step to t > 0: ``x' = kept x + std z`` where the prior says 0."""

    def denoise(x: Tensor, sigma: float) -> Estimate:
        return Estimate.keep_state(x, sigma, torch.zeros_like(x))

    one, draw = torch.ones(1, 1, dtype=torch.float64), Noise(0).at(0)
    for s, t in pairwise(grid):
        if t > 0:
            step = solver.step(denoise, one, s, t, (), draw)
            yield s, t, float(step.mean), step.std
