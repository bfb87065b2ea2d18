"""A volume as a PNG: its three middle planes, mean above standard deviation, and a mosaic of its slices."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from .panel import DPI, INK, PAPER, window
from .targets import fitting
from .whole import write_whole

VOLUME = 8  # slices, from where they are one worth cutting
MOST_TILES = 24  # of a mosaic
ROOM, HEAD = 10, 24  # pixels between pictures, and above them
TALL = 256  # pixels of a plane


def volume_paths(target: str | Path, slices: int) -> list[Path]:
    """``<stem>_planes.png`` and ``<stem>_mosaic.png`` beside a result of many slices; none for few."""
    target = Path(target)
    if slices < VOLUME:
        return []
    return [fitting(target.parent, target.stem, f"_{name}.png") for name in ("planes", "mosaic")]


def save_volume(
    target: str | Path, mean: np.ndarray, std: np.ndarray | None, aspect: float = 1.0
) -> list[Path]:
    """Write the pictures of `volume_paths` of images (slices, h, w); ``aspect``: distance of slices in pixels.

    Black is 0, white the 99.5th percentile; planes through the middle, the slices upwards. Each file appears whole or not at all.
    """
    made = volume_paths(target, len(mean))
    figures = [planes(mean, std, aspect), mosaic(mean)] if made else []
    for path, figure in zip(made, figures, strict=True):
        write_whole(
            path, lambda file, figure=figure: figure.savefig(file, format="png", dpi=DPI, facecolor=PAPER)
        )
    return made


def planes(mean: np.ndarray, std: np.ndarray | None, aspect: float) -> Any:
    """The figure of the three middle planes, of the mean and below of the standard deviation."""
    depth, height, width = mean.shape
    cuts = [("axial", (depth // 2,), 1.0), ("coronal", (slice(None), height // 2), aspect)]
    cuts += [("sagittal", (slice(None), slice(None), width // 2), aspect)]
    images = [("mean", mean, "gray")]
    if std is not None and np.isfinite(std).any():
        images.append(("standard deviation", std, "magma"))
    figure, axes = grid(len(images), 3, TALL, TALL)
    for row, (name, volume, colours) in enumerate(images):
        top = window(volume)
        for column, (title, cut, tall) in enumerate(cuts):
            ax, plane = axes[row][column], volume[cut]
            ax.imshow(
                plane, cmap=colours, vmin=0, vmax=top, aspect=tall, origin="upper" if column == 0 else "lower"
            )
            ax.set_title(f"{name}, {title}", color=INK, fontsize=8, pad=4)
    return figure


def mosaic(mean: np.ndarray) -> Any:
    """The figure of at most `MOST_TILES` slices, evenly spread, with their numbers."""
    chosen = np.unique(np.linspace(0, len(mean) - 1, min(len(mean), MOST_TILES)).round().astype(int))
    columns = math.ceil(math.sqrt(1.5 * len(chosen)))
    figure, axes = grid(math.ceil(len(chosen) / columns), columns, TALL // 2, TALL // 2)
    top, flat = window(mean), [ax for row in axes for ax in row]
    for ax, index in zip(flat, chosen, strict=False):
        ax.imshow(mean[index], cmap="gray", vmin=0, vmax=top)
        ax.set_title(str(index), color=INK, fontsize=7, pad=3)
    return figure


def grid(rows: int, columns: int, tall: int, wide: int) -> tuple[Any, list[list[Any]]]:
    """A dark figure of so many pictures without frames."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = ROOM + columns * (wide + ROOM), ROOM + rows * (tall + HEAD)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    axes = []
    for row in range(rows):
        bottom = height - (row + 1) * (tall + HEAD)
        lefts = [ROOM + column * (wide + ROOM) for column in range(columns)]
        axes.append(
            [figure.add_axes((x / width, bottom / height, wide / width, tall / height)) for x in lefts]
        )
        for ax in axes[-1]:
            ax.set_axis_off()
    return figure, axes
