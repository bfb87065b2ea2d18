"""Records: what a state carries is permuted together; an estimate knows whether it is consistent."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass

import pytest
import torch
from torch import Tensor
from worlds import random, random_complex

from recon.noise import Noise
from recon.posteriors import Posterior
from recon.solvers import DDIM
from recon.state import Estimate, Node, State
from recon.walk import walk


@dataclass(frozen=True)
class Duals:
    value: Tensor

    def take(self, rows):
        return Duals(self.value[rows])


class Shared:
    """A memo without ``take`` is shared by all rows."""


def full_state(**change) -> State:
    fields = {
        "x": random(4, 2, 3, seed=1),
        "sigma": 0.5,
        "x0": random_complex(4, 2, seed=2),
        "log_w": random(4, seed=3),
        "past": (
            Node(random(4, 2, seed=4), 0.7),
            (random(4, seed=5), 3, None),
            Node(random(4, 1, seed=6), 0.9),
        ),
        "memo": Duals(random(4, 5, seed=7)),
    }
    return State(**(fields | change))


ROWS = torch.tensor([3, 3, 0, 2, 1])


def test_take_permutes_everything():
    state = full_state()
    taken = state.take(ROWS)
    assert torch.equal(taken.x, state.x[ROWS])
    assert torch.equal(taken.x0, state.x0[ROWS])
    assert torch.equal(taken.log_w, state.log_w[ROWS])
    assert torch.equal(taken.memo.value, state.memo.value[ROWS])
    assert taken.sigma == 0.5
    first, nested, last = taken.past
    assert (
        isinstance(first, Node) and first.sigma == 0.7 and torch.equal(first.slope, state.past[0].slope[ROWS])
    )
    assert torch.equal(nested[0], state.past[1][0][ROWS]) and nested[1:] == (3, None)
    assert isinstance(last, Node) and torch.equal(last.slope, state.past[2].slope[ROWS])


def test_take_leaves_the_original_and_what_is_absent():
    state = full_state(x0=None, log_w=None, past=(), memo=None)
    kept = state.x.clone()
    taken = state.take(ROWS)
    assert taken.x0 is None and taken.log_w is None and taken.past == () and taken.memo is None
    taken.x.add_(1)
    assert torch.equal(state.x, kept)


def test_takes_compose():
    state, second = full_state(), torch.tensor([4, 0, 0])
    assert torch.equal(state.take(ROWS).take(second).past[0].slope, state.take(ROWS[second]).past[0].slope)


def test_a_shared_memo_returns_itself():
    memo = Shared()
    assert full_state(memo=memo).take(ROWS).memo is memo


def test_records_are_frozen():
    with pytest.raises(FrozenInstanceError):
        full_state().x = torch.zeros(1)  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        Estimate(random(1), random(1), random(1)).x0 = random(1)  # type: ignore[misc]


def test_estimates():
    x, D, x0, sigma = random(2, 3, seed=1), random(2, 3, seed=2), random(2, 3, seed=3), 0.6
    bare = Estimate.keep_state(x, sigma, D)
    assert bare.consistent and bare.prior is D and bare.slope is D
    torch.testing.assert_close(bare.x0 + sigma * bare.eps, x)
    corrected = Estimate.keep_state(x, sigma, x0, D)
    assert corrected.consistent and corrected.prior is D and corrected.slope is x0
    torch.testing.assert_close(x0 + sigma * corrected.eps, x)
    moved = Estimate.keep_noise(x, sigma, x0, D)
    assert not moved.consistent and moved.slope is D and moved.x0 is x0
    torch.testing.assert_close(moved.eps, (x - D) / sigma)


def test_the_walk_passes_memo_weights_and_draws_on():
    """start, denoise and correct see one memo; correct has the last word on the state, and sees the move."""
    seen = []

    class Counter(Posterior):
        def start(self, state, draw):
            return State(state.x + draw(state.x, "start"), state.sigma, log_w=torch.zeros(2), memo=0)

        def denoise(self, x, sigma, memo=None):
            seen.append(memo)
            return super().denoise(x, sigma, memo)

        def correct(self, state, move, draw):
            assert (move.sigma, move.target) == (move.before.sigma, state.sigma)
            assert move.step.est.x0 is state.x0 and move.before.memo == state.memo
            return State(state.x, state.sigma, state.x0, state.log_w + 1, state.past, state.memo + 1)

    noise, x, solver = Noise(0, (0, 1)), random(2, 3), DDIM(eta=0.5)
    states = list(walk(Counter(lambda x, s: x / (1 + s * s)), solver, [2.0, 1.0, 0.0], x, noise))
    assert seen == [0, 1] and [s.memo for s in states] == [1, 2] and states[-1].log_w.tolist() == [2.0, 2.0]
    start = x + noise(x, -1, "start")
    q = 0.5 * (1 - 0.25) ** 0.5
    D = start / 5
    expected = D + (1 - q * q) ** 0.5 * (start - D) / 2 + q * noise(x, 0)
    torch.testing.assert_close(states[0].x, expected, rtol=1e-14, atol=1e-14)
    assert torch.equal(states[1].x, states[0].x / 2)
