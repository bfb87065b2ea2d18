"""Arrays as tensors, the middle of an image, and k-space of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def center_crop(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The central (h, w) of (..., H, W): position H//2 becomes h//2."""
    top, left = (n // 2 - m // 2 for n, m in zip(image.shape[-2:], size, strict=True))
    return image[..., top : top + size[0], left : left + size[1]]


def crop_readout(kspace: Tensor, height: int) -> Tensor:
    """k-space (..., height, W) of the central ``height`` rows of the image of k-space (..., H, W).

    This removes readout oversampling. The readout is fully sampled, so only rows are lost that the header
    crops away anyway, and white noise stays white. Not for masks (H, W) that leave out samples of a readout.
    """
    rows = torch.fft.ifft(torch.fft.ifftshift(kspace, dim=-2), dim=-2, norm="ortho")
    rows = center_crop(torch.fft.fftshift(rows, dim=-2), (height, kspace.shape[-1]))
    return torch.fft.fftshift(torch.fft.fft(torch.fft.ifftshift(rows, dim=-2), dim=-2, norm="ortho"), dim=-2)


def as_tensor(array: np.ndarray, dtype: Any) -> Tensor:
    """A contiguous tensor of that dtype; always a copy."""
    return torch.from_numpy(np.array(array, dtype=dtype, order="C"))
