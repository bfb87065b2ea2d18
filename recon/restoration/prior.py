"""A restoration network as a prior: ``D(x, sigma)``, and the start of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..priors import by_chunks
from .base import Restoration

LABELS = ("continuous", "nearest")


class RestorationPrior:
    """``D(x, sigma)`` = E[x0 | x, y] of a network trained to restore ``degraded`` images y (B, *domain).

    ``network(z, y, label)`` with ``z = a x + b y`` (rows, *domain) and label (rows,) gives what it
    ``predicts``, one of ``process.kinds`` (``pair``: two tensors). ``labels``: "continuous" hands over
    the interpolated label, "nearest" the nearest integer, for networks that look it up. ``chunk``: at
    most that many rows through the network at a time (rows belong to their images: `recon.priors.chunked`
    would part them). ``data_var``: variance of the images per real component. Rows are image-major; their
    number is a multiple of B. Raises `ConfigError` for another number or shape of rows, or of outputs.

    ``sigma_max`` is the process's start where that is usable, ``e^5`` where little or nothing is left of
    x0 there; ``sigma_min`` the level of its first label.
    """

    def __init__(
        self,
        network: Callable[[Tensor, Tensor, Tensor], Any],
        process: Restoration,
        degraded: Tensor,
        predicts: str = "noise",
        *,
        labels: str = "continuous",
        chunk: int | None = None,
        data_var: float | None = None,
    ):
        if predicts not in process.kinds:
            raise ConfigError(
                f"predicts is {predicts!r}.",
                f"A network of {type(process).__name__} predicts one of {', '.join(process.kinds)}.",
            )
        if labels not in LABELS:
            raise ConfigError(f"labels is {labels!r}.", f"It is one of {', '.join(LABELS)}.")
        if chunk is not None and chunk < 1:
            raise ConfigError(f"chunk is {chunk}.", "It counts rows.")
        self.network, self.process, self.degraded = network, process, degraded
        self.predicts, self.labels, self.chunk = predicts, labels, chunk
        self.sigma_min, self.sigma_max = process.sigma(1.0), process.top
        if data_var is not None:
            self.data_var = data_var

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """``sigma = inf``: x is the unit noise of the process's own start."""
        process, y = self.process, self.anchors(x)
        if math.isinf(sigma):
            t = process.end
            z = (process.scale(t) + process.anchor(t)) * y + process.start_std * x
        else:
            t = process.time(sigma)
            z = process.scale(t) * x + process.anchor(t) * y
        return by_chunks(lambda z, y: self.clean(z, y, t), self.chunk or len(z), z, y)

    def clean(self, z: Tensor, y: Tensor, t: float) -> Tensor:
        """x0 from what the network says at ``(z, t)``."""
        value, kind = self.process.label(t), z.dtype.to_real()
        if self.labels == "nearest":
            value, kind = round(value), torch.int64
        said = self.network(z, y, torch.full((len(z),), value, dtype=kind, device=z.device))
        parts = tuple(said) if isinstance(said, tuple | list) else (said,)
        if len(parts) != (2 if self.predicts == "pair" else 1) or any(p.shape != z.shape for p in parts):
            raise ConfigError(
                f"The network was given {tuple(z.shape)} and returned {[tuple(p.shape) for p in parts]}.",
                f"{self.predicts!r} is {'two tensors' if self.predicts == 'pair' else 'a tensor'} of that shape.",
            )
        return self.process.clean(said, self.predicts, z, y, t)

    def start(
        self,
        noise: Tensor,
        sigma: float | None = None,
        denoise: Callable[[Tensor, float], Tensor] | None = None,
    ) -> tuple[Tensor, float]:
        """``(x, sigma_0)`` of the model's own start ``z_T = (a_T + b_T) y + s_T noise``; noise (rows, *domain).

        That is ``x = y + s_T / a_T noise`` at ``sigma_max``. Where a is 0 at the end x is not defined
        there, and the first step, ``x' = D + sigma' e``, ``e = (z_T - b_T y - a_T D) / s_T``, leads to
        any level ``sigma`` the walk begins at (default ``sigma_max``), for one call of ``denoise``
        (default: the prior itself) at sigma = inf. Noise alone says nothing of x0 there: a network that
        predicts it begins at ``y + sigma' noise`` without that call. Raises `ConfigError` for a level it
        cannot begin at.
        """
        process, top, y = self.process, self.sigma_max, self.anchors(noise)
        sigma = top if sigma is None else sigma
        same = math.isclose(sigma, top, rel_tol=1e-9)
        if not same and (process.reaches_end or not 0 < sigma < top):
            raise ConfigError(
                f"The walk begins at sigma {sigma:.6g}, {type(process).__name__} at {top:.6g}.",
                "It restores from the degraded image plus noise of its own level.",
                "Leave sigma_start out, or begin the grid at prior.sigma_max; an image of your own is init.",
            )
        end = process.end
        if process.reaches_end:
            return y + process.start_std / process.scale(end) * noise, sigma
        if self.predicts == "noise":
            return y + sigma * noise, sigma
        clean = (denoise or self)(noise, math.inf)
        rest = process.scale(end) * (y - clean) + process.start_std * noise
        return clean + sigma / process.std(end) * rest, sigma

    def levels(self, steps: int) -> list[float]:
        """The models' own grid (see `Restoration.levels`): ``steps`` calls, the one of the start included."""
        return self.process.levels(steps)

    def anchors(self, x: Tensor) -> Tensor:
        """y for each row of x."""
        y = self.degraded
        if x.shape[1:] != y.shape[1:] or len(x) % len(y) or (y.is_complex() and not x.is_complex()):
            raise ConfigError(
                f"The state is {tuple(x.shape)} {x.dtype}, the degraded images {tuple(y.shape)} {y.dtype}.",
                "Each row belongs to one of the images: (B * samples, *domain) to (B, *domain).",
                "Build the prior for the images of this problem; to bound memory use chunk=, not chunked.",
            )
        return y.to(x).repeat_interleave(len(x) // len(y), dim=0)
