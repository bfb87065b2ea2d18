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
from ..metrics import nmse, object_psnr, psnr, scaled_nmse, scaled_psnr, scaled_ssim, ssim
from ..priors import Prior
from ..problem import Problem

COLOUR = "values as they are, over all channels, data range 1; SSIM is the mean over the channels"
"""How pictures in colour are compared."""
FIT_STEPS = 15  # CG steps of the least-squares fit


@dataclass(frozen=True, eq=False)
class Scene:
    """The measurement of one image. ``problem`` of that image, in the prior's units; ``reference`` (h, w), magnitudes.

    Of a picture in colour the ``reference`` is (3, h, w), its values from 0 to 1.

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

    @property
    def colour(self) -> bool:
        """Whether the image is a picture in colour, which is compared by its values."""
        return self.reference.ndim == 3

    def compared(self, x: Tensor) -> Tensor:
        """Images (..., sets, H, W) as the reference is: magnitudes (..., h, w), cropped; in colour values (..., 3, h, w)."""
        if self.colour:
            return x.cpu()
        return center_crop(rss(x.cpu()), (self.reference.shape[-2], self.reference.shape[-1]))

    def scores(self, image: Tensor) -> dict[str, float]:
        """The metrics of an image (*domain) against the reference, by name."""
        score = colour_scores if self.colour else image_scores
        return score(self.compared(image), self.reference.cpu())


def image_scores(image: Tensor, reference: Tensor) -> dict[str, float]:
    """PSNR (of the whole image, in the object, fastMRI's), SSIM and NMSE of magnitudes (h, w), by name."""
    found = {
        "psnr": scaled_psnr(image, reference),
        "object_psnr": object_psnr(image, reference),
        "ssim": scaled_ssim(image, reference),
        "nmse": scaled_nmse(image, reference),
        "fastmri_psnr": psnr(image, reference),
    }
    return {name: float(score) for name, score in found.items()}


def colour_scores(image: Tensor, reference: Tensor) -> dict[str, float]:
    """PSNR, SSIM and NMSE of pictures (3, h, w), `COLOUR`, by name."""
    found = {
        "psnr": psnr(image, reference, 1.0),
        "ssim": ssim(image, reference, 1.0),
        "nmse": nmse(image, reference),
    }
    return {name: float(score) for name, score in found.items()}
