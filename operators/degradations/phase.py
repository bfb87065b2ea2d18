"""Phase retrieval: the magnitude of a Fourier transform."""

from __future__ import annotations

import math

from torch import Tensor

from ..base import Operator
from ..errors import OperatorError
from ..fft import fft2


class PhaseRetrieval(Operator):
    """``y = |F P x|``: P pads with zeros to ``oversampling`` times the sides, F is the orthonormal 2-D FFT of a channel.

    Not linear; the derivative is exact, and taken as 0 where ``y = 0``. Shifts, the image turned by 180 degrees, and a
    sign or phase of it give the same y: a prior or the start has to choose. Of real images every frequency is measured
    twice, at f and -f. Domain (C, H, W), real or complex; codomain (C, ceil(o H), ceil(o W)), real. Raises
    `OperatorError` for an oversampling below 1.
    """

    lipschitz = 1.0

    def __init__(self, domain: tuple[int, int, int], oversampling: float = 2.0, complex_domain: bool = False):
        if not 1 <= oversampling < math.inf:
            raise OperatorError(
                f"PhaseRetrieval was given oversampling {oversampling}.",
                "The transform is of the image padded to so many times its sides.",
                "Give 1 or more; 2 measures the whole autocorrelation.",
            )
        self.domain, self.oversampling, self.complex_domain = tuple(domain), oversampling, complex_domain
        self.padded = tuple(math.ceil(oversampling * n) for n in self.domain[-2:])

    def forward(self, x: Tensor) -> Tensor:
        return fft2(x, s=self.padded, norm="ortho").abs()
