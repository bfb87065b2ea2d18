"""One measured image with its truth: what every method of a benchmark is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from operators.base import Linear
from operators.coils import rss
from operators.krylov import cg

from ..io import center_crop
from ..priors import Prior
from ..problem import Problem

FIT_STEPS = 15  # CG steps of the least-squares fit


@dataclass(frozen=True, eq=False)
class Scene:
    """The measurement of one image. ``problem`` of that image, in the prior's units; ``reference`` (h, w), magnitudes.

    ``all_measurements()`` (1, *codomain): of everything that could be measured, for samplers that choose.
    ``index`` names the image to the noise. ``prior``: the denoiser of these images.
    """

    problem: Problem
    prior: Prior
    reference: Tensor
    index: int
    all_measurements: Callable[[], Tensor]

    @property
    def A(self) -> Linear:
        """The operator, which is linear in every scene."""
        A = self.problem.A
        assert isinstance(A, Linear)
        return A

    @cached_property
    def start(self) -> Tensor:
        """(1, *domain): the least-squares fit to y after `FIT_STEPS` steps of CG from zero."""
        with torch.no_grad():
            return cg(self.A.normal, self.problem.backprojection, steps=FIT_STEPS)

    @cached_property
    def _full(self) -> Tensor:
        with torch.no_grad():
            return self.all_measurements()

    def measure(self, chosen: Tensor) -> Tensor:
        """New measurements of full size, zero where ``chosen`` is False."""
        return self._full * chosen

    def magnitudes(self, x: Tensor) -> Tensor:
        """Images (..., sets, H, W) as magnitudes (..., h, w), cropped as the reference is."""
        return center_crop(rss(x.cpu()), (self.reference.shape[-2], self.reference.shape[-1]))
