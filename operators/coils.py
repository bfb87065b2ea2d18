"""Receive coils: root sum of squares, compression, noise (level, covariance, whitening), simulation."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.fft import ifftshift

from .errors import OperatorError
from .fft import ifft


def rss(x: Tensor, dim: int = -3) -> Tensor:
    """``sqrt(sum_c |x_c|^2)`` over the coil axis: (..., coils, H, W) -> (..., H, W), real."""
    return x.abs().square().sum(dim).sqrt()


def compress(kspace: Tensor, n: int | None = None, energy: float | None = None) -> tuple[Tensor, Tensor]:
    """Virtual coils ``Q k`` that keep the most energy: (..., coils, H, W) -> (..., n, H, W) and Q (n, coils).

    ``Q`` is `compression` of the coils' energy in all slices given. Give ``n``, or the part of the ``energy`` to keep
    (for instance .99). Raises `OperatorError` where neither or both are given, or n is not in 1..coils.
    """
    if (n is None) == (energy is None):
        raise OperatorError("Coil compression takes either n or energy.", do="Pass n=8, or energy=.99.")
    matrix = compression(coil_energy(kspace), n, energy).to(kspace.dtype)
    return mix(matrix, kspace), matrix


def coil_energy(kspace: Tensor) -> Tensor:
    """``sum k k^H`` (coils, coils) complex128 over all samples of k-space (..., coils, H, W); slices add up."""
    samples = by_coil(kspace).to(torch.complex128)
    return samples @ samples.mH


def compression(energy: Tensor, n: int | None = None, part: float | None = None) -> Tensor:
    """``Q`` (n, coils) complex: the n strongest eigenvectors of the coils' ``energy`` (coils, coils), as rows.

    They are the first left singular vectors of the (coils x samples) matrix, strongest first, orthonormal: white noise
    stays white, and all n = coils of them are unitary. ``part`` of the energy to keep instead of ``n``. Raises
    `OperatorError` where n is not in 1..coils. Source: Buehrer et al., MRM 57:1131 (2007).
    """
    coils = len(energy)
    energy = energy.to(torch.complex128)
    energy = energy / energy.diagonal().abs().amax().clamp(min=torch.finfo(torch.float64).tiny)
    power, vectors = torch.linalg.eigh(energy)
    if part is not None:
        kept = power.flip(0).clamp(min=0).cumsum(0)
        n = min(int((kept < part * kept[-1]).sum()) + 1, coils)
    if n is None or not 1 <= n <= coils:
        raise OperatorError(f"Cannot compress {coils} coils to {n}.", do=f"Use 1 to {coils}.")
    return vectors.flip(1)[:, :n].mH.contiguous()


def whiten(kspace: Tensor, covariance: Tensor) -> Tensor:
    """`whitening` of k-space (..., coils, H, W): noise of standard deviation 1 per real component, independent.

    ``covariance`` (coils, coils) is ``E[n n^H]``, see `noise_covariance`. Maps for whitened data are estimated from
    whitened data. Raises `OperatorError` where it is not positive definite.
    """
    return mix(whitening(covariance).to(kspace.dtype), kspace)


def whitening(covariance: Tensor) -> Tensor:
    """``sqrt(2) L^-1`` (coils, coils) complex128 with ``L L^H = covariance`` of the noise (Cholesky).

    Raises `OperatorError` where it is not positive definite. Source: Hansen & Kellman, JMRI 41:573 (2015).
    """
    factor, failed = torch.linalg.cholesky_ex(covariance.to(torch.complex128))
    if failed:
        raise OperatorError(
            "The noise covariance is not positive definite.",
            "A coil without noise, or fewer noise samples than coils, leaves nothing to divide by.",
            "Use a longer noise scan, or drop the empty coil.",
        )
    eye = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
    return math.sqrt(2) * torch.linalg.solve_triangular(factor, eye, upper=False)


def noise_covariance(samples: Tensor, mask: Tensor | None = None, scan: bool = False) -> Tensor:
    """``E[n n^H]`` (coils, coils), complex; its diagonal is twice the variance per real component.

    ``scan=True``: ``samples`` (..., coils, H, W) is a noise scan, used whole. Otherwise it is k-space
    and the covariance is taken over what `noise_level` finds to be noise alone: first with the coils as they are, then
    whitened by what was found, so that a coil of much noise does not hide the others' signal.
    """
    if scan:
        return covariance_of(by_coil(samples))
    kspace = samples.reshape(-1, *samples.shape[-3:])
    found = covariance_of(quietest(kspace, mask).mT)
    for _ in range(LOOKS):
        factor, failed = torch.linalg.cholesky_ex(found)
        if failed:
            break
        white = torch.linalg.solve_triangular(factor, by_coil(kspace), upper=False)
        white = white.unflatten(1, (len(kspace), *kspace.shape[-2:])).movedim(0, 1)
        found = factor @ covariance_of(quietest(white, mask).mT) @ factor.mH
    return found


LOOKS = 2  # at whitened k-space, for its noise


def covariance_of(noise: Tensor) -> Tensor:
    """``E[n n^H]`` (coils, coils) of samples (coils, n) of noise."""
    return noise @ noise.mH / noise.shape[1]


def noise_level(kspace: Tensor, mask: Tensor | None = None) -> Tensor:
    """Standard deviation of the noise PER REAL COMPONENT of k-space (..., coils, H, W): (...).

    ``E|n|^2 = 2 sigma^2``, all coils alike. Samples that were not measured (``mask`` (H, W); without
    one: zero in all coils) are left out. Two places are looked at where there is little but noise:
    the outer k-space, and, where an axis is sampled whole, the empty space around the object after
    a transform along that axis. Both are cut into small blocks whose mean power under noise alone is
    known to within ``1/sqrt(samples)``; starting from the quietest blocks, all within 1.5 such
    deviations are averaged until that set no longer changes. Anatomy can only add power, so the
    smaller of the two is the estimate; with a 2-D mask there is only the first, an upper bound
    where the signal has not faded at the edge of k-space.
    """
    flat = kspace.reshape(-1, *kspace.shape[-3:])
    levels = [(quietest(one[None], mask).abs().square().mean() / 2).sqrt() for one in flat]
    return torch.stack(levels).reshape(kspace.shape[:-3])


FEWEST_SAMPLES = 32  # samples of each coil whose mean power is compared


def quietest(kspace: Tensor, mask: Tensor | None) -> Tensor:
    """Samples (n, coils) of (B, coils, H, W) that hold noise alone, as far as can be told."""
    found = [noise_blocks(blocks) for blocks in candidates(kspace, mask)]
    return min(found, key=lambda noise: float(noise.abs().square().mean()))


def noise_blocks(blocks: Tensor) -> Tensor:
    """Samples of those blocks (n, size, coils) whose mean power agrees with the quietest ones'."""
    _, size, coils = blocks.shape
    power = blocks.abs().square().mean((1, 2))
    # Coils share noise, so they count for half of their number.
    spread = 1.5 / math.sqrt(size * max(1.0, coils / 2))
    level = power.quantile(0.03)
    for _ in range(30):
        level = power[power <= level * (1 + spread)].mean()
    return blocks[power <= level * (1 + spread)].flatten(0, 1)


def candidates(kspace: Tensor, mask: Tensor | None) -> list[Tensor]:
    """Samples of (B, coils, H, W) in blocks (n, size, coils): by radius in k-space, and, for each axis
    that is sampled whole, by place along that axis and distance along the other."""
    measured = (kspace != 0).flatten(0, 1).any(0)
    if mask is not None:
        measured = measured & (mask != 0).to(measured.device).expand(measured.shape)
    if measured.sum() < FEWEST_SAMPLES:
        raise OperatorError(
            f"Only {int(measured.sum())} samples of k-space are measured and not zero.",
            f"The noise level is estimated from at least {FEWEST_SAMPLES}.",
            "Pass the noise level, or check that this slice was measured.",
        )
    rows, columns = (measured.any(1 - axis).nonzero()[:, 0] for axis in (0, 1))
    box = (..., slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    offset = [
        torch.arange(n, device=kspace.device)[cut].sub(n // 2).abs() / (n / 2)
        for n, cut in zip(measured.shape, box[1:], strict=True)
    ]
    kspace, measured = kspace[box], measured[box]
    radius = torch.hypot(offset[0][:, None], offset[1][None])
    outermost = radius[measured].argsort(descending=True)
    found = [in_blocks(kspace[..., measured][..., outermost])]
    for axis in (-2, -1):
        lines = measured.any(axis)
        if torch.equal(measured.all(axis), lines) and measured.shape[axis] >= FEWEST_SAMPLES:
            image = ifft(ifftshift(kspace, dim=axis), dim=axis, norm="ortho")  # the edge in the middle
            n = image.shape[axis]
            # Receiver filters roll off at the edge of the field of view: the noise there is too low.
            image = image.roll(n // 2, axis).narrow(axis, n // 32, n - 2 * (n // 32))
            ordered = offset[-1 - axis][lines].argsort(descending=True)
            found.append(in_blocks(image.movedim(axis, 2)[..., lines][..., ordered].movedim(2, 1)))
    return found


def in_blocks(samples: Tensor) -> Tensor:
    """(..., coils, n) -> (blocks, size, coils): neighbours along the last axis, a short rest left out."""
    size = min(FEWEST_SAMPLES, samples.shape[-1])
    return samples.unfold(-1, size, size).movedim(-3, -1).flatten(0, -3)


def by_coil(kspace: Tensor) -> Tensor:
    """(..., coils, H, W) -> (coils, samples)."""
    return kspace.movedim(-3, 0).flatten(1)


def mix(matrix: Tensor, kspace: Tensor) -> Tensor:
    """Coils combined by a matrix (n, coils)."""
    return torch.einsum("nc,...chw->...nhw", matrix, kspace)


def simulate_coils(coils: int, shape: tuple[int, int], segments: int = 48, start: float = 0.0) -> Tensor:
    """Receive sensitivities (coils, H, W) complex64 of circular loops in a ring around the image.

    Biot-Savart, ``B(r) = sum dl x (r - l) / |r - l|^3`` over the wire, and reception ``B_x - i B_y``
    in the plane z = 0. The ring has 1.9 times the half field of view as its radius, and neighbours
    overlap as in a phased array; the first stands at the angle ``start``. Scaled so that the largest root sum of
    squares is 1.
    Source: Roemer et al., MRM 16:192 (1990).
    """
    if coils < 1:
        raise OperatorError(f"Cannot simulate {coils} coils.", do="Use 1 or more.")
    kind = torch.float64
    y, x = (2 * (torch.arange(n, dtype=kind) - n // 2) / n for n in shape)
    ring = 1.9
    loop = min(0.9, max(0.6, 1.2 * ring * math.sin(math.pi / max(coils, 3))))
    turn = 2 * math.pi / segments * (torch.arange(segments, dtype=kind) + 0.5)
    maps = []
    for c in range(coils):
        angle = start + 2 * math.pi * c / coils
        out, along = (math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))
        # The wire, ring * out + loop * (cos t * along + sin t * z), and its tangent; z = sin t.
        wire = [ring * o + loop * turn.cos() * a for o, a in zip(out, along, strict=True)]
        tangent = [-turn.sin() * a for a in along]
        dx = x[None, :, None] - wire[0]
        dy = y[:, None, None] - wire[1]
        dz = -loop * turn.sin()
        cubed = (dx.square() + dy.square() + dz.square()).pow(-1.5)
        field_x = ((tangent[1] * dz - turn.cos() * dy) * cubed).sum(-1)
        field_y = ((turn.cos() * dx - tangent[0] * dz) * cubed).sum(-1)
        maps.append(torch.complex(field_x, -field_y))
    stacked = torch.stack(maps)
    return (stacked / rss(stacked).max()).to(torch.complex64)
