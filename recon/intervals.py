"""Credible intervals from posterior samples: the one formula behind result files, `Result.interval` and coverage."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .errors import ConfigError

LEVEL = 0.90  # of the maps in result files
NORMAL, QUANTILES = "mean ± t std sqrt(1 + 1/k)", "empirical quantiles"
RULE = (
    "of the k samples' magnitudes, k of an ensemble its effective number, with p = (1 - level)/2: where (k + 1) p >= 1 "
    "their quantiles of type 6 at p and 1 - p, between two samples interpolated so that normal draws hold the level; "
    "else mean ± t((1 + level)/2, k - 1) std sqrt(1 + 1/k); at least 0"
)
RULE_OF_VALUES = RULE.replace("samples' magnitudes", "samples").removesuffix("; at least 0")
NODES = 48  # of the quadrature, in each of two variables; twice as many move a rank by 2e-4 at most


def interval(
    values: Tensor, level: float = LEVEL, weights: Tensor | None = None
) -> tuple[Tensor, Tensor] | None:
    """(low, high), each (...), that hold one further draw with probability ``level``; None for a single value.

    With ``p = (1 - level)/2`` and ``h = (k + 1) p`` of real ``values`` (k, ...): where ``h >= 1`` the values of
    rank h from either end, quantiles of Hyndman and Fan's type 6, `calibrated_rank` between two of them; else
    ``mean ± t((1 + level)/2, k - 1) std sqrt(1 + 1/k)``, std with k - 1. With ``weights`` (S,) of S values, which
    add up to 1: weighted mean and std, k = ``1 / sum_i w_i^2``, weighted quantiles; unbounded where one
    value has all the weight. Nothing is clipped. Raises `ConfigError` for a level outside (0, 1).

    Source: a further draw falls below the j-th of k with probability ``j / (k + 1)`` whatever its law; prediction
    interval of a normal law with unknown mean and variance (Geisser, Predictive Inference, 1993).
    """
    refuse_level(level)
    if len(values) < 2:
        return None
    k = effective_number(len(values), weights)
    if enough(k, level):
        rank = calibrated_rank(k, level)
        low, high = ranked(values, (rank, k + 1 - rank), weights)
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


def enough(k: float, level: float) -> bool:
    """Whether k samples have quantiles that hold ``level``: ``(k + 1) (1 - level)/2 >= 1``."""
    return (k + 1) * (1 - level) / 2 > 1 - 1e-6  # equal weights of 19 particles count as 19


@lru_cache(maxsize=1024)
def calibrated_rank(k: float, level: float) -> float:
    """The rank ``j + w`` of the low end among k values: ``h = (k + 1)(1 - level)/2 >= 1`` itself where it is whole.

    Between ranks j and j + 1 a further draw of the values' law F falls below ``(1 - w) x_j + w x_{j+1}`` less often than
    a share ``(j + w)/(k + 1)``, since F is convex in its tail: type 6 holds up to 3 % too much. So w solves
    ``E F((1 - w) x_j + w x_{j+1}) = h / (k + 1)`` for normal F, by bisection; the expectation is that of the uniform order
    statistics ``u_{j+1} ~ Beta(j + 1, k - j)``, ``u_j = u_{j+1} B^{1/j}`` with uniform B.
    """
    from scipy.special import betaincinv, ndtr, ndtri

    h = (k + 1) * (1 - level) / 2
    j = max(math.floor(h + 1e-6), 1)
    if h - j < 1e-6:
        return float(j)
    nodes, shares = np.polynomial.legendre.leggauss(NODES)
    nodes, shares = (nodes + 1) / 2, shares / 2
    above = betaincinv(j + 1, k - j, nodes)[:, None]
    left, right = ndtri(above * nodes ** (1 / j)), ndtri(above)
    low, high = 0.0, 1.0
    for _ in range(30):
        w = (low + high) / 2
        below = float(shares @ ndtr((1 - w) * left + w * right) @ shares)
        low, high = (w, high) if below < h / (k + 1) else (low, w)
    return j + low


def ranked(values: Tensor, ranks: tuple[float, ...], weights: Tensor | None = None) -> Tensor:
    """The values (ranks, ...) of rank h, 1 the least, among ``values`` (S, ...); between two ranks linear.

    ``sum_i (F(c_i) - F(c_{i-1})) v_(i)`` over the sorted values, c their cumulative weights, F the
    uniform distribution function on ``[(h - 1)/k, h/k]``, 1 <= h <= k, k the effective number: of equal weights quantiles
    of type 6 for ``h = (k + 1) p``. A value of weight 0 has no influence. Source: Akinshin, arXiv 2304.07265 (2023).
    """
    k = effective_number(len(values), weights)
    w = values.new_full((len(values),), 1 / k) if weights is None else weights.to(values.dtype)
    ordered, places = values.sort(0)
    ends = w[places].cumsum(0)
    found = []
    for rank in ranks:
        parts = torch.diff((ends * k - (rank - 1)).clamp(0, 1), dim=0, prepend=torch.zeros_like(ends[:1]))
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
