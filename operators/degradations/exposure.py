"""Nonlinear blur: light is blurred, the picture holds its response curve."""

from __future__ import annotations

import torch
from torch import Tensor

from ..base import Operator
from ..fourier import Blur

TOE, SLOPE, OFFSET, POWER = 0.04045, 12.92, 0.055, 2.4  # of IEC 61966-2-1, sRGB


class NonlinearBlur(Operator):
    """``y = g(k * g^-1(x))``: the light is blurred (`Blur`, circular), g the camera's response, that of sRGB.

    g is linear near 0 and a power of 1 / 2.4 above, and continued oddly below 0, so that it is once continuously
    differentiable but for the standard's own rounding where the two meet. Not linear; the derivative is exact. Bright
    points blur into wide ones, dark points vanish: a linear blur of the picture does not explain it. Domain and
    codomain (C, H, W), real, images of 0 to 1. Raises `OperatorError` as `Blur` does.
    Source: Tai et al., Nonlinear Camera Response Functions and Image Deblurring, TPAMI 2013.
    """

    lipschitz = 1.5  # of pictures, not of any x: measured .9 to 1.3 on photographs

    def __init__(self, kernel: Tensor, domain: tuple[int, int, int]):
        self.blur = Blur(kernel, domain)
        self.domain = self.blur.domain

    def forward(self, x: Tensor) -> Tensor:
        return response(self.blur.forward(light(x)))


def light(x: Tensor) -> Tensor:
    """``g^-1``: the light of sRGB values, odd in x."""
    size = x.abs()
    power = ((size.clamp_min(TOE) + OFFSET) / (1 + OFFSET)) ** POWER
    return torch.where(size <= TOE, x / SLOPE, torch.sign(x) * power)


def response(light: Tensor) -> Tensor:
    """``g``: the sRGB values of light, odd in it."""
    size = light.abs()
    power = (1 + OFFSET) * size.clamp_min(TOE / SLOPE) ** (1 / POWER) - OFFSET
    return torch.where(size <= TOE / SLOPE, SLOPE * light, torch.sign(light) * power)
