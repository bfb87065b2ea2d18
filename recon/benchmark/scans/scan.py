"""A scan whose image is known: all of its k-space, what of it is used, and the reference."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from operators.base import Linear
from operators.coils import rss
from operators.mri import MRI

from ...io import center_crop
from ...jobs.shared.settings import Settings
from ...mri import Normalised, SliceResult, normalise, reconstruct_slice
from ...priors import Prior
from ...problem import Problem
from ..scene import Scene


@dataclass(frozen=True, eq=False)
class Scan:
    """One slice. ``kspace`` (coils, H, W) complex, all of it; ``mask`` (H, W) bool, true where a method may use it.

    ``reference`` (h, w): root sum of squares of the coil images of the full data, cropped as the scan's header
    says. ``index`` names the slice to the noise. Of a simulated scan also ``maps`` (coils, H, W) complex, of unit
    length over the coils, and ``support`` (H, W) bool, where the object is. ``sets`` of maps that BART estimates.
    """

    kspace: Tensor
    mask: Tensor
    reference: Tensor
    index: int = 0
    maps: Tensor | None = None
    support: Tensor | None = None
    sets: int = 1

    @property
    def y(self) -> Tensor:
        """(coils, H, W): what was measured, zero elsewhere."""
        return self.kspace * self.mask

    @property
    def scale(self) -> float:
        """The reference's 99.5th percentile, which is 1 in the units of a `Scene`."""
        return float(torch.quantile(self.reference.flatten().float(), 0.995))

    def cropped(self, image: Tensor) -> Tensor:
        """Images (..., H, W) as the reference is, (..., h, w)."""
        return center_crop(image, (self.reference.shape[-2], self.reference.shape[-1]))


@dataclass(frozen=True, eq=False)
class Trial:
    """A scan with what the methods are to use: the settings and the prior of ours. What they share is computed once."""

    scan: Scan
    settings: Settings
    prior: Prior

    @cached_property
    def normalised(self) -> Normalised:
        """The scan as ``recon reconstruct`` normalises it: its maps, its noise."""
        scan, device = self.scan, self.settings.runtime.torch_device()
        return normalise(scan.kspace.to(device), scan.mask, self.settings.recipe, index=scan.index)

    @cached_property
    def timed_result(self) -> tuple[SliceResult, float]:
        """What ``recon reconstruct`` makes of the scan, and the seconds from k-space to samples."""
        scan, settings = self.scan, self.settings
        started = time.monotonic()
        result = reconstruct_slice(
            scan.y, scan.mask, settings.recipe, self.prior, settings.runtime, slice_index=scan.index
        )
        return result, time.monotonic() - started

    @cached_property
    def scene(self) -> Scene:
        """The scan with our maps as they are before a network is called."""
        return self.scene_with(self.normalised.maps)

    @cached_property
    def final_scene(self) -> Scene:
        """The scan with our maps as the result has them, for which the whole reconstruction is made."""
        return self.scene_with(self.timed_result[0].maps)

    @cached_property
    def oracle(self) -> Scene:
        """The scan with the true maps, zero outside the true support."""
        scan = self.scan
        assert scan.maps is not None and scan.support is not None
        return self.scene_with((scan.maps * scan.support)[None])

    def scene_with(self, maps: Tensor | None) -> Scene:
        """The scan with ``maps`` (sets, coils, H, W), None for one coil that sees everything."""
        scan, one = self.scan, self.normalised
        y = scan.y[None] / scan.scale
        A: Linear = MRI(scan.mask.to(y.real.dtype)) if maps is None else MRI(scan.mask, maps)
        problem = Problem(A.to(y.device), y, one.noise * one.scale / scan.scale)
        reference = scan.reference / scan.scale
        return Scene(problem, self.prior, reference, scan.index, lambda: scan.kspace[None] / scan.scale)


@dataclass(frozen=True, eq=False)
class Found:
    """What a method made of a scan, in the scan's own units, full size.

    ``image`` (H, W) magnitudes; ``samples`` (S, H, W) magnitudes of posterior samples; ``support`` (H, W) bool where the
    method lets an object be; ``residual`` of the image, or of a sample, in units of the noise; ``network_calls``
    per sample; ``seconds`` of one reconstruction; ``notes``: what the method was set to or found.
    """

    image: Tensor
    samples: Tensor | None = None
    support: Tensor | None = None
    residual: float | None = None
    network_calls: int = 0
    seconds: float = 0.0
    notes: dict[str, float | str] | None = None


def sets_combined(images: Tensor) -> Tensor:
    """Images (..., sets, H, W) as magnitudes (..., H, W): root sum of squares over the sets of maps."""
    return rss(images.cpu())
