"""Pictures of a cell: mean, standard deviation, error, and the reference and measurements beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..intervals import spread
from ..io.whole import write_whole
from ..metrics import least_squares_scale
from .answer import Answer
from .scene import Scene

ERROR = 0.2  # of the reference's 99.9th percentile: the top of the maps of error and std


def save_pictures(out: Path, key: str, name: str, scene: Scene, answer: Answer) -> dict[str, str | None]:
    """Write PNGs to ``out/pictures`` and return their paths relative to ``out``, by what they show.

    Gray from 0 to the reference's 99.9th percentile; error and std as a map up to `ERROR` of it. Of pictures in colour
    values from 0 to 1, and maps of the root mean square over the channels. ``key`` names the files of the answer,
    ``name`` those of the scene, which all methods share.
    """
    reference = scene.reference.cpu().numpy()
    top = 1.0 if scene.colour else float(np.quantile(reference, 0.999))
    mean = scene.compared(answer.mean)
    scale = 1.0 if scene.colour else least_squares_scale(mean, scene.reference)
    error = over_channels(scale * mean.numpy() - reference)
    std = None
    if len(answer.samples) > 1:
        weights = None if answer.weights is None else answer.weights[None]
        values = answer.samples if scene.colour else answer.samples.abs()
        std = over_channels(scale * scene.compared(spread(values[None], weights)[0]).numpy())
    backprojected = scene.compared(scene.problem.backprojection[0])
    measured = least_squares_scale(backprojected, scene.reference) * backprojected.numpy()
    maps = {f"{key}_error": error, **({f"{key}_std": std} if std is not None else {})}
    images = {f"{key}": scale * mean.numpy(), f"{name}_reference": reference, f"{name}_measured": measured}
    folder = out / "pictures"
    for stem, image in images.items():
        save_image(folder / f"{stem}.png", image / top)
    for stem, image in maps.items():
        save_map(folder / f"{stem}.png", image / (ERROR * top))
    return {
        "mean": f"pictures/{key}.png",
        "std": f"pictures/{key}_std.png" if std is not None else None,
        "error": f"pictures/{key}_error.png",
        "reference": f"pictures/{name}_reference.png",
        "measured": f"pictures/{name}_measured.png",
    }


def over_channels(image: np.ndarray) -> np.ndarray:
    """``|image|`` (h, w), of (3, h, w) its root mean square over the channels."""
    return np.abs(image) if image.ndim == 2 else np.sqrt(np.mean(np.square(image), 0))


def save_image(path: Path, image: np.ndarray) -> None:
    """Write an image (h, w) or (3, h, w), black at 0 and white at 1."""
    pixels = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    write_png(path, pixels if pixels.ndim == 2 else np.moveaxis(pixels, 0, -1))


def save_map(path: Path, image: np.ndarray) -> None:
    """Write a map (h, w) of values from 0 to 1 in colour."""
    from matplotlib import colormaps

    write_png(path, (colormaps["inferno"](np.clip(image, 0, 1))[..., :3] * 255).round().astype(np.uint8))


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write 8-bit pixels (h, w) or (h, w, 3)."""
    from PIL import Image

    write_whole(path, lambda file: Image.fromarray(pixels).save(file, format="png"))
