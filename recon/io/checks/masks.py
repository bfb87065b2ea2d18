"""Sampling masks from a file: their values, and which axis they are of."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError
from ..stores import Store

CLOSE = 0.98  # share of a mask's samples that are not zero in the k-space it is of
APART = 0.1  # by how much less of a wrong one


def find_mask(store: Store, shape: tuple[int, ...]) -> Tensor | None:
    """The mask beside the k-space in a file, as `as_mask` checks it; None if there is none."""
    name = store.find("mask")
    return None if name is None else fetch_mask(store, name, shape)


def fetch_mask(store: Store, name: str, shape: tuple[int, ...], sampled: Tensor | None = None) -> Tensor:
    """The mask ``name`` of a file for k-space (slices, coils, H, W), not read before its size is known to fit; `as_mask`."""
    stored = store.entries()[name].shape
    if math.prod(stored) > math.prod(shape[2:]):
        raise wrong_mask(store.path, stored, shape[2:])
    return as_mask(store.fetch(name), shape[2:], store.path, sampled)


def wrong_mask(path: Path, found: tuple[int, ...], size: tuple[int, ...]) -> InputError:
    """The error for a mask of a shape that does not fit k-space of ``size`` (H, W)."""
    height, width = size
    turned = [n for n in found if n != 1] == [width, height] or found in ((width, 1), (1, height))
    return InputError(
        f"{path}: the mask has shape {found}, which does not fit k-space of {height} x {width}.",
        "A mask says for each phase line (W,), or for each sample (H, W), whether it was measured.",
        "It looks transposed: store mask.T."
        if turned
        else f"Give a mask of shape ({width},) or ({height}, {width}); ({height}, 1) where the rows are the phase lines.",
    )


def as_mask(array: np.ndarray, size: tuple[int, ...], path: Path, sampled: Tensor | None = None) -> Tensor:
    """A bool mask (W,) of columns, or (H, W), true where sampled; `oriented`.

    Raises `InputError` for another size, for values other than 0 and 1, and for a mask of zeros.
    """
    lean = oriented(array, size, path, sampled)
    if lean.dtype.kind not in "buif" or not np.isfinite(lean).all():
        raise InputError(
            f"{path}: the mask holds {lean.dtype} values that are not yes or no.",
            "A mask is true (1) where k-space was measured and false (0) elsewhere.",
            "Store it as bool.",
        )
    between = lean[(lean != 0) & (lean != 1)]
    if between.size:
        raise InputError(
            f"{path}: the mask holds other values than 0 and 1: {between[0]:.4g}, {between.size} in all.",
            "A sample was measured (1) or it was not (0); a density, or a blurred picture, does not say which.",
            "Decide where it was, and store that: np.save(path, mask > 0.5).",
        )
    mask = torch.from_numpy(np.array(lean != 0))
    if not mask.any():
        raise InputError(
            f"{path}: the mask keeps nothing.",
            "It is zero everywhere, so no sample is left.",
            "Give a mask that is true where k-space was measured.",
        )
    return mask


def oriented(
    array: np.ndarray, size: tuple[int, ...], path: Path, sampled: Tensor | None = None
) -> np.ndarray:
    """(W,) for a mask of columns, (H, W) for every other one; never transposed to fit.

    (W,), (1, W) and (H, W) are what they say, and (H,) and (H, 1) masks of rows. Where H = W, one axis among more than two
    is that of the lines which are not zero in ``sampled`` (H, W), so is that of (W,); else (W,) is of columns, as in
    fastMRI. Raises `InputError` for what fits neither, and where ``sampled`` was given and cannot tell.
    """
    height, width = size
    lean = array.reshape([n for n in array.shape if n != 1] or [1])
    if lean.shape == (height, width):
        return lean
    if lean.ndim != 1 or len(lean) not in size:
        raise wrong_mask(path, array.shape, size)
    n = len(lean)
    if array.ndim == 2:
        rows = array.shape[0] == n
        if n != (height if rows else width):
            raise wrong_mask(path, array.shape, size)
    elif height != width:
        rows = n == height
    else:
        found = None if sampled is None else lines_are_rows(lean != 0, sampled)
        if found is None and array.ndim > 2 and sampled is not None:
            raise InputError(
                f"{path}: a mask of shape {array.shape} may be one of rows or of columns.",
                f"k-space is {height} x {width}, and its own samples do not tell.",
                f"Store it as (1, {width}) for columns or ({height}, 1) for rows.",
            )
        rows = bool(found)
    return np.broadcast_to(lean[:, None], (height, width)) if rows else lean


def lines_are_rows(lines: np.ndarray, sampled: Tensor) -> bool | None:
    """Whether ``lines`` (n,) are rows or columns of ``sampled`` (n, n); None where that does not tell."""
    chosen = torch.from_numpy(np.array(lines))
    rows, columns = share_within(chosen[:, None], sampled), share_within(chosen[None], sampled)
    return None if abs(rows - columns) < APART else rows > columns


def share_within(mask: Tensor, sampled: Tensor) -> float:
    """The share of a mask's samples, of any shape that expands to (H, W), that are ``sampled`` (H, W)."""
    mask = mask.expand(sampled.shape)
    return int((mask & sampled).sum()) / max(int(mask.sum()), 1)


def settled_mask(
    path: Path, mask: Tensor, sampled: Tensor, shifted: tuple[int, ...]
) -> tuple[Tensor, list[str]]:
    """A mask given for k-space whose samples are ``sampled`` (H, W) as (H, W), and what is to be said of it.

    Its centre is moved from the corner to the middle where that of k-space was (``shifted``). Raises `InputError` for
    one that fits when it is transposed, and for one that was not fftshifted although k-space was.
    """
    mask, notes = mask.expand(sampled.shape), []
    corner = cornered(mask)
    if corner and share_within(torch.fft.fftshift(mask, corner), sampled) >= share_within(mask, sampled):
        if not set(corner) <= set(shifted):
            raise InputError(
                f"{path}: the fully sampled centre of the mask lies in the corner.",
                "That of k-space is in the middle: the mask was not fftshifted.",
                "Store np.fft.fftshift(mask).",
            )
        mask = torch.fft.fftshift(mask, corner)
        notes.append("The centre of the mask is moved from the corner to the middle, as that of k-space.")
    if mask.shape[0] == mask.shape[1]:
        turned = share_within(mask.mT, sampled)
        if turned >= CLOSE and turned > share_within(mask, sampled) + APART:
            raise InputError(
                f"{path}: the mask fits this k-space when it is transposed.",
                f"Only {share_within(mask, sampled):.0%} of its samples were measured, transposed {turned:.0%}.".replace(
                    "%", " %"
                ),
                "Store mask.T.",
            )
    fits = share_within(mask, sampled)
    if fits < CLOSE:
        notes.append(
            f"{1 - fits:.0%} of the mask's samples are zero in k-space, and left out.".replace("%", " %")
        )
    return mask, notes


def cornered(mask: Tensor) -> tuple[int, ...]:
    """The axes along which `torch.fft.fftshift` gives a mask (H, W) the fully sampled centre that it has not got."""
    if has_centre(mask):
        return ()
    for axes in ((-1,), (-2,), (-2, -1)):
        if has_centre(torch.fft.fftshift(mask, axes)):
            return axes
    return ()


def has_centre(mask: Tensor) -> bool:
    """Whether a block around the zero frequency is sampled fully."""
    (height, width), (tall, wide) = mask.shape, (max(2, n // 64) for n in mask.shape)
    top, left = height // 2 - tall, width // 2 - wide
    return bool(mask[max(top, 0) : height // 2 + tall, max(left, 0) : width // 2 + wide].all())
