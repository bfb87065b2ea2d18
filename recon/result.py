"""What `recon.sample` gives: samples, their mean, standard deviation and intervals, and how they came about."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .intervals import LEVEL, average, interval, magnitude_interval, spread
from .posteriors.active.record import Record


@dataclass(frozen=True)
class Result:
    """What `sample` gives. ``samples`` (B, S, *domain); ``network_calls`` counts the prior's, a sample.

    ``trace``: one dict a step with sigma and, where the posterior has a problem, the residual of the
    believed image in units of the noise (median over the rows). Of an ensemble, whose samples are
    weighed particles, also "ess", the effective particles before tempering and resampling (of the image
    with the fewest); ``log_weights`` (B, S) float64, not normalised; ``least_ess`` (B,), the least "ess" of the run;
    ``ancestors`` (B,), of how many first particles the last descend; and ``log_evidence`` (B,), the estimate of ``ln E_prior exp(-||A x - y||^2 / (2
    sigma_y^2))``: that of the Gaussian measurements without its constant.
    ``acquired``: of `Active`, what was measured when, and why.
    """

    samples: Tensor
    network_calls: int
    trace: list[dict[str, float]] = field(default_factory=list)
    log_weights: Tensor | None = None
    least_ess: Tensor | None = None
    ancestors: Tensor | None = None
    log_evidence: Tensor | None = None
    acquired: Record | None = None

    @property
    def weights(self) -> Tensor | None:
        """Of an ensemble: the particles' weights (B, S), float64, which add up to 1."""
        return None if self.log_weights is None else self.log_weights.softmax(1)

    @property
    def ess(self) -> Tensor | None:
        """Of an ensemble: ``1 / sum_i w_i^2`` (B,), how many particles count at the end, copies and all."""
        return None if self.weights is None else 1 / self.weights.square().sum(1)

    @property
    def mean(self) -> Tensor:
        """Posterior mean (B, *domain), weighted for an ensemble."""
        return average(self.samples, self.weights)

    @property
    def std(self) -> Tensor | None:
        """Standard deviation over the samples (B, *domain), real; None for a single sample.

        Weighted for an ensemble: 0 where one particle has all the weight, which says nothing.
        """
        return self.spread(self.samples)

    @property
    def magnitude_std(self) -> Tensor | None:
        """Standard deviation of the magnitudes (B, *domain): what a std map of complex images shows."""
        return self.spread(self.samples.abs())

    def spread(self, values: Tensor) -> Tensor | None:
        """Standard deviation (B, ...) of values (B, S, ...) of the samples, as `intervals.spread` weighs them."""
        return spread(values, self.weights) if values.shape[1] > 1 else None

    def interval(self, level: float = LEVEL) -> tuple[Tensor, Tensor] | None:
        """(low, high), real (B, *domain) each, that hold the truth with probability ``level``; None for one sample.

        `intervals.interval` of the magnitudes for complex images, with low at least 0, of the values for
        real ones; what `metrics.coverage` counts. Weighted for an ensemble, and unbounded where one
        particle has all the weight. Raises `ConfigError` for a level outside (0, 1).
        """
        weights = [None] * len(self.samples) if self.weights is None else self.weights
        bounds = [
            magnitude_interval(x.abs(), level, w) if x.is_complex() else interval(x, level, w)
            for x, w in zip(self.samples, weights, strict=True)
        ]
        low, high = ([side[place] for side in bounds if side is not None] for place in (0, 1))
        return (torch.stack(low), torch.stack(high)) if low else None
