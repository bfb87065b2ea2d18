"""TIFF stacks with a text beside them that says angles and geometry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ..folders import files_in
from .checks import checked_angles
from .counts import corrected
from .geometry import beam_of, read_sidecar
from .sinogram import Sinogram

TIFF = (".tif", ".tiff")
TEXTS = (".json", ".yaml", ".yml")
FOLDER_TEXT = "geometry"
PAGE_ORDERS = ("sinograms", "projections")
OWN_KEYS = ("angles_deg", "angles", "first_angle", "angle_step", "pages", "flat", "dark")


def sidecar_of(path: Path) -> Path | None:
    """The text beside a TIFF file, of the same name, or the ``geometry.json`` or ``.yaml`` in a folder of them."""
    base = path / FOLDER_TEXT if path.is_dir() else path.with_suffix("")
    return next((text for suffix in TEXTS if (text := base.with_name(base.name + suffix)).is_file()), None)


def is_stack(path: Path) -> bool:
    """Whether a path is a TIFF file, or a folder of them with a geometry."""
    if path.is_dir():
        return sidecar_of(path) is not None and any(p.suffix.lower() in TIFF for p in path.iterdir())
    return path.suffix.lower() in TIFF


def from_stack(path: Path) -> Sinogram:
    """A TIFF file of several pages, or a folder of files of one, in the order of their names, as sinograms.

    The text beside it says ``pages``: "sinograms", a page (angles, detectors) for each slice, or "projections", a page
    (rows, detectors) for each view; ``angles_deg``, a list, or ``first_angle`` and ``angle_step``; ``flat`` and
    ``dark``, names of TIFF files of frames, where the pages are counts; and the geometry (`geometry.PART_NAMES`). Raises `InputError`.
    """
    text = sidecar_of(path)
    if text is None:
        raise InputError(
            f"{path} has no geometry beside it.",
            "A TIFF file says nothing of angles and beam.",
            f"Write {path.with_suffix('.json').name} with pages, angles_deg and geometry.",
        )
    block = read_sidecar(text)
    pages = block.get("pages", "sinograms")
    if pages not in PAGE_ORDERS:
        raise InputError(
            f"{text}: pages are {pages!r}.", f"They are {' or '.join(PAGE_ORDERS)}.", "Correct it."
        )
    stack = read_pages(sorted_pages(path) if path.is_dir() else [path])
    geometry = {key: value for key, value in block.items() if key not in OWN_KEYS}
    beam, water, unused = beam_of(geometry, str(text), stack.shape[2])
    if beam.kind == "cone" and pages != "projections":
        raise InputError(
            f"{text}: a cone beam of pages that are sinograms.",
            "Its rows see all slices together.",
            "Store projections.",
        )
    frames = {
        part: read_pages([text.parent / str(block[part])]) for part in ("flat", "dark") if block.get(part)
    }
    said, warnings, std = list(unused), (), None
    if "flat" in frames:
        raw = stack if pages == "projections" else stack.transpose(1, 0, 2)
        told = corrected(raw, frames["flat"], frames.get("dark"))
        data, std, warnings = told.data, told.std, told.warnings
        said += told.said
    else:
        data = stack if pages == "projections" else stack.transpose(1, 0, 2)
    if beam.kind != "cone":
        data = data.transpose(1, 0, 2)
        std = None if std is None else std.transpose(1, 0, 2)
    views = 0 if beam.kind == "cone" else 1
    angles = checked_angles(angles_of(block, data.shape[views], text), data.shape, views, path)
    about = f"{'frames' if path.is_dir() else 'pages'} {stack.shape} {stack.dtype}"
    return Sinogram(
        path,
        f"TIFF, {pages}",
        np.ascontiguousarray(data, np.float32),
        angles,
        beam,
        None if std is None else np.ascontiguousarray(std),
        water,
        tuple(said),
        warnings,
        (about, f"geometry {text.name}"),
        neighbours=pages == "projections",
    )


def angles_of(block: dict[str, Any], views: int, text: Path) -> np.ndarray:
    """The angles of a text, listed, or by the first and the step; raises `InputError` where it says neither."""
    listed = block.get("angles_deg", block.get("angles"))
    try:
        if listed is not None:
            return np.asarray(listed, np.float64)
        return float(block["first_angle"]) + float(block["angle_step"]) * np.arange(views)
    except KeyError as error:
        raise InputError(
            f"{text} says no angles.",
            f"It has no {error}.",
            "Give angles_deg, or first_angle and angle_step, in degrees.",
        ) from None
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{text}: its angles are no numbers.", f"{error}.", "Give them in degrees."
        ) from None


def sorted_pages(folder: Path) -> list[Path]:
    """The TIFF files of a folder by name, numbers in the names by their value."""
    import re

    def key(path: Path) -> list[Any]:
        return [
            (0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", path.name)
        ]

    return sorted(files_in(folder, TIFF), key=key)


def read_pages(paths: Sequence[Path]) -> np.ndarray:
    """The pages of TIFF files as one array (pages, rows, columns); raises `InputError` where one is damaged or differs."""
    import tifffile

    found = []
    for path in paths:
        try:
            array = np.asarray(tifffile.imread(path))
        except FileNotFoundError:
            raise InputError(f"{path} does not exist.", "The geometry names it.", "Check the name.") from None
        except Exception as error:  # a decoder raises what it likes on a damaged file
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise InputError(
                f"{path} cannot be read as TIFF.", f"It is damaged or truncated: {reason}.", "Copy it again."
            ) from error
        array = array[None] if array.ndim == 2 else array
        if array.ndim != 3 or array.dtype.kind not in "fiu" or 0 in array.shape:
            raise InputError(
                f"{path} is {array.dtype} of shape {array.shape}.",
                "Pages are gray: (rows, columns).",
                "Convert it.",
            )
        if found and array.shape[1:] != found[0].shape[1:]:
            raise InputError(
                f"{path} is of shape {array.shape[1:]}, {paths[0].name} of {found[0].shape[1:]}.",
                "The pages of a stack are alike.",
                "Leave other pictures out of the folder.",
            )
        found.append(array)
    return np.concatenate(found)
