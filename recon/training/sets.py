"""Training sets as settings: which slices of a file or folder are meant, and how often each is drawn."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import ConfigError, nearest
from ..registry.configuration import construct


@dataclass(frozen=True)
class ImageSet:
    """One entry of a training's ``data`` or ``validation``; the name of a file alone is one with the defaults.

    ``file``: an npz file with ``images`` (N, H, W), a folder of pictures, or fully sampled k-space (an HDF5 file
    or a folder of them), relative to ``data_root``. ``weight``: the set's share of the draws, relative to the other
    sets'; within a set all slices are alike unless ``balance`` names arrays (such as ``contrast``): each combination
    of their values is then drawn in proportion to the square root of its number of slices. ``only`` and
    ``without``: {array: values}, the slices that are kept or left out. ``hold_out``: the share of the
    subjects that is left out (`is_held_out`); with ``held_out`` the set is these alone. ``sigma_from``: the least
    noise level that its slices are shown at, for data that have a noise or compression floor of their own. ``skip``: the indices ``[first, end)`` of
    slices that are left out, such as a block of a volume. ``hounsfield``: of CT, the stored value of 0 HU; images are
    then the attenuation over that of water, ``1 + HU / 1000``, never below 0.

    Arrays are those of the npz file, one value a slice. A folder has ``subject``, the name of the picture or of the
    k-space file; k-space has the texts of its attributes too (fastMRI: ``acquisition``, and ``patient_id``, which then
    is the subject). Raises `ConfigError` for values that no set can have.
    """

    file: str
    weight: float = 1.0
    only: Mapping[str, Any] = field(default_factory=dict)
    without: Mapping[str, Any] = field(default_factory=dict)
    balance: tuple[str, ...] = ()
    hold_out: float = 0.0
    held_out: bool = False
    sigma_from: float = 0.0
    skip: tuple[int, int] | None = None
    hounsfield: float | None = None

    def __post_init__(self):
        if not isinstance(self.file, str) or not self.file:
            raise self.wrong("file", "It is the name of a file or folder.")
        if not is_number(self.weight) or self.weight <= 0:
            raise self.wrong(
                "weight", "It is a number above 0.", "Leave the set out if it shall not be drawn."
            )
        if not is_number(self.hold_out) or not 0 <= self.hold_out < 1:
            raise self.wrong("hold_out", "It is a share of the subjects, from 0 to below 1.")
        if not isinstance(self.held_out, bool) or (self.held_out and not self.hold_out):
            raise self.wrong("held_out", "It is true or false, and true only beside hold_out.")
        if not is_number(self.sigma_from) or self.sigma_from < 0:
            raise self.wrong("sigma_from", "It is a noise level, 0 or above.")
        if self.hounsfield is not None and not is_number(self.hounsfield):
            raise self.wrong("hounsfield", "It is the stored value of 0 HU, such as 1024.")
        if self.skip is not None:
            block = tuple(self.skip) if isinstance(self.skip, list | tuple) else ()
            if len(block) != 2 or not all(type(n) is int for n in block) or not 0 <= block[0] < block[1]:
                raise self.wrong("skip", "It is the first slice that is left out and the next one kept.")
            object.__setattr__(self, "skip", block)
        for key in ("only", "without"):
            chosen = getattr(self, key)
            if not isinstance(chosen, Mapping):
                raise self.wrong(
                    key, "It maps names of arrays to values.", f"Write {key}: {{source: [NAME]}}."
                )
            object.__setattr__(self, key, {str(name): texts(values) for name, values in chosen.items()})
        object.__setattr__(self, "balance", texts(self.balance))

    def wrong(self, key: str, why: str, do: str = "") -> ConfigError:
        """The error for the value of ``key``."""
        return ConfigError(f"The {key} of the set {self.file} is {getattr(self, key)!r}.", why, do)

    @property
    def title(self) -> str:
        """The set in words: its file and what is chosen of it."""
        words = [f"only {name} {' '.join(values)}" for name, values in self.only.items()]
        words += [f"without {name} {' '.join(values)}" for name, values in self.without.items()]
        if self.skip:
            words.append(f"without slices {self.skip[0]} to {self.skip[1] - 1}")
        if self.hold_out:
            kept = "the" if self.held_out else "without the"
            words.append(f"{kept} {self.hold_out:.0%} of the subjects held out")
        return ", ".join([self.file, *words])


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def texts(values: Any) -> tuple[str, ...]:
    """A value, or several, as texts: what arrays of names are compared with."""
    return tuple(map(str, values)) if isinstance(values, list | tuple) else (str(values),)


def as_set(entry: Any) -> ImageSet:
    """An entry of ``data``: the name of a file, or a mapping of `ImageSet`'s keys; raises `ConfigError`."""
    if isinstance(entry, Mapping):
        return construct(ImageSet, entry, "A training set")
    return ImageSet(entry)


def is_held_out(subject: str, share: float) -> bool:
    """Whether a subject belongs to the ``share`` that is held out: ``md5(name)``, its first 8 bytes as a fraction, < share.

    So a subject is held out for ever, whatever others there are.
    """
    digest = hashlib.md5(subject.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


Columns = Mapping[str, Callable[[], np.ndarray]]
"""The arrays of a set by name, each read when asked for."""


def chosen(entry: ImageSet, count: int, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the slices that the entry keeps, of ``count``, and the chance of each, summing to 1.

    Raises `ConfigError` for an array that is absent or of another length, for a value that no slice has,
    and where no slice is kept.
    """

    def column(name: str) -> np.ndarray:
        if name not in columns:
            raise ConfigError(
                f'{entry.file} has no array "{name}".',
                f"It has {', '.join(sorted(columns)) or 'none but its images'}.",
                nearest(name, columns),
            )
        values = np.asarray(columns[name]()).astype(str)
        if values.shape != (count,):
            raise ConfigError(
                f'The array "{name}" of {entry.file} has shape {values.shape}.',
                f"It has one value a slice, ({count},).",
            )
        return values

    def among(name: str, values: tuple[str, ...]) -> np.ndarray:
        found = column(name)
        for value in values:
            if value not in found:
                raise ConfigError(
                    f'No slice of {entry.file} has the {name} "{value}".',
                    f"There are {', '.join(np.unique(found)[:12])}.",
                    nearest(value, np.unique(found)),
                )
        return np.isin(found, values)

    kept = np.ones(count, bool)
    for name, values in entry.only.items():
        kept &= among(name, values)
    for name, values in entry.without.items():
        kept &= ~among(name, values)
    if entry.skip:
        kept[slice(*entry.skip)] = False
    if entry.hold_out:
        held = np.array([is_held_out(subject, entry.hold_out) for subject in column("subject")], bool)
        kept &= held if entry.held_out else ~held
    if not kept.any():
        raise ConfigError(
            f"The set {entry.title} keeps no slice.",
            f"{entry.file} has {count}, and none is left.",
            "Loosen only, without or hold_out.",
        )
    chance = np.ones(count)
    if entry.balance:
        rows = np.stack([column(name) for name in entry.balance], 1)[kept]
        _, group, sizes = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
        chance[kept] = sizes[group.reshape(-1)] ** -0.5
    return np.flatnonzero(kept), chance[kept] / chance[kept].sum()
