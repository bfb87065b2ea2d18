"""An operator of your own: a dataclass with forward. Adjoint, checks, solvers and samplers follow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from skimage.data import shepp_logan_phantom
from torch import Tensor

import operators as op
import recon
from recon.priors import Gaussian


@dataclass(frozen=True, eq=False)
class Convolve(op.Linear):
    otf: Tensor
    domain: tuple = (1, 100, 100)

    def forward(self, x):
        return torch.fft.ifft2(torch.fft.fft2(x) * self.otf).real


frequency = torch.fft.fftfreq(100)
lens = Convolve(torch.exp(-8 * (frequency[:, None] ** 2 + frequency**2)))
for law, measured in op.check(lens, dtype=torch.float64).items():
    print(f"{law:45s} {measured:.1e}")

image = torch.tensor(shepp_logan_phantom()[::4, ::4], dtype=torch.float32)[None, None]
photograph = lens(image) + 0.003 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
problem = recon.Problem(lens, photograph, sigma=0.003)
result = recon.sample(problem, Gaussian(torch.zeros(lens.domain), covariance=0.05), samples=8)

error, baseline = ((x - image).norm() / image.norm() for x in (result.mean, photograph))
print(f"error {error:.3f}, of the photograph {baseline:.3f}; standard deviation {result.std.mean():.3f}")
