"""Training sets: which slices a set holds, and how often each of them is drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from ..io.arrays import NpzStore
from ..io.folders import files_in
from ..io.images import PICTURES, STACK, read_picture, read_stack

FINEST = 0.0


@dataclass(frozen=True)
class ImageSet:
    """One entry of a training's ``data``: a .npz file with ``images`` (N, H, W), or a folder of pictures.

    ``weight``: the set's share of the draws, relative to the other sets'. ``only`` and ``without`` keep or leave out
    the slices whose array of that name (such as ``source``) has one of the values. ``balance``: names of arrays; each
    combination of their values is drawn in proportion to the square root of its number of slices, not to the number.
    ``hold_out``: the share of the subjects, chosen by a hash of their names, that is left out of the training; with
    ``held_out`` the set is these alone. ``sigma_from``: the least noise level that its slices are shown at, for data
    with a noise or compression floor of their own.
    """

    file: str
    weight: float = 1.0
    only: Mapping[str, Sequence[str]] = field(default_factory=dict)
    without: Mapping[str, Sequence[str]] = field(default_factory=dict)
    balance: Sequence[str] = ()
    hold_out: float = 0.0
    held_out: bool = False
    sigma_from: float = FINEST


@dataclass(frozen=True)
class Slices:
    """Slices of any sizes, each (H, W) float32, with the chance and the least noise level of each."""

    images: list[Tensor]
    chance: Tensor
    sigma_from: Tensor

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Indices (count,) of slices, drawn by their chance."""
        return torch.multinomial(self.chance, count, replacement=True, generator=generator)


def is_held_out(subject: str, share: float) -> bool:
    """Whether a subject belongs to the ``share`` that is held out: by a hash of its name, the same for ever."""
    return int.from_bytes(hashlib.md5(subject.encode(), usedforsecurity=False).digest()[:8], "big") < share * 2**64


def load_sets(root: Path, sets: Sequence[ImageSet], percentile: float) -> Slices:
    """All slices of the sets, each scaled so that its percentile is 1."""
    images, chance, floor = [], [], []
    for entry in sets:
        found, share = load_set(root, entry, percentile)
        images += found
        chance.append(entry.weight * share / share.sum())
        floor.append(torch.full((len(found),), entry.sigma_from))
    return Slices(images, torch.cat(chance), torch.cat(floor))


def load_set(root: Path, entry: ImageSet, percentile: float) -> tuple[list[Tensor], Tensor]:
    """The slices of one set, and the relative chance of each (N,)."""
    path = root / entry.file
    if path.is_dir():
        stack = [torch.from_numpy(read_picture(p)) for p in files_in(path, PICTURES)]
        kept, share = np.ones(len(stack), bool), np.ones(len(stack))
    elif path.is_file():
        stack = list(read_stack(path))
        kept, share = chosen(path, entry, len(stack))
    else:
        raise ConfigError(
            f"The training set {path} does not exist.",
            do="Set data_root in the config, or --data-root, to the folder that holds it.",
        )
    images, chance = [], []
    for image, keep, each in zip(stack, kept, share, strict=True):
        top = torch.from_numpy(np.quantile(image.numpy(), [percentile / 100])).float()
        if keep and top > 0:
            images.append(image / top)
            chance.append(each)
    return images, torch.tensor(chance, dtype=torch.float64)


def chosen(path: Path, entry: ImageSet, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Which slices of an npz file the entry keeps (N,) bool, and the relative chance of each (N,)."""
    store = NpzStore(path)
    def column(name: str) -> np.ndarray:
        return np.asarray(store.fetch(name)).astype(str)
    kept = np.ones(count, bool)
    for name, values in entry.only.items():
        kept &= np.isin(column(name), list(values))
    for name, values in entry.without.items():
        kept &= ~np.isin(column(name), list(values))
    if entry.hold_out:
        held = np.array([is_held_out(s, entry.hold_out) for s in column("subject")])
        kept &= held if entry.held_out else ~held
    share = np.ones(count)
    if entry.balance:
        keys = np.array(["\0".join(row) for row in zip(*(column(n) for n in entry.balance), strict=True)])
        for key in np.unique(keys[kept]):
            share[keys == key] = np.sum(kept & (keys == key)) ** -0.5
    return kept, share
