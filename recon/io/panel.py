"""A slice as a PNG: zero-filled, reconstruction, standard deviation and error, each pixel as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from .whole import write_whole

DPI = 100
GAP, TITLE, BAR, LABELS, TOP = 14, 24, 8, 22, 30  # pixels
GAIN = 5.0  # how much brighter the error is shown than the image
INK, PAPER = "#e8e8e8", "#101010"


@dataclass(frozen=True)
class Tile:
    """One picture of a panel: shown from black at 0 to white, or the top of its map, at ``top``."""

    title: str
    image: np.ndarray
    top: float
    colours: str = "gray"


def save_panel(
    path: str | Path,
    zero_filled: Tensor | np.ndarray,
    reconstruction: Tensor | np.ndarray,
    std: Tensor | np.ndarray | None = None,
    reference: Tensor | np.ndarray | None = None,
    scale: float = 1.0,
    caption: str = "",
    without: str = "zero-filled",
) -> Path:
    """Write the panel of one slice: images (h, w) of the same units, complex ones as magnitudes; ``without``: what the first is.

    Gray tiles share one window, 0 to the 99.5th percentile of the reference (of the reconstruction
    without a reference). The error is ``|scale * reconstruction - reference|``, shown five times as
    bright; ``std`` has its own window. Every pixel is drawn as a square of whole screen pixels.
    The file appears whole or not at all. Raises `OutputError` where it cannot be written.
    """
    figure = draw(tiles_of(zero_filled, reconstruction, std, reference, scale, without), caption)
    path = Path(path)
    write_whole(path, lambda file: figure.savefig(file, format="png", dpi=DPI, facecolor=PAPER))
    return path


def tiles_of(
    zero_filled: Tensor | np.ndarray,
    reconstruction: Tensor | np.ndarray,
    std: Tensor | np.ndarray | None,
    reference: Tensor | np.ndarray | None,
    scale: float,
    without: str = "zero-filled",
) -> list[Tile]:
    """The tiles of a slice with their windows."""
    zero_filled, image = absolute(zero_filled), absolute(reconstruction)
    truth = None if reference is None else absolute(reference)
    top = window(image * scale if truth is None else truth)
    tiles = [
        Tile(without, zero_filled * scale, top),
        Tile("reconstruction", image * scale, top),
    ]
    if truth is not None:
        tiles.append(Tile("reference", truth, top))
    if std is not None and np.isfinite(deviation := absolute(std)).any():
        tiles.append(Tile("standard deviation", deviation * scale, window(deviation * scale), "magma"))
    if truth is not None:
        tiles.append(Tile(f"error × {GAIN:g}", np.abs(image * scale - truth), top / GAIN))
    return tiles


def draw(tiles: list[Tile], caption: str) -> Any:
    """A figure of the tiles in a row, each with its title above and its colour bar below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = tiles[0].image.shape
    zoom = max(1, -(-240 // max(rows, columns)))  # small images are enlarged to a readable size
    high, wide = rows * zoom, columns * zoom
    cell = max(wide, 170)  # room for the title
    width = GAP + len(tiles) * (cell + GAP)
    height = (TOP if caption else GAP) + TITLE + high + GAP // 2 + BAR + LABELS + GAP // 2
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    FigureCanvasAgg(figure)

    def axes(left: float, bottom: float, w: float, h: float) -> Any:
        return figure.add_axes((left / width, bottom / height, w / width, h / height))

    if caption:
        figure.text(GAP / width, 1 - TOP / 2 / height, caption, color=INK, fontsize=9, va="center")
    base = GAP // 2 + LABELS
    for i, tile in enumerate(tiles):
        left = GAP + i * (cell + GAP) + (cell - wide) // 2
        ax = axes(left, base + BAR + GAP // 2, wide, high)
        shown = np.kron(tile.image, np.ones((zoom, zoom)))
        drawn = ax.imshow(
            shown, cmap=tile.colours, vmin=0, vmax=tile.top, interpolation="nearest", aspect="auto"
        )
        ax.set_axis_off()
        ax.set_title(tile.title, color=INK, fontsize=9, pad=6)
        bar = figure.colorbar(drawn, cax=axes(left, base, wide, BAR), orientation="horizontal")
        bar.set_ticks([0, tile.top / 2, tile.top], labels=["0", f"{tile.top / 2:.2g}", f"{tile.top:.2g}"])
        bar.outline.set_visible(False)
        bar.ax.tick_params(colors=INK, labelsize=7, length=2, pad=2)
        for label, side in zip(bar.ax.get_xticklabels(), ("left", "center", "right"), strict=True):
            label.set_horizontalalignment(side)
    return figure


def window(image: np.ndarray) -> float:
    """The value shown as white: the 99.5th percentile of the finite values; 1 for an empty picture."""
    finite = image[np.isfinite(image)]
    top = float(np.percentile(finite, 99.5)) if finite.size else 0.0
    return top or float(finite.max(initial=0.0)) or 1.0


def absolute(image: Tensor | np.ndarray) -> np.ndarray:
    """Absolute values, float64."""
    array = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    return np.abs(array).astype(np.float64)
