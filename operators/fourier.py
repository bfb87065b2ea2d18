"""The centred orthonormal Fourier transform, and circular blur."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Linear
from .errors import OperatorError
from .fft import fft2, ifft2, irfft2, rfft2

AXES = (-2, -1)


def fft2c(x: Tensor) -> Tensor:
    """Centred orthonormal 2-D FFT over the last two axes: image -> k-space, zero frequency at H//2, W//2."""
    x = torch.fft.ifftshift(x, dim=AXES)
    return torch.fft.fftshift(fft2(x, norm="ortho"), dim=AXES)


def ifft2c(k: Tensor) -> Tensor:
    """Inverse and adjoint of `fft2c`: k-space -> image."""
    k = torch.fft.ifftshift(k, dim=AXES)
    return torch.fft.fftshift(ifft2(k, norm="ortho"), dim=AXES)


class Blur(Linear):
    """``y = k * x``, circular convolution by FFT.

    ``kernel`` is (h, w) or (C, h, w), real, its origin at (h // 2, w // 2); ``domain`` (C, H, W). A
    kernel larger than the image is refused with `OperatorError`.
    """

    def __init__(self, kernel: Tensor, domain: tuple[int, int, int]):
        kernel = torch.as_tensor(kernel)
        channels, *size = domain
        fits = kernel.ndim in (2, 3) and all(k <= n for k, n in zip(kernel.shape[-2:], size, strict=True))
        if not fits or (kernel.ndim == 3 and len(kernel) not in (1, channels)) or kernel.is_complex():
            raise OperatorError(
                f"Blur was given a {kernel.dtype} kernel of shape {tuple(kernel.shape)} for images {domain}.",
                "A kernel is real, (h, w) or (C, h, w), and no larger than the image.",
                "Crop the kernel, or blur a larger image.",
            )
        if not kernel.is_floating_point():
            kernel = kernel.to(torch.get_default_dtype())
        h, w = kernel.shape[-2:]
        centred = F.pad(kernel, (0, size[1] - w, 0, size[0] - h)).roll((-(h // 2), -(w // 2)), AXES)
        self.domain = tuple(domain)
        self.transfer = rfft2(centred)

    def _filtered(self, x: Tensor, transfer: Tensor) -> Tensor:
        return irfft2(rfft2(x) * transfer, s=x.shape[-2:])

    def _transfer(self, x: Tensor) -> Tensor:
        return self.transfer.to(x.dtype.to_complex())

    def forward(self, x: Tensor) -> Tensor:
        return self._filtered(x, self._transfer(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self._filtered(y, self._transfer(y).conj())

    def normal(self, x: Tensor) -> Tensor:
        return self._filtered(x, self._transfer(x).abs().square())

    def solve_normal(self, b: Tensor, weight: float) -> Tensor:
        """``b / (|k|^2 + weight)`` in the Fourier domain."""
        return self._filtered(b, 1 / (self._transfer(b).abs().square() + weight))


def gaussian_kernel(sigma: float, size: int | None = None) -> Tensor:
    """(size, size) Gaussian of standard deviation ``sigma`` pixels, sum 1; cut at four sigma by default."""
    size = size or 2 * math.ceil(4 * sigma) + 1
    distance = torch.arange(size, dtype=torch.float64) - size // 2
    line = torch.exp(-0.5 * (distance / sigma).square())
    return (torch.outer(line, line) / line.sum().square()).to(torch.get_default_dtype())
