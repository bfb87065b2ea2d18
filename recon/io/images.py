"""Pictures and arrays read as images, pictures written, and files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, OutputError

PICTURES = (".png", ".jpg", ".jpeg")


def read_image(path: Path, measured: bool) -> Tensor:
    """A picture (H, W) in 0 to 1, colour as its luminance, or an array; a measurement (1, ...)."""
    if not path.is_file():
        raise InputError(f"{path} does not exist.", "There is no file of this name.", "Check the path.")
    suffix = path.suffix.lower()
    if suffix not in (".npy", *(() if measured else PICTURES)):
        wanted = ".npy" if measured else ", ".join((*PICTURES, ".npy"))
        raise InputError(
            f"{path} ends in {suffix or 'nothing'}.", f"What is read is {wanted}.", "Convert it."
        )
    try:
        if suffix == ".npy":
            array = np.load(path, allow_pickle=False)
        else:
            array = read_picture(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read.", f"It is damaged: {error}.", "Copy it again.") from error
    if array.dtype.kind not in "fciub" or not np.isfinite(array).all():
        raise InputError(f"{path} holds NaN, infinity or no numbers.", do="Write the file again.")
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    tensor = tensor.to(torch.complex64 if tensor.is_complex() else torch.float32)
    if measured:
        return tensor[None]
    if tensor.ndim == 3 and len(tensor) == 1:
        tensor = tensor[0]
    if tensor.ndim != 2:
        raise InputError(
            f"{path} has shape {tuple(tensor.shape)}.", "An image is (H, W).", "Take one slice of it."
        )
    return tensor


def read_picture(path: Path) -> np.ndarray:
    """(H, W) in 0 to 1; 16-bit gray keeps its depth."""
    from PIL import Image

    with Image.open(path) as picture:
        deep = picture.mode.startswith("I") or picture.mode == "F"
        array = np.asarray(picture if deep else picture.convert("L"), dtype=np.float32)
    return array / (65535 if deep else 255)


def save_picture(file: Any, image: Tensor) -> None:
    """Magnitude from black at 0 to white at the largest of 1 and its 99.9th percentile, 8 bits."""
    from PIL import Image

    gray = image.abs() if image.is_complex() else image
    top = max(1.0, float(torch.quantile(gray.flatten(), 0.999)))
    pixels = (gray / top * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    Image.fromarray(pixels).save(file, format="png")


def write_whole(path: Path, write: Callable[[Any], object]) -> None:
    """The file appears at once or not at all."""
    beside = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            write(file)
        os.replace(beside, path)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written.", f"{error.strerror or error}.", "Choose another --out."
        ) from error
    finally:
        beside.unlink(missing_ok=True)
