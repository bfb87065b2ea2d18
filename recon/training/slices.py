"""The slices of training sets: from stacks, pictures and k-space, scaled alike, with the chance of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from ..io.folders import files_in
from ..io.images import PICTURES, STACK, read_picture, read_stack, stack_shape
from ..io.stores import NpzStore
from .kspace import HDF5, KSpaceScans
from .sets import Columns, ImageSet, chosen
from .settings import Training


@dataclass(frozen=True)
class SliceSource:
    """What a set's file or folder holds: ``count`` slices, their ``columns``, and how those of given indices are read.

    ``read(indices, percentile)`` gives images (1, H, W), float32 magnitudes or complex64, or photographs (3, H, W),
    whose percentile is 1, or nothing for one whose percentile is 0; values as they are where percentile is None.
    """

    count: int
    columns: Columns
    read: Callable[[np.ndarray, float | None], list[Tensor]]


@dataclass(frozen=True)
class Slices:
    """Slices of any sizes, each (1, H, W) or in colour (3, H, W), with the chance (N,) and the least noise level (N,) of each."""

    images: list[Tensor]
    chance: Tensor
    sigma_from: Tensor

    def draw(self, count: int, generator: torch.Generator) -> list[int]:
        """Indices of ``count`` slices, drawn by their chance."""
        return torch.multinomial(self.chance, count, replacement=True, generator=generator).tolist()


def load_sets(
    root: Path,
    sets: Sequence[ImageSet],
    percentile: float | None,
    cache: Path | None = None,
    colour: bool = False,
) -> Slices:
    """All slices of the sets, each scaled so that the ``percentile`` of its magnitude is 1; empty ones are left out.

    Without a percentile values stay as they are. In ``colour`` every set is a folder of pictures.

    ``cache``: folder for the images of k-space. Nothing is read before all sets are known to be there and
    to keep slices. Raises `ConfigError` for one that is not, `InputError` for files that cannot be used.
    """
    sources = [open_source(root / entry.file, cache or root, colour) for entry in sets]
    plans = [chosen(entry, s.count, s.columns) for entry, s in zip(sets, sources, strict=True)]
    images, chances, floors = [], [], []
    for entry, source, (indices, chance) in zip(sets, sources, plans, strict=True):
        found = source.read(indices, percentile if entry.hounsfield is None else None)
        if entry.hounsfield is not None:
            found = [relative_attenuation(image, entry.hounsfield) for image in found]
        lit = np.array([image.numel() > 0 for image in found])
        if not lit.any():
            raise ConfigError(
                f"The set {entry.title} is dark.", "Every slice of it is zero nearly everywhere."
            )
        images += [image for image in found if image.numel()]
        chances.append(torch.from_numpy(entry.weight * chance[lit] / chance[lit].sum()))
        floors.append(torch.full((int(lit.sum()),), entry.sigma_from))
    return Slices(images, torch.cat(chances), torch.cat(floors))


def slices_of(config: Training, sets: Sequence[ImageSet]) -> Slices:
    """`load_sets` with the settings of a training."""
    return load_sets(config.root, sets, config.percentile, config.kspace_cache, config.colour)


def open_source(path: Path, cache: Path, colour: bool = False) -> SliceSource:
    """What is at ``path``, of which only names and sizes are read; raises `ConfigError` and `InputError`."""
    if colour and path.exists() and not (path.is_dir() and files_in(path, PICTURES)):
        raise ConfigError(
            f"The training set {path} has no colours.",
            "The training says colour: true, and only pictures have them.",
            "Name a folder of pictures, or set colour: false.",
        )
    if path.is_dir():
        pictures, scans = files_in(path, PICTURES), files_in(path, HDF5)
        if bool(pictures) == bool(scans):
            raise ConfigError(
                f"The training set {path} holds {'pictures and' if scans else 'neither pictures nor'} k-space.",
                "A folder is a set of pictures, or of HDF5 files of k-space.",
                "Give each kind a folder of its own." if scans else "Name the folder that holds the files.",
            )
        return kspace_source(scans, cache) if scans else picture_source(pictures, colour)
    if path.suffix.lower() in HDF5 and path.is_file():
        return kspace_source([path], cache)
    if path.is_file():
        return stack_source(path)
    raise ConfigError(
        f"The training set {path} does not exist.",
        do="Set data_root in the config, or --data-root, to the folder that holds it.",
    )


def stack_source(path: Path) -> SliceSource:
    """The ``images`` of an npz file."""
    count, store = stack_shape(path)[0], NpzStore(path)
    columns = {name: partial(store.fetch, name) for name in store.entries() if name != STACK}

    def read(indices: np.ndarray, percentile: float | None) -> list[Tensor]:
        return [scaled(image[None], percentile) for image in read_stack(path)[indices]]

    return SliceSource(count, columns, read)


def picture_source(files: Sequence[Path], colour: bool) -> SliceSource:
    """Pictures, in colour or as magnitudes."""

    def read(indices: np.ndarray, percentile: float | None) -> list[Tensor]:
        pictures = (torch.from_numpy(read_picture(files[index], colour)) for index in indices)
        return [scaled(picture if colour else picture[None], percentile) for picture in pictures]

    return SliceSource(len(files), {"subject": lambda: np.array([file.stem for file in files])}, read)


def kspace_source(files: Sequence[Path], cache: Path) -> SliceSource:
    """Fully sampled k-space, as coil-combined complex images."""
    scans = KSpaceScans(files, cache)

    def read(indices: np.ndarray, percentile: float | None) -> list[Tensor]:
        found = scans.images(indices, lambda image: scaled(image, percentile), f"percentile {percentile}")
        return [image[None] for image in found]

    return SliceSource(scans.count, scans.columns, read)


def relative_attenuation(image: Tensor, water: float) -> Tensor:
    """CT values, of which ``water`` is 0 HU, as attenuation over that of water: ``1 + HU / 1000``, 0 for air and below."""
    return (1 + (image - water) / 1000).clamp_min(0)


def scaled(image: Tensor, percentile: float | None) -> Tensor:
    """The image over the percentile of its magnitude, if there is one; without pixels where that is 0."""
    if percentile is None:
        return image
    top = torch.from_numpy(np.quantile(image.abs().numpy(), [percentile / 100])).float()
    return image / top if top > 0 else image[..., :0]
