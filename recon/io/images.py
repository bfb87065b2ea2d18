"""Pictures and arrays read as images, and pictures written."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .stores import NpyStore, NpzStore

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
STACK = "images"  # the name of a stack of slices in an npz file


COLOUR_CHANNELS = 3


def read_array(path: str | Path, colour: bool = False) -> Tensor:
    """The array in a .npy file as it is stored, or a picture as (H, W) float32 in 0 to 1.

    One with colours is its luminance, or with ``colour`` (3, H, W).

    Raises `InputError` for a file that is missing, damaged, of another format, or not of numbers.
    """
    path = require_file(path)
    suffix = path.suffix.lower()
    if suffix not in (".npy", *PICTURES):
        raise InputError(
            f"{path} ends in {suffix or 'nothing'}.",
            f"What is read is {', '.join((*PICTURES, '.npy'))}.",
            "Convert it to one of these.",
        )
    if suffix == ".npy":
        array = NpyStore(path).fetch("")
    else:
        array = read_picture(path, colour)
        array = array[0] if colour and (array == array[:1]).all() else array
    if array.dtype.kind not in "fciub":
        raise InputError(
            f"{path} holds {array.dtype}, not numbers.",
            "An array is of bool, whole, real or complex numbers.",
            "Save it again with np.save(path, array.astype(np.float32)).",
        )
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)  # torch computes with 8-bit unsigned numbers only
    return torch.from_numpy(np.array(array, order="C"))


def read_image(path: str | Path, measured: bool = False, colour: bool = False) -> Tensor:
    """An image (H, W), float32 or complex64, of a picture or an array; a measurement (1, ...).

    With ``colour`` a real image of three channels is (3, H, W), else a picture's luminance is taken, and an array
    refused. A measured picture is (1, channels, H, W); a measured array is taken as it is. Raises `InputError` for what
    `read_array` refuses, for NaN and infinity, and for an image of other axes.
    """
    tensor = read_array(path, colour)
    tensor = tensor.to(torch.complex64 if tensor.is_complex() else torch.float32)
    if not torch.isfinite(tensor).all():
        raise InputError(
            f"{path} holds NaN or infinity.",
            "One such value spoils the whole image.",
            "Write the file again.",
        )
    if measured:
        gray_picture = Path(path).suffix.lower() in PICTURES and tensor.ndim == 2
        return tensor[None, None] if gray_picture else tensor[None]
    if colour and tensor.ndim == 3 and len(tensor) == COLOUR_CHANNELS and not tensor.is_complex():
        return tensor
    if tensor.ndim == 3 and len(tensor) == 1:
        tensor = tensor[0]
    if tensor.ndim != 2 or tensor.numel() == 0:
        raise InputError(
            f"{path} has shape {tuple(tensor.shape)}.",
            "An image is (H, W), or in colour (3, H, W) and real.",
            "Take one slice of it, or put the colours first.",
        )
    return tensor


def read_picture(path: str | Path, colour: bool = False) -> np.ndarray:
    """(H, W) float32 in 0 to 1, or (3, H, W) in ``colour``; 16-bit gray keeps its depth, a picture of floats its values.

    Raises `InputError` for a file that is not a picture, is damaged, is larger than Pillow's limit, or holds
    several pictures.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:
            pages = getattr(picture, "n_frames", 1) if picture.format == "TIFF" else 1
            deep = picture.mode.startswith("I") or picture.mode == "F"
            kept = picture if deep else picture.convert("RGB" if colour else "L")
            array = np.asarray(kept, dtype=np.float32)
            top = {"F": 1, "I": 65535}.get(picture.mode[0], 255)
    except Exception as error:  # a decoder raises what it likes on a damaged file
        raise InputError(
            f"{path} cannot be read as a picture.",
            f"It is damaged: {error}.",
            "Copy it again, or convert it.",
        ) from error
    if pages > 1:
        raise InputError(f"{path} holds {pages} pictures.", "Only one can be read.", "Save the one you mean.")
    if colour:
        array = np.moveaxis(array, -1, 0) if array.ndim == 3 else np.stack([array] * 3)
    return array / top


def read_stack(path: str | Path, index: int | None = None) -> Tensor:
    """The stack of slices ``images`` of an npz file, float32 (slices, H, W), or its slice ``index`` (H, W) alone.

    Raises `InputError` as `stack_shape` does, and for NaN and infinity.
    """
    stack_shape(path)
    images = torch.from_numpy(NpzStore(Path(path)).fetch(STACK, index).astype(np.float32))
    if not torch.isfinite(images).all():
        raise InputError(
            f"{path}: {'the stack' if index is None else f'slice {index}'} of {STACK} holds NaN or infinity.",
            "One such value spoils the whole image.",
            "Write the file again, or leave the slice out.",
        )
    return images


def stack_shape(path: str | Path) -> tuple[int, int, int]:
    """(slices, H, W) of the stack ``images`` of an npz file, which is not read.

    Raises `InputError` for a file that is missing or damaged, and for one without such a stack of real images.
    """
    store = NpzStore(require_file(path))
    entries = store.entries()
    if STACK not in entries:
        raise InputError(
            f"{path} has no array `{STACK}`.",
            f"It holds: {store.contents()}.",
            f"Save the slices with np.savez(path, {STACK}=...).",
        )
    shape, dtype = entries[STACK].shape, entries[STACK].dtype
    if len(shape) != 3 or dtype.kind not in "fiu" or 0 in shape:
        raise InputError(
            f"{path}: {STACK} are {dtype} of shape {shape}.",
            "A stack of magnitude slices is real, (slices, H, W).",
            f"Save it so, with np.savez(path, {STACK}=...).",
        )
    return shape[0], shape[1], shape[2]


def require_file(path: str | Path) -> Path:
    """The path of a file; raises `InputError` for a folder, and if there is no file."""
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder.", "One array or picture is needed.", "Name a file in it.")
    if not os.path.isfile(path):  # unlike Path.is_file also if the name is too long
        raise InputError(f"{path} does not exist.", "There is no file of this name.", "Check the path.")
    return Path(path)


def save_picture(file: Any, image: Tensor) -> None:
    """Write the magnitude of an image (H, W), or an image (3, H, W) in colour, as an 8-bit PNG.

    Black at 0, white at 1, or at its 99.9th percentile if that is larger; colours above 1 are cut.
    """
    from PIL import Image

    gray = image.abs() if image.is_complex() else image
    top = 1.0 if image.ndim == 3 else max(1.0, float(np.quantile(gray.numpy(), 0.999)))
    pixels = (gray / top * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    Image.fromarray(np.moveaxis(pixels, 0, -1) if image.ndim == 3 else pixels).save(file, format="png")
