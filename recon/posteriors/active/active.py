"""Active subsampling: the samples themselves say what to measure next, while they are drawn."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from operators.ct import CT

from ...actions import Actions, core, grouped, offered, parts, with_core
from ...errors import ConfigError, SamplingError, unknown
from ...noise import Draw
from ...problem import Problem
from ...state import Estimate, Move, State
from ..base import Around, Posterior
from .choosing import POLICIES, Belief, Policy
from .record import Acquisition, Record, marked

Measure = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Scan:
    """What `Active` carries: the ``problem`` so far (rows as the state), its ``sampler``, the ``record``, and ``inner``, the sampler's memo."""

    problem: Problem
    sampler: Posterior
    record: Record
    inner: Any = None

    def take(self, rows: Tensor) -> Scan:
        """Rows are permuted within an image, whose measurements are the same."""
        return replace(self, inner=self.inner.take(rows) if hasattr(self.inner, "take") else self.inner)


class Active(Around):
    """Active diffusion subsampling (ADS) around a sampler: measures where its particles disagree most.

    After some of the steps the believed images of an image's particles are measured in full,
    ``z_i = A_full x0_i``; the action with the largest score of ``choose`` is measured for real; and the
    walk goes on with more measurements, from the same particles, with the solver's memory restarted.
    Each image of a batch makes its own choices. No network call more.

    ``choose``: "entropy", "variance", "logdet", "random", "equispaced", or a `Policy` with other options.
    ``measure(chosen)``: takes a bool tensor (B, *shape) that broadcasts against measurements of full
    size ((B, 1, 1, W) for the columns of MRI), true at what is new, and returns measurements of full size,
    read there only; ``lambda chosen: y_full * chosen`` where they are known. Their noise has the problem's
    sigma. ``budget``: actions measured in the end, those of the problem at the start among them. ``window``:
    the share of the steps over which they are spread, evenly; or ``sigmas=(high, low)``, the levels. Several are
    chosen at one step where there are more of them than steps. ``actions``: "lines" (of MRI with whole
    columns), "points" (of inpainting, of other MRI), or for CT the CT of all angles on offer.

    Around an `Ensemble` the particles' weights count. ``result.acquired`` tells what was acquired and why.
    Traps avoided: norms over the particles (the inner samplers' are a row each); a mask changed in place
    under the sampler; a count that only nearly keeps the budget. Early estimates of the particles say
    little, late measurements help little.
    Source: Nolan, Stevens, van Nierop, van Sloun, Active Diffusion Subsampling, TMLR 2025.
    """

    needs_problem = True

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
        refuse_inner(inner)
        if isinstance(choose, str) and choose not in POLICIES:
            raise unknown("policy", choose, POLICIES)
        if not callable(measure):
            raise ConfigError(f"measure is {measure!r}.", "It is called to measure.", "Give a function: lambda chosen: y_full * chosen.")  # fmt: skip
        if not 0 <= window[0] < window[1] <= 1:
            raise ConfigError(f"window is {window}.", "It is two shares of the steps, (first, last).", "Use (0.1, 0.7).")  # fmt: skip
        if sigmas is not None and not sigmas[0] > sigmas[1] >= 0:
            raise ConfigError(f"sigmas is {sigmas}.", "It is two noise levels, (high, low).")
        self.inner, self.measure, self.budget = inner, measure, budget
        self.policy = POLICIES[choose]() if isinstance(choose, str) else choose
        self.window, self.sigmas, self.asked = window, sigmas, actions
        self.calls = inner.calls
        self.particles = 1  # a walk of its own knows better: `prepared`
        self.plan: dict[float, tuple[int, list[int]]] | None = None
        self.problem = inner.problem if problem is None else problem
        if self.problem is not None:
            self.admit(self.problem)

    # --- what is refused ---------------------------------------------------------------------------------

    def admit(self, problem: Problem) -> None:
        self.inner = self.inner.given(problem)
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

    def prepared(self, solver, grid: list[float], samples: int) -> Active:
        """For one walk: its particles an image, and how many of its actions are measured after which step."""
        self.policy.admit(cast(Problem, self.problem).sigma)
        if samples < 2 and self.policy.looks:
            raise ConfigError(
                f"{type(self.policy).__name__} was given one sample an image.",
                "It scores by what samples disagree about.",
                "Ask for samples=4 or more.",
            )
        images = len(self.problem.y) // samples
        own = self.taken(self.problem)
        wanted = [self.budget - int(taken.sum()) for taken in (own if len(own) == images else own * images)]
        return self.copied(
            inner=self.inner.prepared(solver, grid, samples),
            particles=samples,
            plan=schedule(self.steps(grid), grid, wanted),
        )

    def network_calls(self, solver, steps: int, lowest: float | None = None) -> int:
        if solver.warmup:
            raise ConfigError(
                f"Active was asked for the network calls of {type(solver).__name__}.",
                "It starts anew after every acquisition with steps of more calls; how often depends on the levels.",
                "Count those of a run, result.network_calls, or take a solver with the same calls at every step.",
            )
        return super().network_calls(solver, steps, lowest)

    def steps(self, grid: list[float]) -> list[int]:
        """The steps after which something may be measured: in the window, and not the last."""
        last = len(grid) - 2  # the step to the end of the grid
        if self.sigmas is not None:
            high, low = self.sigmas
            inside = [i for i in range(last) if low <= grid[i + 1] <= high]
        else:
            first = min(math.ceil(self.window[0] * last), max(last - 1, 0))
            inside = list(range(last))[first : max(math.ceil(self.window[1] * last), first + 1)]
        if not inside:
            raise ConfigError(
                "No step to measure at.",
                f"None of the {last + 1} steps ends in the window.",
                "Take more steps, or a wider window.",
            )
        return inside

    def taken(self, problem: Problem | None) -> list[Tensor]:
        """What is measured, by each of the problem's operators."""
        return [self.actions.taken(core(A)) for A in parts(cast(Problem, problem).A)]

    # --- the walk ----------------------------------------------------------------------------------------

    def start(self, state: State, draw: Draw) -> State:
        if self.plan is None:
            raise ConfigError(
                "Active was not prepared for a walk.",
                "It plans its measurements over the whole grid.",
                "Walk with sampler.run(solver, grid, x, noise), or recon.sample.",
            )
        state = self.inner.start(state, draw)
        taken, images = self.taken(self.problem), len(state.x) // self.particles
        initial = torch.stack(taken if len(taken) == images else taken * images)
        record = Record(self.actions.name, tuple(initial.shape[1:]), initial)
        return replace(state, memo=Scan(cast(Problem, self.problem), self.inner, record, state.memo))

    def denoise(self, x: Tensor, sigma: float, memo: Any = None) -> Estimate:
        if not isinstance(memo, Scan):
            return self.inner.denoise(x, sigma, memo)
        return memo.sampler.denoise(x, sigma, memo.inner)

    def correct(self, state: State, move: Move, draw: Draw) -> State:
        memo = move.before.memo
        inside = replace(move, before=replace(move.before, memo=memo.inner))
        state = memo.sampler.correct(replace(state, memo=memo.inner), inside, draw)
        memo = replace(memo, inner=state.memo)
        planned = cast(dict, self.plan).get(move.target)
        if planned is None:
            return replace(state, memo=memo)
        step, amounts = planned
        return replace(state, past=(), memo=self.acquired(state, memo, step, amounts, draw))

    def inside(self, state: State) -> tuple[Posterior, State]:
        """The sampler of what is measured by now."""
        return state.memo.sampler, replace(state, memo=state.memo.inner)

    def outcome(self, state: State, samples: int) -> dict[str, Any]:
        """``acquired``: the record."""
        return {**super().outcome(state, samples), "acquired": state.memo.record}

    def acquired(self, state: State, memo: Scan, step: int, amounts: list[int], draw: Draw) -> Scan:
        """The memo with more measured: chosen by the particles, measured, and put into the problem."""
        record = memo.record
        try:
            picks = [
                self.policy.pick(belief, amount)
                for belief, amount in zip(self.beliefs(state, memo, draw), amounts, strict=True)
            ]
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
        images = Problem(memo.problem.A, memo.problem.y[:: self.particles], memo.problem.sigma)
        images = images.acquire(mask, values, self.actions)
        if images.A.linear:
            _ = images.backprojection  # once an image, not once a particle
        problem = images.repeated(self.particles)
        acquisition = Acquisition(step, state.sigma, chosen, scores)
        record = replace(record, acquisitions=(*record.acquisitions, acquisition))
        return Scan(problem, memo.sampler.given(problem), record, memo.inner)

    def beliefs(self, state: State, memo: Scan, draw: Draw):
        """An image's particles after another, as its policy sees them."""
        record, images, own = memo.record, len(memo.record.initial), parts(memo.problem.A)
        x0 = (state.x if state.x0 is None else state.x0).split(self.particles)
        log_w = x0[0].new_zeros(len(state.x), dtype=torch.float64) if state.log_w is None else state.log_w
        weights = log_w.double().view(images, -1).softmax(1)
        count = math.prod(record.shape)
        first_open, open_now = ~record.initial.flatten(1), ~record.mask.flatten(1)

        def uniform(image: int) -> Tensor:
            like = torch.zeros(len(state.x), count, dtype=torch.float64)
            return torch.special.ndtr(draw(like, "choose")[image * self.particles])

        for b in range(images):
            A = core(own[b % len(own)])
            z = weights.new_zeros(self.particles, count, 1)
            if self.policy.looks:
                z = grouped(self.predicted(own[b % len(own)], x0[b]), record.shape)
            yield Belief(
                z=z,
                weights=weights[b],
                sigma=memo.problem.sigma,
                open=open_now[b],
                first_open=first_open[b],
                places=self.actions.places(A),
                total=self.budget - int(record.initial[b].sum()),
                done=len(record.chosen[b]),
                image=b,
                uniform=lambda b=b: uniform(b),
            )

    def predicted(self, A, x0: Tensor) -> Tensor:
        """Measurements of everything, of the believed images."""
        return with_core(A, self.actions.full(core(A))).forward(x0)


def schedule(steps: list[int], grid: list[float], wanted: list[int]) -> dict[float, tuple[int, list[int]]]:
    """Level to (step, actions of each image there): ``wanted`` spread evenly over ``steps``, exactly."""
    counts = []
    for amount in wanted:
        span = (len(steps) - 1) / max(amount - 1, 1)
        counts.append(Counter(steps[round(i * span)] for i in range(amount)))
    return {
        grid[step + 1]: (step, [count[step] for count in counts])
        for step in steps
        if any(count[step] for count in counts)
    }


def refuse_inner(inner: Posterior) -> None:
    """Only samplers that walk can be given more measurements on the way."""
    kind, why = type(inner), ""
    if isinstance(inner, Active):
        why = "It is active already."
    elif kind.run is not Posterior.run:
        why = "It runs a loop of its own, which no measurement can enter."
    if why:
        raise ConfigError(f"Active was given {kind.__name__}.", why, "Put it around DDS, DPS, PiGDM, or an Ensemble.")  # fmt: skip
