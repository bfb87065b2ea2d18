"""Whether intervals are calibrated: coverage by level, the scale that would correct it, z-scores, ranks and width.

Each function takes one image: the reference (H, W) and k samples (k, H, W), compared as the metrics do
(values if both are real, magnitudes if either is complex); ``mask`` (H, W) bool, by default
`metrics.object_mask` of the reference; ``weights`` (k,) of an ensemble. The intervals are those of
`recon.intervals.interval`.
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
from .metrics import ImageArray, bounds, comparable, coverage, numpy, object_mask

EVEN = 0.1  # relative difference from the variance of uniform ranks up to which a histogram counts as even
LEANING = (
    0.05  # difference of the mean rank from the middle, as a share of all ranks, up to which there is no bias
)


@dataclass(frozen=True, eq=False)
class Measured:
    """What `measure` finds in one image.

    ``pixels`` of the object; ``number`` of samples, effective for an ensemble; for each level the share ``held``
    (`coverage_curve`), the ``width`` (`sharpness`) and the `distances` (pixels,); `squared_z`; and ``ranks``
    (k + 1,) of `rank_histogram`.
    """

    pixels: int
    number: float
    held: np.ndarray
    width: np.ndarray
    distances: list[np.ndarray]
    squared_z: float
    ranks: np.ndarray


@dataclass(frozen=True)
class LevelRow:
    """One level over all images: mean share ``held``, its standard ``error``, `scale_for_coverage`, ``width``."""

    level: float
    held: float
    error: float
    scale: float
    width: float


@dataclass(frozen=True)
class Calibration:
    """Means over images, each with the same weight. ``expected_z`` is the ``squared_z`` of exact samples.

    ``number``: samples per image, of an ensemble the effective number.
    """

    rows: tuple[LevelRow, ...]
    images: int
    pixels: int
    number: float
    squared_z: float
    expected_z: float
    ranks: tuple[float, ...]

    @property
    def rank_variance(self) -> float:
        """Variance of the ranks relative to that of uniform ones: above 1 the reference lies outside too often."""
        places, uniform = np.arange(len(self.ranks)), (len(self.ranks) ** 2 - 1) / 12
        return float(np.sum(self.ranks * (places - self.mean_rank * (len(places) - 1)) ** 2) / uniform)

    @property
    def mean_rank(self) -> float:
        """0 if the reference is below all samples everywhere, 1 if it is above them; .5 without bias."""
        return float(np.dot(self.ranks, np.linspace(0, 1, len(self.ranks))))

    @property
    def shape(self) -> str:
        """The shape of the rank histogram in words, and what it means."""
        if self.rank_variance > 1 + EVEN:
            said = "U-shaped: the samples are too similar"
        elif self.rank_variance < 1 - EVEN:
            said = "a hump: the samples differ too much"
        else:
            said = "even"
        if abs(self.mean_rank - 0.5) > LEANING:
            said += f"; the reference is {'above' if self.mean_rank > 0.5 else 'below'} the samples too often"
        return said


def coverage_curve(
    reference: ImageArray,
    samples: ImageArray,
    levels: Sequence[float],
    mask: ImageArray | None = None,
    weights: ImageArray | None = None,
) -> np.ndarray:
    """`metrics.coverage` at each level: (levels,)."""
    shares = [coverage(reference, samples, mask=mask, level=level, weights=weights) for level in levels]
    return np.array([share.value for share in shares])


def distances(
    reference: ImageArray,
    samples: ImageArray,
    level: float,
    mask: ImageArray | None = None,
    weights: ImageArray | None = None,
) -> np.ndarray:
    """How far off the reference lies (pixels,), the end of the interval on its side being 1 away from the mean.

    ``|reference - mean| / |end - mean|``: at most 1 if the interval holds the reference.
    """
    inside, w = masked(reference, mask), tensor(weights)
    truth, samples = comparable(reference, samples)
    low, high, _ = bounds(samples, level, weights)
    low, high, truth = low[inside], high[inside], truth[inside]
    mean = average(torch.from_numpy(samples[:, inside])[None], None if w is None else w[None])[0].numpy()
    reach = np.where(truth < mean, mean - low, high - mean).clip(min=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.abs(truth - mean) / reach
    return np.where(
        (low <= truth) & (truth <= high), np.fmin(found, 1), found
    )  # inside, also if the width is 0


def scale_for_coverage(distances: Sequence[np.ndarray], level: float) -> float:
    """The least c for which intervals c times as wide, about the same means, hold ``level`` of the pixels.

    ``mean over images of share(distances <= c) >= level``. The share grows with c in steps, at the distances
    themselves, so c is one of them: where a bisection would end. Infinite if no c is enough.
    """
    every = np.concatenate(distances)
    share = np.concatenate([np.full(len(one), 1 / (len(one) * len(distances))) for one in distances])
    order = np.argsort(every)
    place = np.searchsorted(np.cumsum(share[order]), level - 1e-12)
    return float(every[order[min(place, len(every) - 1)]])


def rank_histogram(
    reference: ImageArray,
    samples: ImageArray,
    mask: ImageArray | None = None,
    weights: ImageArray | None = None,
) -> np.ndarray:
    """Share of pixels (k + 1,) whose reference has r of the k samples below it: 1 / (k + 1) each for exact samples.

    Samples of an ensemble count by their weights. Source: Hamill, Mon. Weather Rev. 129:550 (2001).
    """
    inside, count = masked(reference, mask), len(samples)
    truth, draws = comparable(reference, samples)
    below = draws[:, inside] < truth[inside]
    w = np.full(count, 1 / count) if weights is None else numpy(weights).astype(np.float64)
    ranks = np.minimum((w @ below * (count + 1) + 1e-9).astype(int), count)
    return np.bincount(ranks, minlength=count + 1) / ranks.size


def squared_z(
    reference: ImageArray,
    samples: ImageArray,
    mask: ImageArray | None = None,
    weights: ImageArray | None = None,
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
    reference: ImageArray,
    samples: ImageArray,
    level: float,
    mask: ImageArray | None = None,
    weights: ImageArray | None = None,
) -> float:
    """Mean width of the interval over the mean magnitude of the reference.

    Of two calibrated intervals the narrower says more. Without negative values only the part above 0 counts.
    """
    inside = masked(reference, mask)
    truth, samples = comparable(reference, samples)
    low, high, _ = bounds(samples, level, weights)
    if min(truth.min(), samples.min()) >= 0:
        low = np.maximum(low, 0)
    return float((high - low)[inside].mean() / np.abs(truth)[inside].mean())


def measure(
    reference: ImageArray, samples: ImageArray, levels: Sequence[float], weights: ImageArray | None = None
) -> Measured:
    """All of the above for one image, over its object; raises `InputError` for fewer than two effective samples."""
    number = effective_number(len(samples), tensor(weights))
    if number < 2 - 1e-6:
        raise InputError(
            f"The {len(samples)} samples count as {number:.2g}.",
            "One particle has nearly all the weight, which says nothing about the spread.",
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
    """Means over images, with standard errors of the mean; raises `InputError` for fewer than two."""
    if len(images) < 2:
        raise InputError(
            f"A calibration of {len(images)} image was asked for.",
            "How well it holds is seen by comparing images.",
            "Measure at least 2, better 8 or more.",
        )
    held = np.array([one.held for one in images])
    width = np.array([one.width for one in images]).mean(0)
    errors = held.std(0, ddof=1) / np.sqrt(len(images))
    rows = [
        LevelRow(
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


def masked(reference: ImageArray, mask: ImageArray | None) -> np.ndarray:
    """The mask as a bool array, or the reference's `object_mask` if there is none."""
    return object_mask(reference) if mask is None else numpy(mask).astype(bool)


def tensor(weights: ImageArray | None) -> Tensor | None:
    """Weights as a float64 tensor."""
    return None if weights is None else torch.as_tensor(numpy(weights).astype(np.float64))
