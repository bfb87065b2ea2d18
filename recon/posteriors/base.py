"""A posterior: a denoiser for p(x0 | y) with two seams, ``denoise`` and ``correct``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

from torch import Tensor

from ..errors import ConfigError
from ..noise import Draw, Noise
from ..problem import Problem
from ..state import Estimate, Move, State
from ..walk import walk


class Posterior:
    """The prior itself: what every sampler is derived from, and the unconditional sampler.

    ``denoise`` is what the solver sees at ``(x, sigma)``; ``correct`` acts between steps, at fixed
    sigma, and returns ``past=()`` in the state when it moved the state under the solver. ``y`` has as
    many rows as the state. Wrapping is closed: a posterior around a posterior is a posterior.
    """

    calls = 1  # of the prior, each time the solver asks
    level_calls = 0  # of the prior besides, at every level above zero: in `start` and `correct`
    own_start = False  # whether `start` makes the state itself, so that any other start is lost
    needs_problem = False
    linear_only = False
    needs_kernel = False  # transition densities: N(mean, std^2), std > 0, as all of the solver's noise

    def __init__(self, prior, problem: Problem | None = None):
        self.prior, self.problem = prior, problem
        if problem is not None:
            self.admit(problem)

    def given(self, problem: Problem) -> Posterior:
        """The same sampler for other measurements."""
        other = self.copied(problem=problem)
        other.admit(problem)
        return other

    def copied(self, **changes: Any) -> Self:
        """The same sampler with other attributes; nothing is made sure of again."""
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__, **changes)
        return other

    def admit(self, problem: Problem) -> None:
        """Refuse a problem this sampler cannot solve."""
        if self.linear_only and not problem.A.linear:
            raise ConfigError(
                f"{type(self).__name__} was given {problem.A!r}, which is not linear.",
                "Its data step solves normal equations.",
                "Choose a sampler for nonlinear operators: recon list samplers.",
            )

    def pair(self, solver) -> None:
        """Refuse a solver this sampler cannot wrap."""
        if self.needs_kernel and not (solver.stochastic and solver.kernel):
            raise ConfigError(
                f"{type(self).__name__} was given {type(solver).__name__}.",
                "It weighs by transition densities, which a deterministic step, or one with inner noise, has none of.",
                "Choose a stochastic one-kernel solver: ddim with eta=1, ddpm, sde-dpm++1.",
            )

    def prepared(self, solver, grid: list[float], samples: int) -> Posterior:
        """This sampler for one walk of ``samples`` rows an image; a sampler around another prepares that too."""
        return self

    def start(self, state: State, draw: Draw) -> State:
        return state

    def denoise(self, x: Tensor, sigma: float, memo: Any = None) -> Estimate:
        return Estimate.keep_state(x, sigma, self.prior(x, sigma))

    def correct(self, state: State, move: Move, draw: Draw) -> State:
        return state

    def run(self, solver, grid: list[float], x: Tensor, noise: Noise) -> Iterator[State]:
        """All states from ``x`` at ``grid[0]`` to the answer."""
        if self.needs_problem and self.problem is None:
            raise ConfigError(
                f"{type(self).__name__} has no problem to solve.",
                do="Give it one: posterior.given(recon.Problem(A, y, sigma)).",
            )
        return walk(self.prepared(solver, grid, noise.samples), solver, grid, x, noise)


class Around(Posterior):
    """A posterior around another, ``inner``: the prior is the inner one's, and so everybody's."""

    inner: Posterior

    @property
    def prior(self):  # type: ignore[override]
        """The network at the bottom."""
        return self.inner.prior

    @prior.setter
    def prior(self, prior) -> None:
        self.inner.prior = prior

    def pair(self, solver) -> None:
        self.inner.pair(solver)
