"""Credible intervals from posterior samples: the one formula behind result files, `Result.interval` and coverage."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .errors import ConfigError

LEVEL = 0.90  # of the maps in result files
FEW = 20  # fewer samples than this say too little about the tails: a normal distribution is assumed
NORMAL, QUANTILES = "mean ± t std sqrt(1 + 1/k)", "empirical quantiles"
RULE = (
    "of the k samples' magnitudes, k of an ensemble its effective number: mean ± t((1 + level)/2, k - 1) std "
    f"sqrt(1 + 1/k) for k < {FEW}, their quantiles from there on; at least 0"
)


def interval(
    values: Tensor, level: float = LEVEL, weights: Tensor | None = None
) -> tuple[Tensor, Tensor] | None:
    """(low, high), each (...), that hold one further draw with probability ``level``; None for a single value.

    ``mean ± t((1 + level)/2, k - 1) std sqrt(1 + 1/k)`` of real ``values`` (k, ...), std with k - 1; from
    20 values on, their quantiles at ``(1 ± level)/2``. With ``weights`` (S,) of S values, which add up
    to 1: weighted mean and std, k = ``1 / sum_i w_i^2``, weighted quantiles; unbounded where one
    value has all the weight. Nothing is clipped. Raises `ConfigError` for a level outside (0, 1).

    Source: prediction interval for one further draw of a normal distribution with unknown mean and variance
    (Geisser, Predictive Inference, 1993); quantiles as `weighted_quantiles`.
    """
    refuse_level(level)
    if len(values) < 2:
        return None
    k = effective_number(len(values), weights)
    if enough(k):
        low, high = weighted_quantiles(values, ((1 - level) / 2, (1 + level) / 2), weights)
        return low, high
    mean = average(values[None], None if weights is None else weights[None])[0]
    if k - 1 < 1e-9:
        return torch.full_like(mean, -math.inf), torch.full_like(mean, math.inf)
    std = spread(values[None], None if weights is None else weights[None])[0]
    half = reach(level, k) * std
    return mean - half, mean + half


def magnitude_interval(
    values: Tensor, level: float = LEVEL, weights: Tensor | None = None
) -> tuple[Tensor, Tensor] | None:
    """`interval` of magnitudes (k, ...), its lower end at least 0, since no magnitude is negative."""
    found = interval(values, level, weights)
    return None if found is None else (found[0].clamp_min(0), found[1])


def reach(level: float, k: float) -> float:
    """Half the width of the `NORMAL` interval in units of std: ``t((1 + level)/2, k - 1) sqrt(1 + 1/k)``, k > 1."""
    from scipy.special import stdtrit

    return float(stdtrit(k - 1, (1 + level) / 2)) * math.sqrt(1 + 1 / k)


def effective_number(count: int, weights: Tensor | None = None) -> float:
    """``1 / sum_i w_i^2``: ``count`` for equal weights."""
    return float(count) if weights is None else 1 / float(weights.double().square().sum())


def enough(k: float) -> bool:
    """Whether k samples are enough for an interval of quantiles."""
    return k > FEW - 1e-6  # equal weights of 20 particles count as 20


def weighted_quantiles(values: Tensor, points: tuple[float, ...], weights: Tensor | None = None) -> Tensor:
    """Quantiles (points, ...) of real ``values`` (S, ...): of equal weights numpy's and torch's (linear, type 7).

    ``sum_i (F(c_i) - F(c_{i-1})) v_(i)`` over the sorted values, c their cumulative weights, F the
    uniform distribution function on ``[(h - 1)/k, h/k]`` with ``h = p (k - 1) + 1``, k the effective number.
    A value of weight 0 has no influence. Source: Akinshin, arXiv 2304.07265 (2023), eq. for Hyndman and Fan's type 7.
    """
    k = effective_number(len(values), weights)
    w = values.new_full((len(values),), 1 / k) if weights is None else weights.to(values.dtype)
    ordered, places = values.sort(0)
    ends = w[places].cumsum(0)
    found = []
    for p in points:
        left = p * (k - 1) / k
        parts = torch.diff(((ends - left) * k).clamp(0, 1), dim=0, prepend=torch.zeros_like(ends[:1]))
        found.append((parts / parts.sum(0) * ordered).sum(0))
    return torch.stack(found)


def average(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """``sum_s w_bs v_bs``: values (B, S, ...) and weights (B, S), None for equal ones, to (B, ...)."""
    if weights is None:
        return values.mean(1)
    return torch.einsum("bs,bs...->b...", weights.to(values.dtype), values)


def spread(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """``sqrt(sum w |v - mean|^2 / (1 - sum w^2))`` (B, ...): with equal weights the usual std, S - 1."""
    if weights is None:
        return values.std(1)
    square = (values - average(values, weights)[:, None]).abs().square()
    freedom = (1 - weights.square().sum(1)).clamp_min(torch.finfo(weights.dtype).eps)
    return average(square, weights / freedom[:, None]).sqrt()


def refuse_level(level: float) -> None:
    """Raises `ConfigError` for a level outside (0, 1)."""
    if not (isinstance(level, int | float) and 0 < level < 1):
        raise ConfigError(
            f"The level of an interval is {level!r}.",
            "It is the share of draws that the interval should hold.",
            "Give a number between 0 and 1, such as 0.9.",
        )
