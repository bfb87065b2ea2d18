"""A posterior: a denoiser for p(x0 | y) with two seams, ``denoise`` and ``correct``."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, Self

from torch import Tensor

from ..errors import ConfigError
from ..noise import Draw, Noise
from ..problem import Problem
from ..solvers.base import Solver, least_steps
from ..state import Estimate, Move, State
from ..walk import walk
from .usual import Usual


class Posterior:
    """The prior itself, ``x0 = D(x, s)``: the unconditional sampler, and what every other sampler derives from.

    A sampler is configuration: nothing that changes during a walk is stored in it. That travels in the
    `State`, whose tensors have one row for each sample, image-major, (rows, *domain); ``problem.y`` has as many rows.

    A subclass overrides ``denoise`` (what the solver sees at a noise level), ``start`` and ``correct`` (what happens
    between steps, at a fixed level), or, where its steps are not a solver's, ``run``. It overrides ``check_problem``
    to refuse a problem and to compute what depends on the measurements alone, ``pair`` to refuse a solver, and
    ``network_calls`` where the attributes below do not add up to it. Options are keyword arguments of its
    constructor, which ends with ``super().__init__(prior, problem)``, since that calls ``check_problem``.
    """

    calls = 1  # network calls of one `denoise`
    level_calls = 0  # network calls of `start` and `correct` at every level above zero
    own_start = False  # whether `start` replaces the state it is given, so that any other start is lost
    needs_problem = False
    linear_only = False
    of_volumes = False  # whether it is made for volumes (C, D, H, W), and of images nothing of its own
    knob = "Take more steps, or start at a lower sigma."  # what to change when a run diverges
    usual: Usual = Usual()  # what its name alone stands for

    def __init__(self, prior=None, problem: Problem | None = None):
        self.prior: Any = prior
        self.problem = problem
        if problem is not None:
            self.check_problem(problem)

    # --- other measurements, another prior, other attributes: this sampler stays as it is ----------------

    def given(self, problem: Problem) -> Posterior:
        """The same sampler for other measurements; raises `ConfigError` for those that ``check_problem`` refuses."""
        other = self.copied(problem=problem)
        other.check_problem(problem)
        return other

    def with_prior(self, prior) -> Self:
        """The same sampler of another prior: of `recon.sample`'s, where this one was built without."""
        return self.copied(prior=prior)

    def copied(self, **changes: Any) -> Self:
        """The same sampler with other attributes, which are not checked."""
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__, **changes)
        return other

    # --- checks: all before the first network call -------------------------------------------------------

    def check_problem(self, problem: Problem) -> None:
        """Raise `ConfigError` for a problem this sampler cannot solve; an override may store what it derives from it.

        Called by the constructor and by ``given``, hence also where `Active` has measured more. Call
        ``super().check_problem(problem)`` first: it checks ``linear_only``.
        """
        if self.linear_only and not problem.A.linear:
            raise ConfigError(
                f"{type(self).__name__} was given {problem.A!r}, which is not linear.",
                "Its data step solves normal equations.",
                "Choose a sampler for nonlinear operators: recon list samplers.",
            )

    def pair(self, solver: Solver) -> None:
        """Raise `ConfigError` for a solver that cannot walk this sampler; warn where it loses its order."""

    def prepared(self, solver: Solver, grid: list[float], samples: int) -> Posterior:
        """This sampler for one walk over ``grid`` with ``samples`` rows an image: the one whose seams are called.

        By default the sampler itself. An override returns a copy that knows its levels or particles, and raises
        `ConfigError` for walks that cannot work. `recon.sample` also calls it before the first network call, for
        its refusals alone.
        """
        return self

    # --- the price ---------------------------------------------------------------------------------------

    def network_calls(self, solver: Solver, steps: int, lowest: float | None = None) -> int:
        """Network calls an image in a walk of ``steps`` steps, the last of them to 0.

        ``lowest``: the last level above 0, on which only samplers that walk inside their steps depend; default that
        of `recon.sample`'s own grid. A prior with a start of its own may take one more. Raises `ConfigError` where
        the number depends on more than that.
        """
        return self.calls * solver.calls(steps) + self.level_calls * steps

    def steps_for(self, solver: Solver, calls: int, lowest: float | None = None) -> int:
        """The most steps with at most ``calls`` network calls; raises `ConfigError` where the fewest take more."""
        least = max(least_steps(solver), 1)
        if calls < least or self.network_calls(solver, least, lowest) > calls:
            raise ConfigError(
                f"{type(self).__name__} with {type(solver).__name__} was given {calls} network calls.",
                f"The fewest steps are {least}, which take {self.network_calls(solver, least, lowest)}.",
                "Allow that many, or take a solver of lower order: recon list solvers.",
            )
        steps = range(least, calls + 1)  # a step takes at least one call, and more steps never take fewer
        return least - 1 + bisect_right(steps, calls, key=lambda n: self.network_calls(solver, n, lowest))

    # --- the seams ---------------------------------------------------------------------------------------

    def start(self, state: State, draw: Draw) -> State:
        """The first state, from noise or a warm start ``state.x`` (rows, *domain) at ``state.sigma = grid[0]``.

        Called once a walk. An override may move ``x`` (then it says ``own_start`` where the given start is
        lost), set ``log_w``, and set ``memo``: an object of its own, with ``take(rows)`` if it holds rows. It keeps
        the shape, dtype and device of ``x``. Noise comes from ``draw(like, stream)`` alone.
        """
        return state

    def denoise(self, x: Tensor, sigma: float, memo: Any = None) -> Estimate:
        """What is believed at ``x`` (rows, *domain), ``sigma > 0``: all that the solver knows of the posterior.

        Pure: it changes neither the sampler nor its arguments, and gives the same for the same arguments. A
        solver calls it once or several times a step, at points and levels of its own. ``memo`` is that of the
        state at the beginning of the step. Returns tensors of the shape, dtype and device of ``x``:
        `Estimate.keep_state` for a denoiser, ``x = x0 + sigma eps``, or `Estimate.keep_noise` where the point
        moves too. What cannot be solved is refused before the walk; raises `ConfigError` for a prior that turns out
        to be useless to it, such as one without a gradient.
        """
        return Estimate.keep_state(x, sigma, self.prior(x, sigma))

    def correct(self, state: State, move: Move, draw: Draw) -> State:
        """The state after the step ``move`` brought it to ``state.sigma = move.target``, the noise level it keeps.

        Called once a step, also after the last one, to 0, whose result is the answer. ``move`` holds the state
        before the step and the kernel ``N(mean, std^2)`` that led here. An override that changes ``x``, or
        changes what ``denoise`` will say (new measurements), has moved the state under the solver: it returns
        ``past=()``, which restarts a multistep solver at order one. Weights and memo may change without that. At
        0 it sets ``x0`` to ``x`` where it moved it. Noise comes from ``draw(like, stream)``. Raises
        `SamplingError` where it cannot go on.
        """
        return state

    # --- what a walk tells: asked of every state it yields -----------------------------------------------

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

    # --- the walk ----------------------------------------------------------------------------------------

    def run(self, solver: Solver, grid: list[float], x: Tensor, noise: Noise) -> Iterator[State]:
        """The state after every step of ``grid``, from ``x`` (rows, *domain) at ``grid[0]``; the last is the answer.

        By default `recon.walk.walk` with the ``prepared`` sampler. An override has a loop of its own, still with
        one state a step; wrappers refuse it. Raises `ConfigError` at the call, before the first step.
        """
        if self.prior is None:
            raise ConfigError(
                f"{type(self).__name__} has no prior.",
                "It was built without one.",
                "Give it one: posterior.with_prior(prior), or recon.sample(problem, prior, posterior).",
            )
        if self.needs_problem and self.problem is None:
            raise ConfigError(
                f"{type(self).__name__} has no problem to solve.",
                do="Give it one: posterior.given(recon.Problem(A, y, sigma)).",
            )
        return walk(self.prepared(solver, grid, noise.samples), solver, grid, x, noise)
