"""Preconditioning: a denoiser ``D(x, sigma)`` made of a network whose inputs and targets have unit variance."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Preconditioned(nn.Module):
    """``D(x, s) = c_skip x + c_out F(c_in x; ln(s) / 4)`` (Karras et al. 2022, table 1).

    ``c_skip = d^2/(s^2 + d^2)``, ``c_out = s d / sqrt(s^2 + d^2)``, ``c_in = 1 / sqrt(s^2 + d^2)``,
    d = ``sigma_data`` the standard deviation of the data per real channel. x (B, C, H, W) real; s a float, or (B,) with
    one level a row. The denoiser is meant for s from ``sigma_min`` to ``sigma_max``.
    A float goes through the network's embedding as one row for all: products of matrices round differently for
    different numbers of rows, and an image would depend on how many go through together.
    """

    def __init__(self, network: nn.Module, sigma_data: float, sigma_min: float, sigma_max: float):
        super().__init__()
        self.network = network
        self.sigma_data, self.sigma_min, self.sigma_max = sigma_data, sigma_min, sigma_max

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``c_skip``, ``c_out`` and ``c_in``, each of the shape of ``sigma``."""
        variance = sigma**2 + self.sigma_data**2
        return self.sigma_data**2 / variance, sigma * self.sigma_data / variance.sqrt(), variance.rsqrt()

    def raw(self, x: Tensor, sigma: Tensor, c_in: Tensor) -> Tensor:
        """``F(c_in x; ln(sigma) / 4)`` (B, C, H, W), for sigma and c_in (B, 1, 1, 1)."""
        channels_last = dict(memory_format=torch.channels_last)
        return self.network((c_in * x).contiguous(**channels_last), sigma.flatten().log() / 4)

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """The denoised image D(x, sigma), of the shape of x."""
        sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).view(-1, 1, 1, 1)
        c_skip, c_out, c_in = self.coefficients(sigma)
        return c_skip * x + c_out * self.raw(x, sigma, c_in)

    def loss(self, clean: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
        """Mean squared error of F against its unit-variance target, per image: (B,). ``noise`` has unit variance."""
        sigma = sigma.view(-1, 1, 1, 1)
        x = clean + sigma * noise
        c_skip, c_out, c_in = self.coefficients(sigma)
        target = (clean - c_skip * x) / c_out
        return (self.raw(x, sigma, c_in) - target).square().flatten(1).mean(1)
