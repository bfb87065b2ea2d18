"""Resampling: weights (B, S) to the slots (B, S) that the particles of each image are copied from.

All four schemes are unbiased: particle i is copied ``S w_i`` times on average. They differ in the spread of that
number, multinomial's being the largest. ``u`` (B, S) are uniform on [0, 1). Images are resampled
independently, and the schemes ask the device for no number.
Source: Douc, Cappe, Moulines 2005, Comparison of resampling schemes for particle filtering.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from ...noise import Draw
from ...state import State
from .particles import by_image, by_row, effective, log_mean

Scheme = Callable[[Tensor, Tensor], Tensor]


def systematic(weights: Tensor, u: Tensor) -> Tensor:
    """Slots at the points ``(j + u_0) / S``, one random number an image: counts are ``S w_i`` rounded up or down."""
    return particles_at(weights, (slots(weights) + u[:, :1]) / weights.shape[1])


def stratified(weights: Tensor, u: Tensor) -> Tensor:
    """Slots at the points ``(j + u_j) / S``."""
    return particles_at(weights, (slots(weights) + u) / weights.shape[1])


def multinomial(weights: Tensor, u: Tensor) -> Tensor:
    """S independent draws: slots at the points ``u_j``."""
    return particles_at(weights, u)


def residual(weights: Tensor, u: Tensor) -> Tensor:
    """``floor(S w_i)`` copies of each; the slots left over are drawn from what is left of the weights."""
    expected = weights.shape[1] * weights
    whole = expected.floor()
    ends = whole.cumsum(1)
    slot = slots(weights).expand_as(weights)
    kept = torch.searchsorted(ends, slot.contiguous(), right=True).clamp(max=weights.shape[1] - 1)
    return torch.where(slot < ends[:, -1:], kept, particles_at(expected - whole, u))


def particles_at(weights: Tensor, points: Tensor) -> Tensor:
    """The particles whose intervals of the cumulated weights hold the points in [0, 1); never one of weight 0."""
    ends = weights.cumsum(1)
    points = points.clamp(max=1 - torch.finfo(points.dtype).eps) * ends[:, -1:]
    return torch.searchsorted(ends, points.contiguous(), right=True).clamp(max=weights.shape[1] - 1)


def slots(weights: Tensor) -> Tensor:
    """0, 1, ..., S - 1 as (1, S)."""
    return torch.arange(weights.shape[1], dtype=weights.dtype, device=weights.device)[None]


SCHEMES: dict[str, Scheme] = {
    "systematic": systematic,
    "stratified": stratified,
    "residual": residual,
    "multinomial": multinomial,
}


def resampled(state: State, samples: int, share: float, scheme: Scheme, draw: Draw) -> State:
    """The state with copied particles of equal weight in images where fewer than a ``share`` of them are effective.

    ``samples`` rows an image; the other images stay as they are. The mean weight goes into the memo's ``log_z``.
    """
    log_w = cast(Tensor, state.log_w)
    grouped = by_image(log_w, samples)
    low = effective(grouped) < share * samples
    if samples == 1 or (not low.is_cuda and not low.any()):  # on a GPU, asking would wait
        return state
    u = torch.special.ndtr(by_image(draw(log_w, "resample"), samples))
    chosen = scheme(grouped.softmax(1), u)
    own = torch.arange(samples, device=log_w.device).expand_as(chosen)
    first = torch.arange(len(chosen), device=log_w.device)[:, None] * samples
    rows = (torch.where(low[:, None], chosen, own) + first).flatten()
    log_z = state.memo.log_z + by_row(torch.where(low, log_mean(grouped), 0.0), samples)
    log_w = torch.where(by_row(low, samples), 0.0, log_w)
    return replace(state, log_w=log_w, memo=replace(state.memo, log_z=log_z)).take(rows)
