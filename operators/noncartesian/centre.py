"""What the data of a trajectory say by themselves: coil images, the centre of Cartesian k-space, the noise level."""

from __future__ import annotations

import torch
from torch import Tensor

from ..coils import FEWEST_SAMPLES, in_blocks, noise_blocks
from ..errors import OperatorError
from ..fft import fft
from ..fourier import fft2c
from ..krylov import cg
from .density import sampled_share
from .mri import NonCartesianMRI

COVERED = 0.75  # least `sampled_share` of k-space that counts as fully sampled: between samples 1.2 / N apart
STEPS = 10  # of CG on weighted data, which is nearly solved by its adjoint where sampling is full
FILTER = 32  # one part in so many of the band, at its edge, where receivers roll off


def gridded_coils(
    kspace: Tensor, trajectory: Tensor, density: Tensor, shape: tuple[int, int], steps: int = STEPS
) -> Tensor:
    """``argmin ||sqrt(w) (F x - y)||`` of each coil by ``steps`` of CG from 0: (coils, samples) -> (coils, H, W) complex."""
    A = NonCartesianMRI(trajectory.to(kspace.real.dtype), density=density, shape=shape)
    weighted = density.to(kspace.real.dtype).sqrt() * kspace
    return cg(A.normal, A.adjoint(weighted[:, None]), steps=steps)[:, 0]


def gridded_centre(
    kspace: Tensor, trajectory: Tensor, density: Tensor, shape: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Cartesian k-space (coils, H, W), zero outside the `covered_centre`, and the mask (H, W) of that.

    It is the Fourier transform of `gridded_coils`: where the trajectory is dense the data alone decide it.
    """
    mask = covered_centre(trajectory, density, shape)
    return fft2c(gridded_coils(kspace, trajectory, density, shape)) * mask, mask


def covered_centre(trajectory: Tensor, density: Tensor, shape: tuple[int, int]) -> Tensor:
    """(H, W) bool: the largest square about the centre of k-space that the trajectory covers, see `sampled_share`."""
    height, width = shape
    covered = sampled_share(trajectory, density, shape) >= COVERED
    mask = torch.zeros_like(covered)
    for half in range(1, min(shape) // 2 + 1):
        box = (slice(height // 2 - half, height // 2 + half), slice(width // 2 - half, width // 2 + half))
        if not covered[box].all():
            break
        mask[box] = True
    return mask


def trajectory_noise_level(kspace: Tensor, trajectory: Tensor) -> float:
    """Standard deviation of the noise PER REAL COMPONENT of k-space (coils, readouts, samples), ``E|n|^2 = 2 sigma^2``.

    That of `trajectory_noise`.
    """
    return float(trajectory_noise(kspace, trajectory).abs().square().mean() / 2) ** 0.5


def trajectory_noise(kspace: Tensor, trajectory: Tensor) -> Tensor:
    """Samples (coils, n) of k-space (coils, readouts, samples) that hold noise alone, as far as can be told.

    As `coils.noise_level`: of two places the quieter one, in each the blocks that agree with the quietest. The
    places are the samples farthest from the centre of k-space, and the outermost frequencies along a readout.
    An object of N pixels gives a readout of step dk cycles per pixel no frequency above ``N |dk| / 2`` cycles per
    sample, so an oversampled readout has a band of noise alone. A Blackman-Harris window keeps the ends of a
    readout from leaking there. ``trajectory`` (readouts, samples, 2). Raises `OperatorError` for too few samples.
    """
    coils, _, samples = kspace.shape
    if kspace[0].numel() < FEWEST_SAMPLES:
        raise OperatorError(
            f"There are only {kspace[0].numel()} samples of each coil.",
            f"The noise level is estimated from at least {FEWEST_SAMPLES}.",
            "Give the noise level.",
        )
    order = trajectory.norm(dim=-1).flatten().argsort(descending=True)
    places = [kspace.flatten(1)[:, order]]
    if samples >= FEWEST_SAMPLES:
        window = blackman_harris(samples).to(kspace.real)
        band = fft(window * kspace) / window.norm()
        frequency = torch.fft.fftfreq(samples, device=kspace.device).abs()
        outermost = frequency.argsort(descending=True)
        outermost = outermost[frequency[outermost] <= 0.5 - 0.5 / FILTER]
        places.append(band[..., outermost].movedim(2, 1).reshape(coils, -1))
    found = [noise_blocks(in_blocks(place)) for place in places]
    return min(found, key=lambda noise: float(noise.abs().square().mean())).mT


def blackman_harris(n: int) -> Tensor:
    """The window of four terms, with side lobes of -92 dB. Source: Harris, Proc. IEEE 66:51 (1978)."""
    t = 2 * torch.pi * (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return 0.35875 - 0.48829 * t.cos() + 0.14128 * (2 * t).cos() - 0.01168 * (3 * t).cos()
