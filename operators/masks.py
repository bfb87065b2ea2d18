"""Sampling masks for Cartesian k-space: bool tensors (H, W), true where sampled.

`random`, `equispaced` and `equispaced_fraction` draw the columns that fastMRI's mask functions of
those names draw (Zbontar et al., arXiv:1811.08839), random numbers included: numpy's legacy
generator, seeded by the file name. Shapes are (H, W), ``accel`` is the wanted ratio of all samples
to those measured, ``center`` the fraction of the width (of both axes for 2-D masks) that is fully
sampled around the zero frequency. A seed is a number, a file name, a tuple of numbers, or None.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import OperatorError

Shape = tuple[int, int]
Seed = int | str | tuple[int, ...] | None
GOLDEN_ANGLE = np.pi / ((1 + np.sqrt(5)) / 2)  # 111.25 degrees, Winkelmann et al., IEEE TMI 26:68 (2007)


def random(shape: Shape, accel: float = 4.0, center: float = 0.08, seed: Seed = 0) -> Tensor:
    """Central columns, and every other one with probability ``(W/accel - n) / (W - n)``; W/accel in the mean."""
    lines, n = column_budget("random", shape, accel, center)
    width = shape[1]
    rng = generator(seed)
    chance = (lines - n) / (width - n) if n < width else 1.0
    return columns(shape, (rng.uniform(size=width) < chance) | central(width, n))


def equispaced(shape: Shape, accel: float = 4.0, center: float = 0.08, seed: Seed = 0) -> Tensor:
    """Every accel-th column from a random offset, and the central ones beside (so more than W/accel in all)."""
    require(shape, accel, center)
    if accel != round(accel):
        raise OperatorError(
            f"An equispaced mask cannot have acceleration {accel:g}.",
            "It takes every n-th column, and n is a whole number.",
            f"Use {round(accel)}, or equispaced-fraction.",
        )
    width = shape[1]
    step = int(accel)
    chosen = central(width, round(width * center))
    chosen[generator(seed).randint(0, step) :: step] = True
    return columns(shape, chosen)


def equispaced_fraction(shape: Shape, accel: float = 4.0, center: float = 0.08, seed: Seed = 0) -> Tensor:
    """Central columns, and others at the even distance that makes W/accel in all: ``accel (W - n) / (W - accel n)``."""
    lines, n = column_budget("equispaced-fraction", shape, accel, center)
    width = shape[1]
    chosen = central(width, n)
    if accel == 1:
        chosen[:] = True
    elif lines > n:
        step = (accel * (n - width)) / (n * accel - width)
        offset = generator(seed).randint(0, round(step))
        chosen[np.around(np.arange(offset, width - 1, step)).astype(int)] = True
    return columns(shape, chosen)


def gaussian(shape: Shape, accel: float = 4.0, center: float = 0.08, seed: Seed = 0) -> Tensor:
    """Central columns, and others drawn without replacement, density ``exp(-u^2 / 2 (W/6)^2)``; round(W/accel) in all."""
    lines, n = column_budget("gaussian", shape, accel, center)
    width = shape[1]
    chosen = central(width, n)
    density = np.exp(-0.5 * ((np.arange(width) - width // 2) / (width / 6)) ** 2) * ~chosen
    more = max(round(lines) - n, 0)
    if more:
        chosen[generator(seed).choice(width, more, replace=False, p=density / density.sum())] = True
    return columns(shape, chosen)


def poisson(shape: Shape, accel: float = 4.0, center: float = 0.08, seed: Seed = 0) -> Tensor:
    """2-D Poisson disc with a distance that grows linearly from the centre; round(H W/accel) samples in all.

    Points are visited in random order and kept unless a kept one lies within its own radius
    ``slope (.4 + |u|)``; the slope is found by bisection, and the few points over the budget are
    dropped at random. Source: variable-density Poisson disc, Vasanawala et al., IEEE ISBI 2011.
    """
    budget, block = plane_budget("poisson", shape, accel, center)
    height, width = shape
    rng = generator(seed)
    order = rng.permutation(height * width)
    y, x = np.indices(shape)
    distance = np.hypot((y - height // 2) / (height / 2), (x - width // 2) / (width / 2)).ravel()[order]
    outside = ~block.ravel()[order]
    order, distance = order[outside], distance[outside]
    wanted = budget - int(block.sum())
    low, high = 0.0, 4.0 * np.sqrt(accel)
    kept = order
    for _ in range(12):
        slope = (low + high) / 2
        trial = discs(order, slope * (0.4 + distance), shape)
        if len(trial) < wanted:
            high = slope
        else:
            low, kept = slope, trial
            if len(trial) <= 1.01 * wanted:
                break
    chosen = block.copy()
    chosen.ravel()[rng.permutation(kept)[:wanted]] = True
    return torch.from_numpy(chosen)


def discs(order: np.ndarray, radius: np.ndarray, shape: Shape) -> np.ndarray:
    """Pixels of ``order`` kept one by one, each closing the open disc of its ``radius`` to later ones."""
    size = np.rint(radius * 8).astype(int)  # radii in eighths of a pixel
    edge = size.max() // 8 + 1
    stride = shape[1] + 2 * edge
    span = np.arange(-edge, edge + 1)
    square = span[:, None] ** 2 + span[None] ** 2
    offsets = (span[:, None] * stride + span[None]).ravel()
    near = {s: offsets[(square < (s / 8) ** 2).ravel()] for s in np.unique(size).tolist()}
    closed = np.zeros((shape[0] + 2 * edge) * stride, dtype=bool)
    state = closed.data  # reading one flag from it is much cheaper than from the array
    places = (order // shape[1] + edge) * stride + order % shape[1] + edge
    kept = []
    for i, (place, s) in enumerate(zip(places.tolist(), size.tolist(), strict=True)):
        if not state[place]:
            kept.append(i)
            closed[place + near[s]] = True
    return order[kept]


def radial(shape: Shape, accel: float = 4.0, center: float = 0.08, seed: Seed = 0) -> Tensor:
    """Spokes through the centre, a golden angle apart, on the nearest pixels; as near H W/accel samples as whole spokes come."""
    budget, chosen = plane_budget("radial", shape, accel, center)
    height, width = shape
    reach = int(np.ceil(np.hypot(height, width)))
    along = np.arange(-reach, reach + 1) / 2
    angle = generator(seed).uniform(0, np.pi)
    while (count := chosen.sum()) < budget:
        y = np.rint(along * np.sin(angle)).astype(int) + height // 2
        x = np.rint(along * np.cos(angle)).astype(int) + width // 2
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        longer = chosen.copy()
        longer[y[inside], x[inside]] = True
        if longer.sum() - budget > budget - count:
            break
        chosen = longer
        angle += GOLDEN_ANGLE
    return torch.from_numpy(chosen)


def given(array: Any, shape: Shape) -> Tensor:
    """A mask from elsewhere as bool (H, W): (W,) columns or (H, W), leading axes of length one allowed.

    Raises `OperatorError` for another size, for values other than 0 and 1, and for no sample at all.
    """
    mask = torch.as_tensor(np.asarray(array))
    while mask.ndim > 1 and mask.shape[0] == 1:
        mask = mask[0]
    height, width = shape
    if tuple(mask.shape) not in ((width,), (height, width)):
        raise OperatorError(
            f"The mask has shape {tuple(mask.shape)}.",
            f"The k-space is {height} x {width}, so a mask is ({width},) or ({height}, {width}).",
            "Use the mask of this acquisition, or name one with an acceleration.",
        )
    if not ((mask == 0) | (mask == 1)).all():
        raise OperatorError(
            "The mask has values other than 0 and 1.",
            "A mask says which samples were measured.",
            "Save mask != 0 instead.",
        )
    if not mask.any():
        raise OperatorError("The mask is empty.", "It samples nothing, so there is nothing to reconstruct.")
    return mask.bool().expand(height, width).clone()


MASKS: dict[str, Callable[..., Tensor]] = {
    "random": random,
    "equispaced": equispaced,
    "equispaced-fraction": equispaced_fraction,
    "gaussian": gaussian,
    "poisson": poisson,
    "radial": radial,
}


def make_mask(
    name: str, shape: Shape, accel: float = 4.0, center: float | None = None, seed: Seed = 0
) -> Tensor:
    """The mask ``name`` as bool (H, W). ``center=None`` is fastMRI's choice, .08 at 4x and .04 at 8x: .32/accel.

    Raises `OperatorError` for an unknown name, and for numbers that no mask of this shape can have.
    """
    key = name.lower().replace("_", "-")
    if key not in MASKS:
        near = get_close_matches(key, MASKS, n=2)
        raise OperatorError(
            f"There is no mask named {name!r}.",
            f"The nearest is {' or '.join(near)}." if near else "",
            f"Choose one of: {', '.join(MASKS)}.",
        )
    if center is None:
        center = 0.32 / max(accel, 1.0)
    return MASKS[key](shape, accel=accel, center=center, seed=seed)


def acceleration(mask: Tensor) -> float:
    """All samples over those measured."""
    return mask.numel() / max(int((mask != 0).sum()), 1)


def calibration_region(mask: Tensor) -> tuple[slice, slice]:
    """The largest fully sampled rectangle around the zero frequency, as slices of rows and columns.

    ``mask`` is (H, W). Raises `OperatorError` where the zero frequency itself is not sampled.
    """
    sampled = (mask != 0).cpu().numpy()
    height, width = sampled.shape
    cy, cx = height // 2, width // 2
    if not sampled[cy, cx]:
        raise OperatorError(
            "The centre of k-space is not sampled.",
            "Sensitivity maps are estimated from fully sampled central lines.",
            "Use a mask with a centre, or give maps.",
        )
    above, below = run(sampled[:, cx], cy)
    best, area = (slice(cy, cy + 1), slice(cx, cx + 1)), 0
    open_columns = np.ones(width, dtype=bool)
    for reach in range(max(cy - above, below - 1 - cy) + 1):
        top, bottom = max(cy - reach, above), min(cy + reach + 1, below)
        open_columns &= sampled[top] & sampled[bottom - 1]
        left, right = run(open_columns, cx)
        if (bottom - top) * (right - left) > area:
            area = (bottom - top) * (right - left)
            best = slice(top, bottom), slice(left, right)
    return best


def run(flags: np.ndarray, at: int) -> tuple[int, int]:
    """Start and end of the unbroken run of true flags around index ``at``."""
    closed = np.flatnonzero(~flags)
    i = int(np.searchsorted(closed, at))
    return int(closed[i - 1]) + 1 if i else 0, int(closed[i]) if i < len(closed) else len(flags)


def generator(seed: Seed) -> np.random.RandomState:
    """Random numbers as fastMRI draws them: of a whole number, or of a text by its characters."""
    return np.random.RandomState(tuple(map(ord, seed)) if isinstance(seed, str) else seed)


def columns(shape: Shape, chosen: np.ndarray) -> Tensor:
    """A mask (H, W) that samples the ``chosen`` columns (W,) whole."""
    return torch.from_numpy(chosen).expand(shape[0], shape[1]).clone()


def central(width: int, n: int) -> np.ndarray:
    """The n columns around the zero frequency."""
    chosen = np.zeros(width, dtype=bool)
    start = (width - n + 1) // 2
    chosen[start : start + n] = True
    return chosen


def require(shape: Shape, accel: float, center: float) -> None:
    """Raise `OperatorError` for a shape, an acceleration or a centre that no mask can have."""
    if len(shape) != 2 or min(shape) < 1:
        raise OperatorError(f"A mask cannot have the shape {tuple(shape)}.", "Masks are (H, W).")
    if not accel >= 1:
        raise OperatorError(
            f"The acceleration is {accel:g}.",
            "It is the ratio of all samples to those measured, at least 1.",
            "Use 1 for all samples, 4 for every fourth.",
        )
    if accel > shape[1]:
        raise OperatorError(
            f"Acceleration {accel:g} leaves no line of {shape[1]}.",
            do=f"Use at most {shape[1]}; 4 to 8 are usual.",
        )
    if not 0 <= center <= 1:
        raise OperatorError(
            f"The centre fraction is {center:g}.",
            "It is the fully sampled part of the width, between 0 and 1.",
            "Use .08 at acceleration 4, .04 at 8.",
        )


def column_budget(name: str, shape: Shape, accel: float, center: float) -> tuple[float, int]:
    """Columns in all, and central ones among them; refuses a centre that is more than all."""
    require(shape, accel, center)
    width = shape[1]
    n = round(width * center)
    if n * accel > width:
        raise OperatorError(
            f"A mask {name} of {width} columns at acceleration {accel:g} has {width / accel:.3g} lines, "
            f"and a centre of {center:g} alone asks for {n}.",
            "The central lines count among those measured.",
            f"Use a centre of at most {np.floor(1000 / accel) / 1000:g}, or an acceleration of at most {width / n:.3g}.",
        )
    return width / accel, n


def plane_budget(name: str, shape: Shape, accel: float, center: float) -> tuple[int, np.ndarray]:
    """Samples in all, and the central block among them; refuses a block that is more than all."""
    require(shape, accel, center)
    block = np.outer(*(central(n, round(n * center)) for n in shape))
    budget = round(block.size / accel)
    if block.sum() > budget:
        raise OperatorError(
            f"A mask {name} of {shape[0]} x {shape[1]} at acceleration {accel:g} has {budget} samples, "
            f"and a central block of {center:g} of each axis alone asks for {int(block.sum())}.",
            "The central block counts among those measured.",
            f"Use a centre of at most {np.floor(100 / np.sqrt(accel)) / 100:g}, or a lower acceleration.",
        )
    return budget, block
