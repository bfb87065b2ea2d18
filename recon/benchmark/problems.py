"""What a problem of a benchmark is, as settings: an operator on images, or a mask on k-space."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError
from ..io.acquisition import MaskChoice
from ..registry.configuration import construct
from ..registry.operators import refuse_operator_options


@dataclass(frozen=True)
class ProblemSpec:
    """What is measured. Of images: ``operator`` (`recon list operators`, or module:Class), its ``options``, ``sigma``.

    ``sigma``: noise a real component, where the 99.5th percentile of the image is 1. Of k-space files: the
    ``mask`` alone (name, accel, center), seeded by the file's name. ``inputs``: others than the benchmark's.
    """

    operator: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    sigma: float | None = None
    mask: dict[str, Any] | None = None
    inputs: tuple[str, ...] = ()

    def __post_init__(self):
        if (self.operator is None) == (self.mask is None):
            raise ConfigError(
                "A problem has an operator or a mask.",
                "Images are measured by an operator, k-space is undersampled by a mask.",
                "Give one of the two.",
            )
        if self.operator is not None:
            if ":" not in self.operator:
                refuse_operator_options(self.operator, self.options)
            if not (isinstance(self.sigma, int | float) and self.sigma >= 0):
                raise ConfigError(
                    f"sigma of {self.operator} is {self.sigma!r}.",
                    "It is the noise's standard deviation a real component, images being 0 to 1.",
                    "Write sigma: 0.02.",
                )
        if self.mask is not None:
            if self.sigma is not None or self.options:
                raise ConfigError("A mask was given with sigma or options.", "The noise is that of the file.")
            construct(MaskChoice, self.mask, "A mask")
