"""The records that everything passes around. One coordinate: a state is ``x = x0 + sigma * eps``.

All are frozen; all tensors have a leading axis of rows, image-major: sample s of image b is row
``b * samples + s``. Read this page and `recon.walk`, and you know how every sampler works.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """What is believed at ``(x, sigma)``: the clean image, the noise, and the prior's own opinion.

    ``x0`` is the estimate after the data spoke, ``prior = D(x, sigma)`` before. Where
    ``x = x0 + sigma * eps`` holds the estimate is `consistent`: it is a denoiser's, and may be
    differenced and remembered. A posterior that replaces ``x0`` and keeps the network's noise (DDS)
    moves the point itself; then solvers take differences from ``prior`` only. (The division by sigma is a
    multiplication by ``1 / sigma``, since torch divides complex numbers four times as slowly.)
    """

    x0: Tensor
    eps: Tensor
    prior: Tensor
    consistent: bool = True

    @classmethod
    def keep_state(cls, x: Tensor, sigma: float, x0: Tensor, prior: Tensor | None = None) -> Estimate:
        """Noise recomputed from the corrected image: ``eps = (x - x0) / sigma``."""
        return cls(x0, (x - x0) * (1 / sigma), x0 if prior is None else prior)

    @classmethod
    def keep_noise(cls, x: Tensor, sigma: float, x0: Tensor, prior: Tensor) -> Estimate:
        """The network's noise kept beside the corrected image: ``eps = (x - prior) / sigma``."""
        return cls(x0, (x - prior) * (1 / sigma), prior, consistent=False)

    @property
    def slope(self) -> Tensor:
        """What multistep solvers difference and remember."""
        return self.x0 if self.consistent else self.prior


class Node(NamedTuple):
    """One remembered evaluation of a multistep solver: ``slope`` (rows, ...) at noise level ``sigma``."""

    slope: Tensor
    sigma: float


Past = tuple[Any, ...]
"""A solver's memory, newest first: tuples of tensors, nodes and numbers. ``()`` restarts it."""


@dataclass(frozen=True)
class Step:
    """A transition kernel ``N(mean, std^2)`` per real component, not a draw from it; ``std = 0`` if deterministic."""

    mean: Tensor
    std: float
    est: Estimate
    past: Past = ()


@dataclass(frozen=True)
class State:
    """Everything a sampler carries from level to level: ``x`` at ``sigma``, and the image ``x0`` believed there.

    ``log_w`` (rows,) float64 are log-weights of an ensemble; ``memo`` is the posterior's own (None, or
    an object with ``take``).
    """

    x: Tensor
    sigma: float
    x0: Tensor | None = None
    log_w: Tensor | None = None
    past: Past = ()
    memo: Any = None

    def take(self, rows: Tensor) -> State:
        """The rows with the indices ``rows``, in that order: state, weights, solver's memory and memo alike."""
        pick = {name: permuted(getattr(self, name), rows) for name in ("x", "x0", "log_w", "past")}
        memo = self.memo.take(rows) if hasattr(self.memo, "take") else self.memo
        return replace(self, **pick, memo=memo)


@dataclass(frozen=True)
class Move:
    """One step as the posterior sees it in ``correct``: where it came from, and by which kernel."""

    before: State
    step: Step
    solver: Any
    sigma: float
    target: float


def permuted(value: Any, rows: Tensor) -> Any:
    """The rows with the indices ``rows`` of every tensor in nested tuples; anything else stays."""
    if isinstance(value, Tensor):
        return value[rows]
    if isinstance(value, tuple):
        items = [permuted(item, rows) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return value
