"""Resampling: weights (B, S) to the slots (B, S) that the particles of each image are copied from.

All four are unbiased: particle i is copied ``S w_i`` times on average. They differ in the spread of that
number, multinomial's being the largest. ``u`` (B, S) are uniform on [0, 1). Each image is its own, and
nothing asks the device for a number.
Source: Douc, Cappe, Moulines 2005, Comparison of resampling schemes for particle filtering.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def systematic(weights: Tensor, u: Tensor) -> Tensor:
    """Slots at the points ``(j + u_0) / S``, one random number an image: counts are ``S w_i`` rounded up or down."""
    return at(weights, (slots(weights) + u[:, :1]) / weights.shape[1])


def stratified(weights: Tensor, u: Tensor) -> Tensor:
    """Slots at the points ``(j + u_j) / S``."""
    return at(weights, (slots(weights) + u) / weights.shape[1])


def multinomial(weights: Tensor, u: Tensor) -> Tensor:
    """S independent draws."""
    return at(weights, u)


def residual(weights: Tensor, u: Tensor) -> Tensor:
    """``floor(S w_i)`` copies of each; the slots left over are drawn from what is left of the weights."""
    expected = weights.shape[1] * weights
    whole = expected.floor()
    ends = whole.cumsum(1)
    slot = slots(weights).expand_as(weights)
    kept = torch.searchsorted(ends, slot.contiguous(), right=True).clamp(max=weights.shape[1] - 1)
    return torch.where(slot < ends[:, -1:], kept, at(expected - whole, u))


def at(weights: Tensor, points: Tensor) -> Tensor:
    """The particles whose intervals of the cumulated weights hold the points in [0, 1); never one of weight 0."""
    ends = weights.cumsum(1)
    points = points.clamp(max=1 - torch.finfo(points.dtype).eps) * ends[:, -1:]
    return torch.searchsorted(ends, points.contiguous(), right=True).clamp(max=weights.shape[1] - 1)


def slots(weights: Tensor) -> Tensor:
    """0, 1, ..., S - 1 as (1, S)."""
    return torch.arange(weights.shape[1], dtype=weights.dtype, device=weights.device)[None]


SCHEMES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "systematic": systematic,
    "stratified": stratified,
    "residual": residual,
    "multinomial": multinomial,
}
