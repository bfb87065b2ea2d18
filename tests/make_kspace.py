"""Small k-space files for the tests: a smooth complex object seen by smooth coils."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import torch

HEADER = """<?xml version="1.0" encoding="utf-8"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
  <encoding>
    <encodedSpace><matrixSize><x>{H}</x><y>{W}</y><z>1</z></matrixSize></encodedSpace>
    <reconSpace><matrixSize><x>{h}</x><y>{w}</y><z>1</z></matrixSize></reconSpace>
    <encodingLimits>
      <kspace_encoding_step_1>
        <minimum>0</minimum><maximum>{last}</maximum><center>{center}</center>
      </kspace_encoding_step_1>
    </encodingLimits>
  </encoding>
</ismrmrdHeader>
"""


def fft2c(x: np.ndarray) -> np.ndarray:
    x = np.fft.fft2(np.fft.ifftshift(x, axes=(-2, -1)), norm="ortho")
    return np.fft.fftshift(x, axes=(-2, -1))


def ifft2c(k: np.ndarray) -> np.ndarray:
    k = np.fft.ifft2(np.fft.ifftshift(k, axes=(-2, -1)), norm="ortho")
    return np.fft.fftshift(k, axes=(-2, -1))


def crop(x: np.ndarray, h: int, w: int) -> np.ndarray:
    top, left = x.shape[-2] // 2 - h // 2, x.shape[-1] // 2 - w // 2
    return x[..., top : top + h, left : left + w]


def coil_maps(coils: int, H: int, W: int) -> np.ndarray:
    """(coils, H, W) complex64, smooth, sum of squares 1."""
    y, x = np.mgrid[-1 : 1 : H * 1j, -1 : 1 : W * 1j]
    angle = 2 * np.pi * np.arange(coils)[:, None, None] / coils
    maps = np.exp(-((y - np.sin(angle)) ** 2 + (x - np.cos(angle)) ** 2) / 2 + 1j * (angle + x - y))
    return (maps / np.sqrt((np.abs(maps) ** 2).sum(0))).astype(np.complex64)


def objects(slices: int, H: int, W: int, h: int) -> np.ndarray:
    """(slices, H, W) complex64 within the central ``h`` rows, with magnitude up to 1."""
    y, x = np.mgrid[-H / h : H / h : H * 1j, -1 : 1 : W * 1j]
    images = []
    for s in range(slices):
        head = (x / 0.8) ** 2 + (y / 0.9) ** 2 < 1
        spot = np.exp(-8 * ((x - 0.3) ** 2 + (y + 0.1 * s) ** 2))
        images.append(head * (0.4 + 0.6 * spot) * np.exp(1j * (x * y + s)))
    return np.array(images, dtype=np.complex64)


def make_kspace(
    slices: int = 2,
    coils: int = 4,
    H: int = 32,
    W: int = 24,
    h: int | None = None,
    noise: float = 0.0,
    seed: int = 0,
) -> np.ndarray:
    """(slices, coils, H, W) complex64, centred and orthonormal; the object fills ``h`` of the H rows."""
    images = objects(slices, H, W, h or H)[:, None] * coil_maps(coils, H, W)
    rng = np.random.default_rng(seed)
    n = rng.standard_normal((2, *images.shape))
    return (fft2c(images) + noise * (n[0] + 1j * n[1])).astype(np.complex64)


def make_fastmri_file(
    path: str | Path,
    slices: int = 2,
    coils: int = 4,
    H: int = 32,
    W: int = 24,
    *,
    recon: tuple[int, int] | None = None,
    acquired: tuple[int, int] | None = None,
    single_coil: bool = False,
    with_target: bool = True,
    with_header: bool = True,
    with_mask: np.ndarray | None = None,
    with_maps: bool = False,
    noise: float = 0.0,
    scale: float = 1e-4,
    seed: int = 0,
    kspace: np.ndarray | None = None,
) -> Path:
    """Write a file in fastMRI's layout, as raw as a scanner's (values of about ``scale``).

    ``recon`` is the size in the header: (H // 2, W) is a twofold oversampled readout. ``acquired`` is
    a range of phase lines; the others are zero padding. ``with_mask`` (W,) makes a test file: its
    lines that are false are zero, and it has no target.
    """
    h, w = recon or (H, W)
    first, last = acquired or (0, W)
    if kspace is None:
        kspace = scale * make_kspace(slices, 1 if single_coil else coils, H, W, h, noise, seed)
        kspace[..., :first] = 0
        kspace[..., last:] = 0
    full = crop(ifft2c(kspace), h, w) if kspace.ndim >= 3 else kspace
    if with_mask is not None:
        kspace = kspace * (np.asarray(with_mask) != 0)
    with h5py.File(path, "w") as file:
        file["kspace"] = (kspace[:, 0] if single_coil else kspace).astype(np.complex64)
        if with_header:
            center = W // 2 - first
            file["ismrmrd_header"] = HEADER.format(
                H=H, W=W, h=h, w=w, last=last - first - 1, center=center
            ).encode()
        if with_target and with_mask is None:
            name = "reconstruction_esc" if single_coil else "reconstruction_rss"
            target = np.sqrt((np.abs(full) ** 2).sum(1)).astype(np.float32)
            file[name] = target
            file.attrs["max"], file.attrs["norm"] = target.max(), np.linalg.norm(target)
        if with_mask is not None:
            file["mask"] = np.asarray(with_mask)
        if with_maps:
            file["sensitivity_maps"] = np.repeat(coil_maps(kspace.shape[1], H, W)[None], len(kspace), 0)
        file.attrs["acquisition"] = "AXT2"
        file.attrs["patient_id"] = "0" * 8
    return Path(path)


HEAD = 48


def head() -> torch.Tensor:
    """A magnitude slice (48, 40): a bright ring around a darker inside with air in it."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, HEAD), torch.linspace(-1, 1, 40), indexing="ij")
    radius = torch.hypot(y / 0.8, x / 0.7)
    inside = (radius < 1).float() * (0.5 + 0.3 * torch.sin(7 * x) * torch.cos(5 * y))
    return inside + (radius - 0.9).abs().lt(0.08).float() - inside * (torch.hypot(y, x - 0.2) < 0.1)
