"""The picture of an active acquisition: what was measured after which step, and the scores that said so."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from .record import Record


def draw_record(record: Record, path: str | Path, image: int = 0) -> Path:
    """Draw what was chosen for one image as a PNG (or what the suffix of ``path`` says); returns the path.

    Lines and views: a row for each choice, downwards; measured before in grey, chosen now in orange,
    and beside it the scores. Points: the image plane, coloured by the step at which each was chosen.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = Path(path)
    steps = [f"{a.step}  $\\sigma$ {a.sigma:.3g}" for a in record.choices]
    plane = sum(n > 1 for n in record.shape) > 1
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    masks = record.masks[:, image].flatten(1)
    if plane:
        order = torch.full((math.prod(record.shape),), math.nan)
        order[masks[0]] = -1.0
        for choice in record.choices:
            order[list(choice.chosen[image])] = float(choice.step)
        size = [n for n in record.shape if n > 1]
        shown = left.imshow(order.view(size).numpy(), cmap="viridis", interpolation="nearest")
        figure.colorbar(shown, ax=left, label="step of acquisition (-1: before)")
        if record.choices:
            scores = record.choices[-1].scores[image].view(size)
            figure.colorbar(right.imshow(scores.numpy(), cmap="magma", interpolation="nearest"), ax=right)
        right.set_title("scores at the last acquisition", fontsize=9)
    else:
        now = masks[1:] & ~masks[:-1]
        left.imshow(
            (masks[:-1] * 1.0 + now * 2.0).numpy(), cmap=record_colours(), vmin=0, vmax=2, aspect="auto",
            interpolation="nearest",
        )  # fmt: skip
        if record.choices:
            scores = torch.stack([a.scores[image] for a in record.choices]).double()
            low, high = scores.amin(1, keepdim=True), scores.amax(1, keepdim=True)
            scores = (scores - low) / (high - low).clamp_min(1e-30)
            right.imshow(scores.numpy(), cmap="magma", aspect="auto", interpolation="nearest")
        right.set_title("scores, each row from its least to its largest", fontsize=9)
        for axes in (left, right):
            axes.set_xlabel(record.actions)
            axes.set_yticks(range(len(steps)), steps if axes is left else [""] * len(steps), fontsize=6)
        left.set_ylabel("after step")
    total = int(record.mask[image].sum())
    left.set_title(f"{total} of {masks.shape[1]} {record.actions} measured", fontsize=9)
    figure.savefig(path, dpi=120)
    return path


def record_colours():
    """White: not measured; grey: measured before; orange: chosen now."""
    from matplotlib.colors import ListedColormap

    return ListedColormap(["white", "0.6", "tab:orange"])
