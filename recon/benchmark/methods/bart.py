"""BART's wavelet reconstruction of multi-coil k-space, Cartesian or along a trajectory, run as the program ``bart``."""

from __future__ import annotations

import os
import subprocess
import tempfile

import numpy as np
import torch
from torch import Tensor

from operators.coils import rss
from operators.masks import calibration_region

from ...errors import ConfigError
from ...io import read_cfl, write_cfl

BART_LAMBDAS = (0.0001, 0.0003, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05)


def bart_maps(y: Tensor, sets: int = 1) -> Tensor:
    """``bart ecalib`` of k-space (coils, H, W): maps (sets, coils, H, W); of one coil ones.

    BART's kernel of 6 gives maps full of holes on few central lines, so it has at most half as many columns as there are
    lines, and at least 3. Raises `ConfigError` where BART fails.
    """
    if len(y) == 1:
        return torch.ones_like(y)[None]
    lines = calibration_region((y != 0).any(0))[1]
    width = min(6, max(3, (lines.stop - lines.start) // 2))
    with tempfile.TemporaryDirectory() as folder:
        k, maps = (os.path.join(folder, name) for name in ("k", "maps"))
        write_cfl(k, y.permute(1, 2, 0)[:, :, None].numpy())
        run_bart(["ecalib", f"-m{sets}", f"-k{width}", k, maps])
        found = torch.from_numpy(np.array(read_cfl(maps)))
    return found.reshape(*y.shape[1:], len(y), sets).permute(3, 2, 0, 1).contiguous()


def bart_wavelets(y: Tensor, weight: float, maps: Tensor) -> Tensor:
    """``bart pics -R W`` of k-space (coils, H, W) with maps (sets, coils, H, W): the magnitude (H, W).

    ``weight`` is the lambda of the l1 norm of the wavelet coefficients. Raises `ConfigError` where BART fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        k, m, image = (os.path.join(folder, name) for name in ("k", "maps", "image"))
        write_cfl(k, y.permute(1, 2, 0)[:, :, None].numpy())
        write_cfl(m, maps.permute(2, 3, 1, 0)[:, :, None].numpy())
        run_bart(["pics", "-S", "-e", "-i100", "-R", f"W:7:0:{weight}", k, m, image])
        sets = torch.from_numpy(np.array(read_cfl(image))).reshape(*y.shape[1:], len(maps))
    return rss(sets.permute(2, 0, 1))


CALIBRATION = 24  # samples of the gridded centre, to a side, that BART's maps are estimated from


def bart_maps_along(y: Tensor, trajectory: Tensor, size: int) -> Tensor:
    """``bart ecalib`` of the centre of k-space (coils, readouts, samples) gridded by ``bart nufft``: (1, coils, size, size).

    ``trajectory`` (readouts, samples, 2) in cycles per pixel. Raises `ConfigError` where BART fails.
    """
    low, full = f"{CALIBRATION}:{CALIBRATION}:1", ["0", str(size), "1", str(size)]
    with tempfile.TemporaryDirectory() as folder:
        t, k, images, centre, maps = (os.path.join(folder, name) for name in ("t", "k", "i", "c", "m"))
        write_along(t, k, y, trajectory, size)
        run_bart(["nufft", "-i", "-d", low, t, k, images])
        run_bart(["fft", "-u", "7", images, centre])
        run_bart(["resize", "-c", *full, centre, images])
        run_bart(["ecalib", "-m1", "-r", str(CALIBRATION), images, maps])
        found = torch.from_numpy(np.array(read_cfl(maps)))
    return found.reshape(size, size, len(y)).permute(2, 0, 1)[None].contiguous()


def bart_wavelets_along(y: Tensor, trajectory: Tensor, weight: float, maps: Tensor) -> Tensor:
    """``bart pics -R W -t`` of k-space (coils, readouts, samples) with maps (sets, coils, N, N): the magnitude (N, N).

    As `bart_wavelets`; trajectory (readouts, samples, 2) in cycles per pixel.
    """
    with tempfile.TemporaryDirectory() as folder:
        t, k, m, image = (os.path.join(folder, name) for name in ("t", "k", "m", "image"))
        write_along(t, k, y, trajectory, maps.shape[-1])
        write_cfl(m, maps.permute(2, 3, 1, 0)[:, :, None].numpy())
        run_bart(["pics", "-S", "-e", "-i100", "-R", f"W:3:0:{weight}", "-t", t, k, m, image])
        sets = torch.from_numpy(np.array(read_cfl(image))).reshape(*maps.shape[-2:], len(maps))
    return rss(sets.permute(2, 0, 1))


def write_along(t: str, k: str, y: Tensor, trajectory: Tensor, size: int) -> None:
    """BART's files of a trajectory (3, samples, readouts), in cycles per field of view, and of k-space along it."""
    points = torch.nn.functional.pad(size * trajectory, (0, 1)).permute(2, 1, 0)
    write_cfl(t, points.to(torch.complex64).numpy())
    write_cfl(k, y.permute(2, 1, 0)[None].numpy())


def run_bart(command: list[str]) -> None:
    """Run ``bart`` with these arguments; raises `ConfigError` where it fails."""
    done = subprocess.run(["bart", *command], capture_output=True, text=True, errors="replace")
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-300:]
        raise ConfigError(
            f"bart {command[0]} failed with exit code {done.returncode}.",
            said or "It gave no reason.",
            "Check the installation of BART.",
        )
