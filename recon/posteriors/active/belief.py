"""What a policy is shown of each image: the measurements that its particles predict."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from operators.base import Operator

from ...actions import Actions, core, grouped, parts, with_core
from ...noise import Draw
from ...problem import Problem
from ...state import State
from .choosing import Belief
from .record import Record


def beliefs(
    state: State, problem: Problem, actions: Actions, record: Record, budget: int, looks: bool, draw: Draw
) -> Iterator[Belief]:
    """The `Belief` of one image after another; with ``looks`` False, z is zeros and costs nothing."""
    images, own = len(record.initial), parts(problem.A)
    samples, count = len(state.x) // images, math.prod(record.shape)
    x0 = (state.x if state.x0 is None else state.x0).split(samples)
    log_w = x0[0].new_zeros(len(state.x), dtype=torch.float64) if state.log_w is None else state.log_w
    weights = log_w.double().view(images, -1).softmax(1)
    first_open, still_open = ~record.initial.flatten(1), ~record.mask.flatten(1)

    def uniform(image: int) -> Tensor:
        like = torch.zeros(len(state.x), count, dtype=torch.float64)
        return torch.special.ndtr(draw(like, "choose")[image * samples])

    for b in range(images):
        A = own[b % len(own)]
        z = weights.new_zeros(samples, count, 1)
        if looks:
            z = grouped(predicted(A, actions, x0[b]), record.shape)
        yield Belief(
            z=z,
            weights=weights[b],
            sigma=problem.sigma,
            open=still_open[b],
            first_open=first_open[b],
            places=actions.places(core(A)),
            total=budget - int(record.initial[b].sum()),
            done=len(record.chosen[b]),
            image=b,
            uniform=lambda b=b: uniform(b),
        )


def predicted(A: Operator, actions: Actions, x0: Tensor) -> Tensor:
    """Measurements of everything that ``actions`` offers, of images ``x0`` (S, *domain)."""
    return with_core(A, actions.full(core(A))).forward(x0)
