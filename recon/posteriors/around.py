"""Samplers around another: what wrapping shares."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from torch import Tensor

from ..noise import Draw
from ..problem import Problem
from ..solvers.base import Solver
from ..state import Estimate, Move, State, permuted
from .base import Posterior


@dataclass(frozen=True)
class AroundMemo:
    """What a sampler around another carries in `State.memo`: fields of its own, and ``inner``, the inner sampler's memo."""

    inner: Any = field(default=None, kw_only=True)

    def take(self, rows: Tensor):
        """The rows of ``rows`` in that order: of tensors, and of the inner memo; whatever has no rows stays."""
        own = {f.name: permuted(getattr(self, f.name), rows) for f in fields(self) if f.name != "inner"}
        inner = self.inner.take(rows) if hasattr(self.inner, "take") else self.inner
        return replace(self, **own, inner=inner)


class Around(Posterior):
    """A posterior around another, ``inner``, whose prior, calls and knob are its own.

    Everything is passed on to the inner sampler, which sees the state with its own memo. A subclass makes an
    `AroundMemo` in ``start``, says in ``check_inner`` what it cannot wrap, and in ``correct`` acts on what
    ``super().correct`` returns.
    """

    needs_problem = True
    inner: Posterior

    def __init__(self, inner: Posterior, problem: Problem | None = None):
        self.inner, self.calls = inner, inner.calls
        self.samples = 1  # rows an image of a walk: `prepared`
        self.check_inner()
        self.problem = inner.problem if problem is None else problem
        if self.problem is not None:
            self.check_problem(self.problem)

    @property
    def prior(self):  # type: ignore[override]
        """The innermost sampler's."""
        return self.inner.prior

    def with_prior(self, prior) -> Self:
        """The same sampler, with the innermost one of another prior."""
        return self.copied(inner=self.inner.with_prior(prior))

    @property
    def knob(self) -> str:  # type: ignore[override]
        """The inner sampler's."""
        return self.inner.knob

    def check_inner(self) -> None:
        """Raise `ConfigError` for an inner sampler that cannot be wrapped."""

    def check_problem(self, problem: Problem) -> None:
        """Refuses what the inner sampler refuses; from here on the inner one has this problem."""
        self.inner = self.inner.given(problem)

    def pair(self, solver: Solver) -> None:
        """Refuses what the inner sampler refuses."""
        self.inner.pair(solver)

    def prepared(self, solver: Solver, grid: list[float], samples: int) -> Around:
        """A copy around the prepared inner sampler, which knows its ``samples`` rows an image."""
        return self.copied(inner=self.inner.prepared(solver, grid, samples), samples=samples)

    def network_calls(self, solver: Solver, steps: int, lowest: float | None = None) -> int:
        """The inner sampler's."""
        return self.inner.network_calls(solver, steps, lowest)

    # --- the inner sampler's seams, shown its own memo ---------------------------------------------------

    def inside(self, memo: Any) -> tuple[Posterior, Any]:
        """The inner sampler as it is by now, and its memo, from this one's."""
        return self.inner, memo.inner if isinstance(memo, AroundMemo) else memo

    def denoise(self, x: Tensor, sigma: float, memo: Any = None) -> Estimate:
        """The inner sampler's estimate."""
        inner, own = self.inside(memo)
        return inner.denoise(x, sigma, own)

    def correct(self, state: State, move: Move, draw: Draw) -> State:
        """The inner sampler's correction, its memo put back into this one's."""
        memo = move.before.memo
        inner, own = self.inside(memo)
        seen = replace(move, before=replace(move.before, memo=own))
        state = inner.correct(replace(state, memo=own), seen, draw)
        return replace(state, memo=replace(memo, inner=state.memo))

    def problem_at(self, state: State) -> Problem | None:
        """The inner sampler's."""
        inner, own = self.inside(state.memo)
        return inner.problem_at(replace(state, memo=own))

    def diagnostics(self, state: State) -> dict[str, Tensor]:
        """The inner sampler's; a subclass adds its own."""
        inner, own = self.inside(state.memo)
        return inner.diagnostics(replace(state, memo=own))

    def outcome(self, state: State, samples: int) -> dict[str, Any]:
        """The inner sampler's; a subclass adds its own."""
        inner, own = self.inside(state.memo)
        return inner.outcome(replace(state, memo=own), samples)
