"""How a step multiplies a particle's weight: by path weights, or by Feynman-Kac weights."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from torch import Tensor

from ...noise import Draw
from ...problem import inner64
from ...state import Estimate, Move, Past, State
from .potential import times
from .target import Target


class PathWeights:
    """``K(x' | x) / K_G(x' | x) exp(-(alpha(t) mu(x') - alpha(s) mu(x)))`` for a step from x at s to x' at t.

    K_G is the solver's kernel as it was guided, K the same kernel shown the prior's estimate at the same x. Exact
    for the solver's unguided chain, conditioned on y, for any guidance and any number of steps. The second factor
    telescopes: ``alpha mu`` is stored and not computed again, so that measurements may change between steps.
    """

    def weighed(self, target: Target, state: State, move: Move, guided: bool, draw: Draw) -> State:
        """The state after ``move`` with the step in its ``log_w`` and its memo's ``potential``."""
        memo = state.memo
        ratio, past = self.ratio(state, move, draw) if guided and move.target > 0 else (0.0, memo.past)
        potential = target.energy(state.x, move.target)
        log_w = cast(Tensor, state.log_w) + (ratio - (potential - memo.potential))
        return replace(state, log_w=log_w, memo=replace(memo, potential=potential, past=past))

    def ratio(self, state: State, move: Move, draw: Draw) -> tuple[Tensor | float, Past]:
        """``ln K(x' | x) - ln K_G(x' | x)`` (rows,), and the unguided memory after the step."""
        step, before = move.step, move.before
        free = move.solver.step(
            lambda x, sigma: Estimate.keep_state(x, sigma, step.est.prior),
            before.x,
            move.sigma,
            move.target,
            state.memo.past if before.past else (),  # restarts where the guided one did
            draw,
        )
        shift = step.mean - free.mean
        distance = inner64(shift, shift + 2 * (state.x - step.mean))
        return -distance / (2 * step.std**2), free.past


class FeynmanKacWeights(PathWeights):
    """AFDPS's weights of continuous time, with a drift of their own; right for small steps, and a linear A.

    With ``v = std^2`` for ``V^2 dt`` and ``m - x`` for b dt: ``x' <- x' - v alpha grad mu(x)``, and

        ln w += v / 2 (alpha^2 |grad mu|^2 - alpha Lap mu) - alpha <b dt, grad mu> - (alpha' mu - alpha mu)

    v = 0 is AFDPS-ODE. The step to 0 has path weights. Trap: the gradient is taken at the noisy point x; the
    released code's default, at D, goes with other weights.
    Source: Chen, Ren, Min, Ying, Izzo 2025.
    """

    def weighed(self, target: Target, state: State, move: Move, guided: bool, draw: Draw) -> State:
        """The drifted state with the step in its ``log_w`` and its memo's ``potential``."""
        if move.target == 0:
            return super().weighed(target, state, move, guided, draw)
        state, change = self.drifted(target, state, move)
        potential = target.energy(state.x, move.target)
        log_w = cast(Tensor, state.log_w) + change
        return replace(state, log_w=log_w, memo=replace(state.memo, potential=potential))

    def drifted(self, target: Target, state: State, move: Move) -> tuple[State, Tensor]:
        """The state after the drift, and the logarithm of its weight's factor (rows,)."""
        before, alpha, variance = move.before, target.alpha(move.sigma), move.step.std**2
        value, gradient = target.potential.with_gradient(before.x)
        change = -alpha * inner64(move.step.mean - before.x, gradient)
        change = change - (target.alpha(move.target) * value - before.memo.potential)
        if variance > 0:
            slope = alpha**2 * inner64(gradient, gradient) - alpha * target.potential.laplacian
            change = change + variance / 2 * slope
            state = replace(state, x=state.x - times(variance * alpha, gradient))
        return state, change


WEIGHINGS: dict[str, PathWeights] = {"path": PathWeights(), "feynman-kac": FeynmanKacWeights()}
