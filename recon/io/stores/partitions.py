"""k-space of a volume, with two phase encodings, as k-space of its slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import fft

from ...errors import InputError


def planes_of_volume(kspace: np.ndarray, sampled: np.ndarray, path: Path) -> np.ndarray:
    """(P, coils, ...) -> the same shape: the centred orthonormal inverse Fourier transform along the partitions, in place.

    ``sampled`` (P, ...) bool: which samples of a partition were measured, of any shape per partition. Each slice then has
    white noise of the same level, and the samples of one partition. Partitions missing at either end of the range,
    beyond its centre, are zero: a lower resolution there. Raises `InputError` where others are missing, or where
    partitions were sampled differently: then no slice has a k-space of its own.
    """
    measured = sampled.reshape(len(sampled), -1)
    used = np.flatnonzero(measured.any(1))
    whole = used.size and used[-1] - used[0] + 1 == used.size and used[0] <= len(sampled) // 2 <= used[-1]
    alike = bool((measured[used] == measured[used[:1]]).all())
    if not whole or not alike:
        raise InputError(
            f"{path} is a volume with two phase encodings that are undersampled together.",
            f"Of {len(sampled)} partitions {used.size} were measured"
            + (
                ", not one after another around the middle."
                if alike
                else ", and not all with the same lines."
            )
            + " Slices can be taken apart only where each line was measured in every partition.",
            "Use a scan that is undersampled along one phase encoding only.",
        )
    for part in np.moveaxis(kspace, 1, 0):  # one after another, for the memory
        part[:] = fft.fftshift(fft.ifft(fft.ifftshift(part, axes=0), axis=0, norm="ortho"), axes=0)
    return kspace
