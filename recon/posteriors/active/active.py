"""Active subsampling: the samples themselves say what to measure next, while they are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from operators.ct import CT

from ...actions import Actions, core, offered, parts
from ...errors import ConfigError, SamplingError, unknown
from ...noise import Draw
from ...problem import Problem
from ...solvers.base import Solver
from ...state import Move, State
from ..around import Around, AroundMemo
from ..base import Posterior
from .belief import beliefs
from .choosing import POLICIES, Belief, Policy
from .record import Choice, Record, marked
from .timetable import Timetable, measuring_steps, timetable

Measure = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ActiveMemo(AroundMemo):
    """What `Active` carries: the ``problem`` so far (rows as the state), its ``sampler``, and the ``record``.

    They have no rows to permute: an image's particles share its measurements.
    """

    problem: Problem
    sampler: Posterior
    record: Record


class Active(Around):
    """Measures ``argmax_a score(a; z_1, ..., z_S)`` between steps, ``z_i = A_full x0_i``: active diffusion subsampling.

    After some of the steps the images that an image's particles believe in are measured in full, as predictions;
    the action with the largest score of ``choose``, where they disagree most, is measured for real; and the
    walk goes on with more measurements, from the same particles, with the solver's memory restarted.
    Each image of a batch makes its own choices. No further network call.

    ``choose``: "entropy", "variance", "logdet", "random", "equispaced", or a `Policy` with other options.
    ``measure(chosen)``: takes a bool tensor (B, *shape) that broadcasts against measurements of full
    size ((B, 1, 1, W) for the columns of MRI), true at what is new, and returns measurements of full size,
    of which only those are read; ``lambda chosen: y_full * chosen`` where they are known. Their noise has the
    problem's sigma. ``budget``: actions measured in the end, those of the problem at the start among them.
    ``window``: the share of the steps over which they are spread, evenly; or ``sigmas=(high, low)``, the levels.
    Where there are more actions than steps, several are chosen at one step. ``actions``: "lines" (of MRI with whole
    columns), "points" (of inpainting, of other MRI), or for CT the CT of all angles on offer.

    Around an `Ensemble` the particles' weights count. ``result.acquired`` tells what was acquired and why.
    Traps avoided: norms over the particles (the inner samplers' are per row); a mask changed in place
    under the sampler; a count that only nearly keeps the budget. Early predictions say
    little, late measurements help little.
    Source: Nolan, Stevens, van Nierop, van Sloun, Active Diffusion Subsampling, TMLR 2025.
    """

    def __init__(
        self,
        inner: Posterior,
        problem: Problem | None = None,
        *,
        measure: Measure,
        budget: int,
        choose: str | Policy = "entropy",
        window: tuple[float, float] = (0.1, 0.7),
        sigmas: tuple[float, float] | None = None,
        actions: str | Actions | CT | None = None,
    ):
        if isinstance(choose, str) and choose not in POLICIES:
            raise unknown("policy", choose, POLICIES)
        if not callable(measure):
            raise ConfigError(f"measure is {measure!r}.", "It is called to measure.", "Give a function: lambda chosen: y_full * chosen.")  # fmt: skip
        if not 0 <= window[0] < window[1] <= 1:
            raise ConfigError(f"window is {window}.", "It is two shares of the steps, (first, last).", "Use (0.1, 0.7).")  # fmt: skip
        if sigmas is not None and not sigmas[0] > sigmas[1] >= 0:
            raise ConfigError(f"sigmas is {sigmas}.", "It is two noise levels, (high, low).")
        self.measure, self.budget = measure, budget
        self.policy = POLICIES[choose]() if isinstance(choose, str) else choose
        self.window, self.sigmas, self.asked = window, sigmas, actions
        self.timetable: Timetable | None = None  # of a walk: `prepared`
        super().__init__(inner, problem)

    # --- checks ------------------------------------------------------------------------------------------

    def check_inner(self) -> None:
        """Refuses what is active already, and loops that no measurement can enter."""
        kind, why = type(self.inner), ""
        if isinstance(self.inner, Active):
            why = "It is active already."
        elif kind.run is not Posterior.run:
            why = "It runs a loop of its own, which no measurement can enter."
        if why:
            raise ConfigError(f"Active was given {kind.__name__}.", why, "Put it around DDS, DPS, PiGDM, or an Ensemble.")  # fmt: skip

    def check_problem(self, problem: Problem) -> None:
        """Refuses operators that offer no actions, and budgets below what is measured or above what there is."""
        super().check_problem(problem)
        self.actions = offered(problem.A, self.asked)
        count = math.prod(self.actions.shape(core(parts(problem.A)[0])))
        if self.budget > count:
            raise ConfigError(
                f"The budget is {self.budget} {self.actions.name}.",
                f"{problem.A!r} has {count}.",
                f"Use at most {count}.",
            )
        measured = [int(taken.sum()) for taken in self.taken(problem)]
        if self.budget < max(measured):
            raise ConfigError(
                f"The budget is {self.budget} {self.actions.name}, and {max(measured)} are measured already.",
                "Those of the problem count.",
                "Raise the budget, or start from fewer.",
            )

    def prepared(self, solver: Solver, grid: list[float], samples: int) -> Active:
        """A copy that knows its particles, and how many actions are measured after which step."""
        problem = cast(Problem, self.problem)
        self.policy.check_noise(problem.sigma)
        if samples < 2 and self.policy.looks:
            raise ConfigError(
                f"{type(self.policy).__name__} was given one sample an image.",
                "It scores by what samples disagree about.",
                "Ask for samples=4 or more.",
            )
        wanted = [self.budget - int(taken.sum()) for taken in self.by_image(problem, samples)]
        steps = measuring_steps(grid, self.window, self.sigmas)
        other = cast(Active, super().prepared(solver, grid, samples))
        return other.copied(timetable=timetable(steps, grid, wanted))

    def network_calls(self, solver: Solver, steps: int, lowest: float | None = None) -> int:
        """The inner sampler's; raises `ConfigError` for a solver whose restarts take more calls."""
        if solver.warmup:
            raise ConfigError(
                f"Active was asked for the network calls of {type(solver).__name__}.",
                "It restarts after every acquisition with steps of more calls; how often depends on the levels.",
                "Count those of a run, result.network_calls, or take a solver with the same calls at every step.",
            )
        return super().network_calls(solver, steps, lowest)

    def taken(self, problem: Problem) -> list[Tensor]:
        """What is measured, by each of the problem's operators, (*shape) bool."""
        return [self.actions.taken(core(A)) for A in parts(problem.A)]

    def by_image(self, problem: Problem, samples: int) -> list[Tensor]:
        """What is measured of each image, whether or not the images share one operator."""
        taken, images = self.taken(problem), len(problem.y) // samples
        return taken if len(taken) == images else taken * images

    # --- the seams ---------------------------------------------------------------------------------------

    def inside(self, memo: Any) -> tuple[Posterior, Any]:
        """The sampler of what is measured by now, and its memo."""
        return (memo.sampler, memo.inner) if isinstance(memo, ActiveMemo) else (self.inner, memo)

    def start(self, state: State, draw: Draw) -> State:
        """The inner sampler's start; raises `ConfigError` where no timetable was made."""
        if self.timetable is None:
            raise ConfigError(
                "Active was not prepared for a walk.",
                "It plans its measurements over the whole grid.",
                "Walk with sampler.run(solver, grid, x, noise), or recon.sample.",
            )
        state, problem = self.inner.start(state, draw), cast(Problem, self.problem)
        initial = torch.stack(self.by_image(problem, self.samples))
        record = Record(self.actions.name, tuple(initial.shape[1:]), initial)
        return replace(state, memo=ActiveMemo(problem, self.inner, record, inner=state.memo))

    def correct(self, state: State, move: Move, draw: Draw) -> State:
        """The inner sampler's correction; after the steps of the timetable more is measured, with ``past=()``."""
        state = super().correct(state, move, draw)
        due = cast(Timetable, self.timetable).get(move.target)
        if due is None:
            return state
        step, amounts = due
        return replace(state, past=(), memo=self.acquired(state, step, amounts, draw))

    def acquired(self, state: State, step: int, amounts: list[int], draw: Draw) -> ActiveMemo:
        """The memo with ``amounts[b]`` more actions of image b, chosen by its particles, measured for the problem."""
        memo: ActiveMemo = state.memo
        record = memo.record
        shown = zip(self.beliefs(state, draw), amounts, strict=True)
        try:
            picks = [self.policy.pick(belief, amount) for belief, amount in shown]
        except SamplingError as error:
            name = f"Active around {type(memo.sampler).__name__}"
            raise SamplingError(
                f"{name} diverged at step {step}, sigma {state.sigma:.4g}.", error.what, self.knob
            ) from error
        chosen = tuple(tuple(actions) for actions, _ in picks)
        scores = torch.stack([scores for _, scores in picks])
        mask = marked(chosen, math.prod(record.shape)).view(-1, *record.shape)
        values = self.measure(mask.to(state.x.device))
        if not isinstance(values, Tensor):
            raise ConfigError(f"measure returned a {type(values).__name__}.", "It returns measurements of full size.")  # fmt: skip
        images = Problem(memo.problem.A, memo.problem.y[:: self.samples], memo.problem.sigma)
        images = images.acquire(mask, values, self.actions)
        problem = images.precomputed().repeated(self.samples)  # once an image, not once a particle
        record = replace(record, choices=(*record.choices, Choice(step, state.sigma, chosen, scores)))
        return replace(memo, problem=problem, sampler=memo.sampler.given(problem), record=record)

    def beliefs(self, state: State, draw: Draw) -> Iterator[Belief]:
        """What the policy is shown of each image."""
        memo: ActiveMemo = state.memo
        return beliefs(state, memo.problem, self.actions, memo.record, self.budget, self.policy.looks, draw)

    def outcome(self, state: State, samples: int) -> dict[str, Any]:
        """The inner sampler's, and ``acquired``: the record."""
        return {**super().outcome(state, samples), "acquired": state.memo.record}
