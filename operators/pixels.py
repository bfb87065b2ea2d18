"""Operators that act on pixels: inpainting and super-resolution."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from .base import Linear
from .errors import OperatorError
from .fft import fft, irfft2, rfft2


class Inpainting(Linear):
    """``y = m * x``, full size and zero where nothing was measured.

    ``mask`` is (H, W), (1, H, W) or (C, H, W), one (or True) where measured; ``channels`` repeats a
    one-channel mask. Domain and codomain are (C, H, W), real. Raises `OperatorError` for a mask that is
    not binary or not of these shapes.
    """

    def __init__(self, mask: Tensor, channels: int = 1):
        mask = torch.as_tensor(mask)
        mask = mask if mask.ndim == 3 else mask[None]
        if mask.ndim != 3 or (channels != 1 and len(mask) not in (1, channels)):
            raise OperatorError(
                f"Inpainting was given a mask of shape {tuple(mask.shape)} for {channels} channel(s).",
                "A mask is (H, W), (1, H, W) or (channels, H, W).",
                "Reshape it, or leave `channels` out when the mask has its own.",
            )
        if mask.is_complex() or not ((mask == 0) | (mask == 1)).all():
            raise OperatorError(
                "Inpainting was given a mask that is not binary.",
                "A pixel is measured (1) or it is not (0).",
                "Threshold the mask first: mask > 0.5.",
            )
        if not mask.is_floating_point():
            mask = mask.to(torch.get_default_dtype())
        self.mask = mask
        self.domain = (max(channels, len(mask)), *mask.shape[1:])

    @cached_property
    def measured(self) -> int:
        return int(self.mask.sum()) * self.domain[0] // len(self.mask)

    def forward(self, x: Tensor) -> Tensor:
        return self.mask.to(x.dtype) * x

    def masked(self, y: Tensor) -> Tensor:
        return self.forward(y)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.forward(y)

    def normal(self, x: Tensor) -> Tensor:
        return self.forward(x)

    def solve_normal(self, b: Tensor, weight: float) -> Tensor:
        """``b / (m + weight)``, a pixel at a time."""
        return b / (self.mask.to(b.dtype) + weight)


class SuperResolution(Linear):
    """``y = (k * x)`` at every ``factor``-th pixel: blur against aliasing and decimation, in one strided pass.

    The filter is separable and centred on the blocks of factor x factor pixels:

    - ``"bicubic"``: Keys' cubic (a = -1/2) stretched by the factor, as in MATLAB's and PIL's antialiased resize;
    - ``"box"``: the mean of each block;
    - ``"gaussian"``: standard deviation factor / 2 pixels, cut at four standard deviations.

    ``padding`` is ``"circular"`` (closed-form ``solve_normal``) or ``"reflect"`` (none). Domain (C, H, W),
    codomain (C, H / factor, W / factor), real. Raises `OperatorError` for sizes that the factor does
    not divide, or that are smaller than the filter.
    """

    def __init__(
        self,
        domain: tuple[int, int, int],
        factor: int = 4,
        filter: str = "bicubic",
        padding: str = "circular",
    ):
        self.domain, self.factor, self.filter, self.padding = tuple(domain), factor, filter, padding
        if len(self.domain) != 3 or factor < 1 or self.domain[1] % factor or self.domain[2] % factor:
            raise OperatorError(
                f"SuperResolution cannot shrink images of shape {self.domain} by {factor}.",
                "The factor must divide height and width of (C, H, W).",
                "Crop or pad the image to a multiple of the factor.",
            )
        if filter not in FILTERS:
            raise OperatorError(
                f"SuperResolution has no filter {filter!r}.", do=f"Choose one of {', '.join(FILTERS)}."
            )
        if padding not in ("circular", "reflect"):
            raise OperatorError(
                f"SuperResolution has no padding {padding!r}.", do="Choose circular or reflect."
            )
        self.taps = filter_taps(filter, factor).to(torch.get_default_dtype())
        self.margin = (len(self.taps) - factor) // 2
        if min(self.domain[1:]) <= self.margin:
            raise OperatorError(
                f"SuperResolution by {factor} was given images of {self.domain[1]} x {self.domain[2]} pixels.",
                f"The {filter} filter reaches {self.margin} pixels past a block and would wrap around twice.",
                f"Use images of more than {self.margin} pixels a side, or filter='box'.",
            )

    @cached_property
    def _axes(self) -> tuple[Tensor, Tensor]:
        """The strided convolution of each axis as a matrix (n / factor, n), the padding folded into it.

        Two products with these are exact, their transposes the adjoint, and faster than a convolution.
        """
        return self._matrix(self.domain[1]), self._matrix(self.domain[2])

    def _matrix(self, n: int) -> Tensor:
        starts = torch.arange(0, n, self.factor, device=self.taps.device)[:, None]
        place = starts - self.margin + torch.arange(len(self.taps), device=self.taps.device)
        if self.padding == "circular":
            place = place % n
        else:
            place = (n - 1) - ((n - 1) - place.abs()).abs()
        weights = self.taps.expand(place.shape)
        return self.taps.new_zeros(n // self.factor, n).scatter_add(1, place, weights)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (matrix.to(x.dtype) for matrix in self._axes)
        return rows @ x @ columns.T

    def adjoint(self, y: Tensor) -> Tensor:
        rows, columns = (matrix.to(y.dtype) for matrix in self._axes)
        return rows.T @ y @ columns

    @cached_property
    def _gram(self) -> Tensor:
        """Eigenvalues of ``A A^H`` over ``rfft2`` of the small grid: the spectrum of k, folded."""
        axes = []
        for n in self.domain[1:]:
            wrapped = torch.zeros(n, dtype=self.taps.dtype, device=self.taps.device)
            place = torch.arange(len(self.taps), device=self.taps.device) % n
            power = fft(wrapped.index_add(0, place, self.taps)).abs().square()
            axes.append(power.view(self.factor, -1).mean(0))
        return axes[0][:, None] * axes[1][: len(axes[1]) // 2 + 1]

    def solve_normal(self, b: Tensor, weight: float) -> Tensor | None:
        """``(b - A^H (A A^H + w)^-1 A b) / w``: with circular padding ``A A^H`` is a convolution.

        Zhao et al., Fast single image super-resolution, IEEE TIP 2016, equation 21. Its rounding error
        is that of the problem, about eps ||A||^2 / w. None for other paddings.
        """
        if self.padding != "circular":
            return None
        small = self.forward(b)
        spectrum = rfft2(small) / (self._gram.to(b.dtype) + weight)
        return (b - self.adjoint(irfft2(spectrum, s=small.shape[-2:]))) / weight


def filter_taps(filter: str, factor: int) -> Tensor:
    """Weights of one axis, sum 1, symmetric about the middle of a block; float64."""
    kernel, reach = FILTERS[filter]
    pixels = torch.arange(-2 * factor, 3 * factor, dtype=torch.float64)
    distance = (pixels - (factor - 1) / 2).abs() / factor
    weights = kernel(distance[distance < reach])
    return weights / weights.sum()


def keys_cubic(d: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -1/2 at distances d >= 0."""
    near = (1.5 * d - 2.5) * d * d + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return torch.where(d <= 1, near, torch.where(d < 2, far, 0.0))


# name -> weight at a distance from the block's centre, and where it ends; both in blocks
FILTERS = {
    "bicubic": (keys_cubic, 2.0),
    "box": (torch.ones_like, 0.5),
    "gaussian": (lambda d: torch.exp(-2 * d * d), 2.0),
}
