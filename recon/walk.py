"""The one loop over noise levels. A solver owns a step, a posterior what happens between steps."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from .noise import Noise
from .state import Estimate, Move, State


def walk(posterior, solver, grid: list[float], x: Tensor, noise: Noise) -> Iterator[State]:
    """Yield the state after every step of ``grid = [sigma_0 > ... > sigma_n]``; the last is the answer.

    ``x`` (rows, *domain) is a state at ``sigma_0``. Between levels s and t:
    ``mean, std = solver.step(denoise, x, s, t, ...)``; ``x = mean + std * noise``;
    ``state = posterior.correct(state, move)``.
    """
    state = posterior.start(State(x, grid[0]), noise.at(-1))
    for index, (sigma, target) in enumerate(pairwise(grid)):
        draw = noise.at(index)
        memo = state.memo

        def denoise(x: Tensor, sigma: float, memo=memo) -> Estimate:
            return posterior.denoise(x, sigma, memo)

        step = solver.step(denoise, state.x, sigma, target, state.past, draw)
        x = step.mean + step.std * draw(step.mean) if step.std > 0 else step.mean
        moved = State(x, target, step.est.x0, state.log_w, step.past, memo)
        state = posterior.correct(moved, Move(state, step, solver, sigma, target), draw)
        yield state
