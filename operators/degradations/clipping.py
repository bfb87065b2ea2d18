"""High dynamic range: what a sensor clips."""

from __future__ import annotations

import math

from torch import Tensor

from ..base import Operator
from ..errors import OperatorError

DERIVATIVES = ("straight-through", "exact")


class Clipping(Operator):
    """``y = min(max(pivot + gain (x - pivot), 0), 1)`` of images of 0 to 1: a contrast that the sensor does not hold.

    ``pivot`` .5 clips shadows and highlights alike, 0 is an exposure ``gain`` times too long. Not linear. ``derivative``:
    "exact", gain between the two limits and 0 beyond, where a pixel that starts on the wrong side of a limit stays; or
    "straight-through", GAIN EVERYWHERE, which pulls it back and leaves one that is rightly clipped alone, its
    residual being 0. Measurements are clipped too (`masked`), as the sensor's are after its noise. Domain and codomain
    (C, H, W), real. Raises `OperatorError` for a gain that is not above 0, and for another derivative.
    """

    def __init__(
        self,
        domain: tuple[int, ...],
        gain: float = 2.0,
        pivot: float = 0.5,
        derivative: str = "straight-through",
    ):
        if derivative not in DERIVATIVES:
            raise OperatorError(
                f"Clipping has no derivative {derivative!r}.", do=f"Choose {' or '.join(DERIVATIVES)}."
            )
        if not (0 < gain < math.inf and math.isfinite(pivot)):
            raise OperatorError(
                f"Clipping was given gain {gain} and pivot {pivot}.",
                "Brightness is multiplied by the gain, around the pivot.",
                "Give a gain above 0.",
            )
        self.domain, self.gain, self.pivot = tuple(domain), gain, pivot
        self.derivative, self.lipschitz = derivative, gain

    def forward(self, x: Tensor) -> Tensor:
        bright = self.pivot + self.gain * (x - self.pivot)
        clipped = self.masked(bright)
        return clipped if self.derivative == "exact" else bright + (clipped - bright).detach()

    def masked(self, y: Tensor) -> Tensor:
        """What the sensor holds of y."""
        return y.clamp(0, 1)
