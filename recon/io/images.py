"""Pictures and arrays read as images, and pictures written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .arrays import NpyStore

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


def read_array(path: str | Path) -> Tensor:
    """The array in a .npy file as it is stored, or a picture as (H, W) float32 in 0 to 1, colour as its luminance.

    Raises `InputError` for a file that is missing, damaged, of another format, or not of numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist.", "There is no file of this name.", "Check the path.")
    suffix = path.suffix.lower()
    if suffix not in (".npy", *PICTURES):
        raise InputError(
            f"{path} ends in {suffix or 'nothing'}.",
            f"What is read is {', '.join((*PICTURES, '.npy'))}.",
            "Convert it to one of these.",
        )
    array = NpyStore(path).fetch("") if suffix == ".npy" else read_picture(path)
    if array.dtype.kind not in "fciub":
        raise InputError(
            f"{path} holds {array.dtype}, not numbers.",
            "An array is of bool, whole, real or complex numbers.",
            "Save it again with np.save(path, array.astype(np.float32)).",
        )
    if (
        array.dtype.kind == "u" and array.dtype.itemsize > 1
    ):  # torch computes with 8-bit unsigned numbers only
        array = array.astype(np.int64)
    return torch.from_numpy(np.array(array, order="C"))


def read_image(path: str | Path, measured: bool = False) -> Tensor:
    """An image (H, W), float32 or complex64, of a picture or an array; a measurement (1, ...).

    A measured picture has one channel, (1, 1, H, W); a measured array is taken as it is. Raises
    `InputError` for what `read_array` refuses, for NaN and infinity, and for an image of other axes.
    """
    tensor = read_array(path)
    tensor = tensor.to(torch.complex64 if tensor.is_complex() else torch.float32)
    if not torch.isfinite(tensor).all():
        raise InputError(
            f"{path} holds NaN or infinity.",
            "One such value spoils the whole image.",
            "Write the file again.",
        )
    if measured:
        return tensor[None, None] if Path(path).suffix.lower() in PICTURES else tensor[None]
    if tensor.ndim == 3 and len(tensor) == 1:
        tensor = tensor[0]
    if tensor.ndim != 2 or tensor.numel() == 0:
        raise InputError(
            f"{path} has shape {tuple(tensor.shape)}.", "An image is (H, W).", "Take one slice of it."
        )
    return tensor


def read_picture(path: str | Path) -> np.ndarray:
    """(H, W) float32 in 0 to 1; 16-bit gray keeps its depth, and a picture of floats its values.

    Raises `InputError` for what is no picture, damaged, larger than Pillow's limit, or a stack of several.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            pages = getattr(picture, "n_frames", 1) if picture.format == "TIFF" else 1
            deep = picture.mode.startswith("I") or picture.mode == "F"
            array = np.asarray(picture if deep else picture.convert("L"), dtype=np.float32)
            top = {"F": 1, "I": 65535}.get(picture.mode[0], 255)
    except Exception as error:  # a decoder raises what it likes on a damaged file
        raise InputError(
            f"{path} cannot be read as a picture.",
            f"It is damaged: {error}.",
            "Copy it again, or convert it.",
        ) from error
    if pages > 1:
        raise InputError(f"{path} holds {pages} pictures.", "Only one can be read.", "Save the one you mean.")
    return array / top


def save_picture(file: Any, image: Tensor) -> None:
    """Magnitude from black at 0 to white at the largest of 1 and its 99.9th percentile, 8 bits."""
    from PIL import Image

    gray = image.abs() if image.is_complex() else image
    top = max(1.0, float(torch.quantile(gray.flatten(), 0.999)))
    pixels = (gray / top * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    Image.fromarray(pixels).save(file, format="png")
