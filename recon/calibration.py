"""How true intervals are: coverage by level, the scale that would make it true, z-scores, ranks and width. Arrays only.

Each function takes one image: the reference (H, W) and k samples (k, H, W), as magnitudes; ``mask``
(H, W) bool, by default `metrics.object_mask` of the reference; ``weights`` (k,) of an ensemble. The
intervals are `recon.intervals.interval`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from .errors import InputError
from .intervals import average, effective_number, spread
from .metrics import Images, bounds, comparable, coverage, numpy, object_mask

EVEN = 0.1  # how far the variance of the ranks may be from that of uniform ones, relative to it
LEANING = 0.05  # how far their mean may be from the middle, as a share of all ranks


@dataclass(frozen=True, eq=False)
class Measured:
    """One image: share ``held``, ``width`` and ``distances`` (pixels,) for each level; see the functions here."""

    pixels: int
    number: float
    held: np.ndarray
    width: np.ndarray
    distances: list[np.ndarray]
    squared_z: float
    ranks: np.ndarray


@dataclass(frozen=True)
class Row:
    """One level over all images: mean share ``held``, its standard error over them, `scale_for_coverage`, width."""

    level: float
    held: float
    error: float
    scale: float
    width: float


@dataclass(frozen=True)
class Calibration:
    """Means over images, each counting the same. ``expected_z`` is what ``squared_z`` is of exact samples.

    ``number``: samples of an image, of an ensemble the effective number.
    """

    rows: tuple[Row, ...]
    images: int
    pixels: int
    number: float
    squared_z: float
    expected_z: float
    ranks: tuple[float, ...]

    @property
    def rank_variance(self) -> float:
        """Variance of the ranks over that of uniform ones: above 1 the reference lies outside too often."""
        places, uniform = np.arange(len(self.ranks)), (len(self.ranks) ** 2 - 1) / 12
        return float(np.sum(self.ranks * (places - self.mean_rank * (len(places) - 1)) ** 2) / uniform)

    @property
    def mean_rank(self) -> float:
        """0 where the reference is below all samples everywhere, 1 where it is above; .5 without a bias."""
        return float(np.dot(self.ranks, np.linspace(0, 1, len(self.ranks))))

    @property
    def shape(self) -> str:
        """What the histogram of ranks looks like, in words."""
        if self.rank_variance > 1 + EVEN:
            said = "U-shaped: the samples are too much alike"
        elif self.rank_variance < 1 - EVEN:
            said = "a hump: the samples differ too much"
        else:
            said = "even"
        if abs(self.mean_rank - 0.5) > LEANING:
            said += f"; the reference is {'above' if self.mean_rank > 0.5 else 'below'} the samples too often"
        return said


def coverage_curve(
    reference: Images,
    samples: Images,
    levels: Sequence[float],
    mask: Images | None = None,
    weights: Images | None = None,
) -> np.ndarray:
    """`metrics.coverage` at each level (levels,)."""
    shares = [coverage(reference, samples, mask=mask, level=level, weights=weights) for level in levels]
    return np.array([share.value for share in shares])


def distances(
    reference: Images,
    samples: Images,
    level: float,
    mask: Images | None = None,
    weights: Images | None = None,
) -> np.ndarray:
    """``|reference - middle| / (width / 2)`` (pixels,) of the interval: up to 1 where it holds the reference."""
    inside = masked(reference, mask)
    truth, samples = comparable(reference, samples)
    low, high, _ = bounds(samples, level, weights)
    low, high, truth = low[inside], high[inside], truth[inside]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.abs(2 * truth - low - high) / (high - low)
    return np.where((low <= truth) & (truth <= high), np.fmin(found, 1), found)  # inside, also of width 0


def scale_for_coverage(distances: Sequence[np.ndarray], level: float) -> float:
    """The least c for which intervals c times as wide, about their middle, hold ``level`` of the pixels.

    ``mean over images of share(distances <= c) >= level``. The share grows with c by steps, at the distances
    themselves, so c is one of them: where a bisection would end. Infinite where no c is enough.
    """
    every = np.concatenate(distances)
    share = np.concatenate([np.full(len(one), 1 / (len(one) * len(distances))) for one in distances])
    order = np.argsort(every)
    place = np.searchsorted(np.cumsum(share[order]), level - 1e-12)
    return float(every[order[min(place, len(every) - 1)]])


def rank_histogram(
    reference: Images, samples: Images, mask: Images | None = None, weights: Images | None = None
) -> np.ndarray:
    """Share of pixels (k + 1,) whose reference has r of the k samples below it: 1 / (k + 1) each for exact samples.

    Weighed samples count by their weights. Source: Hamill, Mon. Weather Rev. 129:550 (2001).
    """
    inside, count = masked(reference, mask), len(samples)
    truth, draws = comparable(reference, samples)
    below = draws[:, inside] < truth[inside]
    w = np.full(count, 1 / count) if weights is None else numpy(weights).astype(np.float64)
    ranks = np.minimum((w @ below * (count + 1) + 1e-9).astype(int), count)
    return np.bincount(ranks, minlength=count + 1) / ranks.size


def squared_z(
    reference: Images, samples: Images, mask: Images | None = None, weights: Images | None = None
) -> float:
    """Mean of ``(reference - mean)^2 / (std^2 (1 + 1/k))``: (k - 1) / (k - 3) for exact normal samples."""
    inside, w = masked(reference, mask), tensor(weights)
    truth, values = comparable(reference, samples)
    draws = torch.from_numpy(values[:, inside])[None]
    k = effective_number(len(samples), w)
    rows = None if w is None else w[None]
    mean, std = average(draws, rows)[0].numpy(), spread(draws, rows)[0].numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (truth[inside] - mean) / (std * np.sqrt(1 + 1 / k))
    return float(np.mean(np.nan_to_num(z, nan=0.0, posinf=np.inf, neginf=-np.inf) ** 2))


def sharpness(
    reference: Images,
    samples: Images,
    level: float,
    mask: Images | None = None,
    weights: Images | None = None,
) -> float:
    """Mean width of the interval over the mean of the reference: of two true intervals the narrower says more."""
    inside = masked(reference, mask)
    truth, samples = comparable(reference, samples)
    low, high, _ = bounds(samples, level, weights)
    if min(truth.min(), samples.min()) >= 0:
        low = np.maximum(low, 0)
    return float((high - low)[inside].mean() / np.abs(truth)[inside].mean())


def measure(
    reference: Images, samples: Images, levels: Sequence[float], weights: Images | None = None
) -> Measured:
    """Everything above of one image, over its object; raises `InputError` for fewer than two effective samples."""
    number = effective_number(len(samples), tensor(weights))
    if number < 2 - 1e-6:
        raise InputError(
            f"The {len(samples)} samples count as {number:.2g}.",
            "One particle has nearly all the weight, which says nothing of the spread.",
            "Use more --samples, or another --sampler.",
        )
    given = dict(mask=object_mask(reference), weights=weights)
    return Measured(
        pixels=int(given["mask"].sum()),
        number=number,
        held=coverage_curve(reference, samples, levels, **given),
        width=np.array([sharpness(reference, samples, level, **given) for level in levels]),
        distances=[distances(reference, samples, level, **given).astype(np.float32) for level in levels],
        squared_z=squared_z(reference, samples, **given),
        ranks=rank_histogram(reference, samples, **given),
    )


def summary(images: Sequence[Measured], levels: Sequence[float]) -> Calibration:
    """Means over two images or more; the standard error is that of the mean of their shares."""
    if len(images) < 2:
        raise InputError(
            f"A calibration was asked for of {len(images)} image.",
            "How far it holds is seen by comparing images.",
            "Measure at least 2, better 8 or more.",
        )
    held = np.array([one.held for one in images])
    width = np.array([one.width for one in images]).mean(0)
    errors = held.std(0, ddof=1) / np.sqrt(len(images))
    rows = [
        Row(
            level,
            held=float(held[:, i].mean()),
            error=float(errors[i]),
            scale=scale_for_coverage([one.distances[i] for one in images], level),
            width=float(width[i]),
        )
        for i, level in enumerate(levels)
    ]
    expected = fmean((k - 1) / (k - 3) if k > 3 else np.inf for k in (one.number for one in images))
    return Calibration(
        tuple(rows),
        len(images),
        sum(one.pixels for one in images),
        fmean(one.number for one in images),
        fmean(one.squared_z for one in images),
        float(expected),
        tuple(np.mean([one.ranks for one in images], 0).tolist()),
    )


def masked(reference: Images, mask: Images | None) -> np.ndarray:
    return object_mask(reference) if mask is None else numpy(mask).astype(bool)


def tensor(weights: Images | None) -> Tensor | None:
    return None if weights is None else torch.as_tensor(numpy(weights).astype(np.float64))
