"""A posterior: a denoiser for p(x0 | y) with two seams, ``denoise`` and ``correct``."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, Self

from torch import Tensor

from ..errors import ConfigError
from ..noise import Draw, Noise
from ..problem import Problem
from ..solvers.base import least_steps
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
    knob = "Take more steps, or start at a lower sigma."  # what to turn when a run diverges

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

    def prepared(self, solver, grid: list[float], samples: int) -> Posterior:
        """This sampler for one walk of ``samples`` rows an image; a sampler around another prepares that too."""
        return self

    def network_calls(self, solver, steps: int, lowest: float | None = None) -> int:
        """How often a sample's image goes through the network in a walk of ``steps`` steps, the last of them to 0.

        ``lowest``: the last level above 0, which only a walk inside the steps depends on; default that of
        `recon.sample`'s own grid. A prior with a start of its own may ask once more for that.
        """
        return self.calls * solver.calls(steps) + self.level_calls * steps

    def steps_for(self, solver, calls: int, lowest: float | None = None) -> int:
        """The most steps with at most ``calls`` network calls; raises `ConfigError` where the solver takes more."""
        least = max(least_steps(solver), 1)
        if calls < least or self.network_calls(solver, least, lowest) > calls:
            raise ConfigError(
                f"{type(self).__name__} with {type(solver).__name__} was given {calls} network calls.",
                f"The fewest steps are {least}, which take {self.network_calls(solver, least, lowest)}.",
                "Allow that many, or take a solver of lower order: recon list solvers.",
            )
        steps = range(least, calls + 1)  # every step asks at least once, and more steps never ask less
        return least - 1 + bisect_right(steps, calls, key=lambda n: self.network_calls(solver, n, lowest))

    def start(self, state: State, draw: Draw) -> State:
        return state

    def denoise(self, x: Tensor, sigma: float, memo: Any = None) -> Estimate:
        return Estimate.keep_state(x, sigma, self.prior(x, sigma))

    def correct(self, state: State, move: Move, draw: Draw) -> State:
        return state

    # --- what a walk tells: asked of every state it yields ---------------------------------------------

    def problem_at(self, state: State) -> Problem | None:
        """What is measured at ``state``, a row of y for each of its rows; by default what it was from the start."""
        return self.problem

    def diagnostics(self, state: State) -> dict[str, Tensor]:
        """Numbers (scalar tensors) for the trace, by name; one that is not finite counts as divergence.

        They stay on the state's device, so that no step waits for them.
        """
        return {}

    def outcome(self, state: State, samples: int) -> dict[str, Any]:
        """What the last state of a walk with ``samples`` rows an image adds to `recon.Result`, by field."""
        return {}

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

    @property
    def knob(self) -> str:  # type: ignore[override]
        """The inner sampler's."""
        return self.inner.knob

    def pair(self, solver) -> None:
        self.inner.pair(solver)

    def network_calls(self, solver, steps: int, lowest: float | None = None) -> int:
        return self.inner.network_calls(solver, steps, lowest)

    def inside(self, state: State) -> tuple[Posterior, State]:
        """The inner sampler as it is at ``state``, and the state as it sees it: with its own memo."""
        return self.inner, state

    def problem_at(self, state: State) -> Problem | None:
        inner, seen = self.inside(state)
        return inner.problem_at(seen)

    def diagnostics(self, state: State) -> dict[str, Tensor]:
        inner, seen = self.inside(state)
        return inner.diagnostics(seen)

    def outcome(self, state: State, samples: int) -> dict[str, Any]:
        inner, seen = self.inside(state)
        return inner.outcome(seen, samples)
