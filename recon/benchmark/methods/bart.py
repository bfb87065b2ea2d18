"""BART's wavelet reconstruction of multi-coil k-space, run as the program ``bart``."""

from __future__ import annotations

import os
import subprocess
import tempfile

import numpy as np
import torch
from torch import Tensor

from ...errors import ConfigError
from ...io import read_cfl, write_cfl

BART_LAMBDAS = (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03)


def bart_wavelets(y: Tensor, weight: float) -> Tensor:
    """``bart ecalib`` and ``bart pics -R W`` of k-space (coils, H, W): the magnitude (H, W).

    ``weight`` is the lambda of the l1 norm of the wavelet coefficients. Raises `ConfigError` where BART fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        k, maps, image = (os.path.join(folder, name) for name in ("k", "maps", "image"))
        write_cfl(k, y.permute(1, 2, 0)[:, :, None].numpy())
        for command in (
            ["bart", "ecalib", "-m1", k, maps],
            ["bart", "pics", "-S", "-e", "-i100", "-R", f"W:7:0:{weight}", k, maps, image],
        ):
            done = subprocess.run(command, capture_output=True, text=True, errors="replace")
            if done.returncode:
                said = " ".join((done.stderr or done.stdout).split())[-300:]
                raise ConfigError(
                    f"bart {command[1]} failed with exit code {done.returncode}.",
                    said or "It gave no reason.",
                    "Check the installation of BART.",
                )
        return torch.from_numpy(np.abs(read_cfl(image)).reshape(y.shape[-2:]))
