"""Poisson counts: their likelihood as residuals, and the Gaussian one that is near it; pixels hit by impulses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..base import Linear, Operator
from ..errors import OperatorError
from ..krylov import operator_norm

FLOOR = 0.1  # expected counts below which the likelihood is continued: it has no value below 0
NEAR, TERMS = 0.2, 14  # relative distance below which the residual is a series, and its terms


@dataclass(frozen=True, eq=False, repr=False)
class PoissonDeviance(Operator):
    """``r(x)`` with ``||r(x)||^2 / 2 = -log p(y | x)`` but for a constant, ``y ~ Poisson(l)``, ``l = gain A x + background``.

    The signed root of the deviance, ``r = sign(l - y) sqrt(2 (y ln(y / l) - y + l))``: `recon.Problem` (r, zeros, 1) is
    the exact Poisson likelihood to every sampler that takes a nonlinear operator, with its gradient. Expected counts
    below .1 are continued smoothly to stay above 0, by ``.1 / (2 - l / .1)``. RED-diff, which starts at y, here 0, wants a start
    of its own and more steps. ``counts`` (*A.codomain), of one image, at
    least 0; A linear, its measurements real. Domain that of A, codomain (*A.codomain). Raises `OperatorError`.
    """

    A: Linear
    counts: Tensor
    gain: float = 1.0
    background: float = 0.0

    def __post_init__(self):
        fits = tuple(self.counts.shape) == tuple(self.A.codomain) and not self.A.complex_codomain
        if not fits or not (self.counts >= 0).all():
            raise OperatorError(
                f"PoissonDeviance was given counts {tuple(self.counts.shape)} {self.counts.dtype}.",
                f"{self.A!r} measures {tuple(self.A.codomain)}; counts are real, and 0 or more.",
                "Give those of one image, without the batch axis.",
            )
        refuse_gain(self.gain, self.background)

    @property
    def domain(self) -> tuple[int, ...]:
        return self.A.domain

    @property
    def complex_domain(self) -> bool:
        return self.A.complex_domain

    @property
    def lipschitz(self) -> float:
        """``gain ||A|| / sqrt(y)`` of the faintest pixel, where l is near y; of one count below that."""
        return self.gain * float(operator_norm(self.A).max()) / max(float(self.counts.min()), 1.0) ** 0.5

    def forward(self, x: Tensor) -> Tensor:
        level = self.gain * self.A.forward(x) + self.background
        expected = torch.where(
            level < FLOOR, FLOOR / (2 - level.clamp_max(FLOOR) / FLOOR), level.clamp_min(FLOOR)
        )
        y = self.counts.to(level.dtype)
        seen = torch.where(y > 0, y, 1)
        return torch.where(y > 0, seen.sqrt() * root(expected / seen - 1), (2 * expected).sqrt())


def root(d: Tensor) -> Tensor:
    """``sign(d) sqrt(2 (d - ln(1 + d)))`` for d > -1, smooth at 0."""
    near = d.abs() < NEAR
    small, large = torch.where(near, d, 0), torch.where(near, 1, d)
    series = sum(2 * (-small) ** k / (k + 2) for k in range(TERMS))
    return torch.where(
        near, small * torch.as_tensor(series).sqrt(), large.sign() * (2 * (large - torch.log1p(large))).sqrt()
    )


def poisson_deviation(counts: Tensor, gain: float) -> Tensor:
    """Standard deviation of ``counts / gain``, (...), by the counts themselves, at least 1: A DIAGONAL GAUSSIAN APPROXIMATION.

    For every sampler, as ``Problem(A, (counts - background) / gain, poisson_deviation(counts, gain))``; good from about
    10 counts on, biased towards darkness below. Raises `OperatorError`.
    """
    refuse_gain(gain, 0.0)
    return counts.clamp_min(1).sqrt() / gain


def impulse_deviation(hit: Tensor, sigma: float) -> Tensor:
    """Standard deviation of measurements of which those where ``hit`` (bool) say nothing: infinite there, ``sigma`` > 0 elsewhere.

    Where impulses struck has to be known: a dead pixel, or a value at the end of the scale. Raises `OperatorError`.
    """
    if not 0 < sigma < math.inf:
        raise OperatorError(f"sigma is {sigma}.", "It weighs what was not hit.", "Give one above 0.")
    return torch.where(hit, math.inf, sigma)


def refuse_gain(gain: float, background: float) -> None:
    """Raises `OperatorError` for counts that cannot be."""
    if not (0 < gain < math.inf and 0 <= background < math.inf):
        raise OperatorError(
            f"The gain is {gain}, the background {background}.",
            "They are counts at brightness 1, and counts without light.",
            "Give a gain above 0, and a background of 0 or more.",
        )
