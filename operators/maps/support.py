"""Where in an image there is an object: without holes, and with a margin at its rim."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import binary_fill_holes, distance_transform_edt
from torch import Tensor

GAP = 0.05  # of the field of view: narrower gaps and notches are taken for object


def solid(found: Tensor, margin: tuple[float, float]) -> Tensor:
    """The object of which ``found`` (H, W) bool shows parts: (H, W) bool; all of the image where nothing is found.

    Gaps are closed, holes filled, and a ``margin``, in pixels along rows and columns, is put around. An object fills its
    outline: what emits no signal inside, air or bone, cannot be told from what a reconstruction has lost.
    """
    mask = found.cpu().numpy()
    if not mask.any():
        return torch.ones_like(found, dtype=torch.bool)
    reach = GAP * max(mask.shape)
    mask = binary_fill_holes(~grown(~grown(mask, reach), reach))
    mask = grown(mask, 1.0, tuple(1 / max(pixels, 0.5) for pixels in margin))
    return torch.from_numpy(mask).to(found.device)


def grown(mask: np.ndarray, reach: float, spacing: tuple[float, ...] = (1.0, 1.0)) -> np.ndarray:
    """The pixels (H, W) within ``reach`` of the mask; ``spacing`` of pixels along rows and columns."""
    if not mask.any():
        return mask
    return np.asarray(distance_transform_edt(~mask, sampling=spacing)) <= reach
