"""The real scan that ``recon bench mri`` and ``recon bench curve`` measure, and how it is undersampled."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from operators.masks import make_mask

from ...errors import ConfigError

Say = Callable[[str], object]
FOLDER, NAME = "mri/kspace", "real_brain_mprage_4ch.h5"


@dataclass(frozen=True)
class Case:
    """One undersampling of the scan: a mask name with its acceleration and the fully sampled share of the width."""

    name: str
    mask: str
    accel: float
    center: float

    def make_mask(self, kspace: Tensor, seed: str) -> Tensor:
        """The mask (H, W), bool, of k-space (coils, H, W), seeded by the name of its file."""
        return make_mask(self.mask, (kspace.shape[-2], kspace.shape[-1]), self.accel, self.center, seed)


CASES = {
    case.name: case
    for case in (
        Case("4x equispaced", "equispaced-fraction", 4, 0.08),
        Case("4x random", "random", 4, 0.08),
        Case("8x equispaced", "equispaced-fraction", 8, 0.04),
    )
}


def find_scan(data: str | Path | None) -> Path:
    """The scan below the folder ``data``, by default $RECON_SHARED_DATA or ../shared/data; raises `ConfigError`."""
    return find_file(shared_folder(data), f"{FOLDER}/{NAME}", NAME)


def shared_folder(data: str | Path | None) -> Path:
    """The folder of the data: ``data``, else $RECON_SHARED_DATA, else ../shared/data."""
    return Path(data or os.environ.get("RECON_SHARED_DATA") or "../shared/data")


def find_file(folder: Path, *names: str) -> Path:
    """The first of these files that exists below ``folder``; raises `ConfigError`."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(
        f"{folder} holds none of {', '.join(names)}.",
        "The measurement needs that file.",
        "Name the folder with --data, or set RECON_SHARED_DATA.",
    )
