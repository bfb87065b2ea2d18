"""An image's particles: what an ensemble carries of them, and what their weights say."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...state import Past
from ..around import AroundMemo


@dataclass(frozen=True)
class Particles(AroundMemo):
    """What an ensemble carries beside the state; every tensor has a row a particle.

    ``potential`` (rows,): ``alpha mu`` as it was last weighed, so that later measurements are weighed against it.
    ``log_z``: log-evidence collected so far. ``ess``: effective particles of the row's image before it was
    tempered and resampled; ``least``: the least of them so far. ``ancestors``: the slot its line started from. ``past``: the unguided memory of a multistep
    solver.
    """

    potential: Tensor
    log_z: Tensor
    ess: Tensor
    least: Tensor
    ancestors: Tensor
    past: Past = ()


def by_image(rows: Tensor, samples: int) -> Tensor:
    """(rows,) -> (B, S)."""
    return rows.view(-1, samples)


def by_row(images: Tensor, samples: int) -> Tensor:
    """(B,) -> (rows,)."""
    return images.repeat_interleave(samples)


def log_mean(log_w: Tensor) -> Tensor:
    """``ln mean_i w_i`` (B,) of log-weights (B, S)."""
    return log_w.logsumexp(1) - math.log(log_w.shape[1])


def effective(log_w: Tensor) -> Tensor:
    """``1 / sum_i w_i^2`` (B,) of normalised weights, from log-weights (B, S): how many particles count."""
    return 1 / log_w.softmax(1).square().sum(1)


def distinct(ancestors: Tensor) -> Tensor:
    """Different numbers (B,) among ancestors (B, S)."""
    return 1 + (ancestors.sort(1).values.diff(dim=1) > 0).sum(1)


def tempering(log_w: Tensor, share: float) -> Tensor:
    """The largest power (B,) up to 1 at which a share of the particles stays effective, of log-weights (B, S).

    By bisection; exactly 1 where enough of them count already.
    """
    wanted = share * log_w.shape[1] * (1 - 1e-9)
    low, high = torch.zeros_like(log_w[:, 0]), torch.ones_like(log_w[:, 0])
    power = high
    for _ in range(50):
        enough = effective(log_w * power[:, None]) >= wanted
        low, high = torch.where(enough, power, low), torch.where(enough, high, power)
        power = torch.where(low < 1, (low + high) / 2, 1.0)
    return torch.where(low < 1, low.clamp_min(1e-15), 1.0)
