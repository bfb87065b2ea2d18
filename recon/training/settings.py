"""What every training can be told."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..errors import ConfigError, unknown
from ..networks.load import find_card
from ..registry.configuration import refuse_unknown
from .sets import ImageSet, as_set, is_number

MATRIX_PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SHRINK = 0.25
AUGMENTATIONS = ("resample", "blur", "gamma", "scale", "shading", "shrink")


@dataclass(frozen=True)
class Training:
    """Keys that every training has, with their defaults.

    ``data`` and ``validation``: sets, each the name of a file or folder relative to ``data_root``, or a mapping of
    `ImageSet`'s keys. ``init``: weights to go on from, by path or by the name they ship under.
    ``length``: ``{"minutes": m}`` or ``{"steps": n}``; the learning rate falls to zero over it.
    ``complex_images``: train on (real, imaginary) channels with smooth random phase. ``colour``: train on the red,
    green and blue of pictures. ``percentile`` of the magnitude of each slice that becomes 1; null keeps the values.
    ``augment``: strengths of `augment.random_crops`, and ``shrink``, the probability of a smaller matrix
    (`augment.shrunk`). ``batch``: crops a step, of all processes together.
    ``precision`` of the matrix work: "float32", "bf16" or "fp16", with its loss scaled; the weights stay in float32.
    ``compile`` the network with `torch.compile`. ``cache``: folder for the images of k-space, ``out/kspace`` unless
    given. Raises `ConfigError` for values that no training can have.
    """

    name: str
    data: tuple[str | dict, ...]
    length: dict[str, float]
    validation: tuple[str | dict, ...] = ()
    data_root: str = "."
    out: str = "out/train"
    cache: str | None = None
    init: str | None = None
    complex_images: bool = True
    colour: bool = False
    citation: tuple[str, ...] = ()
    percentile: float | None = 99.5
    network: dict = field(default_factory=dict)
    augment: dict = field(default_factory=dict)
    batch: int = 8
    crop: int = 128
    lr: float = 0.015
    lr_vectors: float = 1e-3
    warmup_steps: int = 30
    decay_from: float = 0.4
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    precision: str = "float32"
    compile: bool = False
    checkpoint_minutes: float = 2.0

    def __post_init__(self):
        if (
            not isinstance(self.length, Mapping)
            or set(self.length) not in ({"minutes"}, {"steps"})
            or not all(is_number(value) and value > 0 for value in self.length.values())
        ):
            raise ConfigError(
                f"length is {self.length}.",
                "A run is as long as a number of minutes or a number of steps.",
                "Write length: {minutes: 120} or length: {steps: 10000}.",
            )
        if self.precision not in MATRIX_PRECISIONS:
            raise unknown("precision", str(self.precision), MATRIX_PRECISIONS)
        for key in ("batch", "crop"):
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{key} is {value!r}.", "It is a whole number above 0.")
        if self.percentile is not None and not (is_number(self.percentile) and 0 < self.percentile <= 100):
            raise ConfigError(
                f"percentile is {self.percentile!r}.", "It is above 0 and at most 100, or null."
            )
        if self.colour and self.complex_images:
            raise ConfigError(
                "colour and complex_images are both true.",
                "Colours are real.",
                "Set complex_images: false for photographs.",
            )
        if not isinstance(self.augment, Mapping):
            raise ConfigError(f"augment is {self.augment!r}.", "It maps names to strengths.")
        refuse_unknown(self.augment, AUGMENTATIONS, "The augmentation")
        for key, value in self.augment.items():
            top = 1 if key in ("resample", "blur", "shrink") else float("inf")
            if not is_number(value) or not 0 <= value <= top:
                kind = "a probability, 0 to 1" if top == 1 else "a strength, 0 or above"
                raise ConfigError(f"The augmentation {key} is {value!r}.", f"It is {kind}.")
        for key in ("data", "validation"):
            if not isinstance(getattr(self, key), tuple):
                raise ConfigError(f"{key} is {getattr(self, key)!r}.", "It is a list of sets.")
        if not self.data:
            raise ConfigError("data names no set.", "A network is trained on at least one.")
        for entry in (*self.data, *self.validation):
            as_set(entry)

    @property
    def channels(self) -> int:
        """Real channels of an image: 2 of a complex one, 3 in colour."""
        return 3 if self.colour else 2 if self.complex_images else 1

    @property
    def root(self) -> Path:
        """``data_root`` with its environment variables filled in."""
        return Path(os.path.expandvars(self.data_root))

    @property
    def weights(self) -> Path:
        """The file that the trained weights are written to; their card is beside it."""
        return Path(self.out) / f"{self.name}.safetensors"

    @property
    def checkpoint(self) -> Path:
        """The file from which an interrupted training goes on."""
        return Path(self.out) / "checkpoint.safetensors"

    @property
    def kspace_cache(self) -> Path:
        """The folder in which images of k-space are kept."""
        return Path(self.out) / "kspace" if self.cache is None else Path(os.path.expandvars(self.cache))

    @property
    def sets(self) -> list[ImageSet]:
        """The sets that are trained on."""
        return [as_set(entry) for entry in self.data]

    @property
    def validation_sets(self) -> list[ImageSet]:
        """The sets that the weights are judged on."""
        return [as_set(entry) for entry in self.validation]

    @property
    def files(self) -> list[Path]:
        """The files that are read."""
        sets = [self.root / each.file for each in (*self.sets, *self.validation_sets)]
        return [*sets, *with_card(self.init)]


def with_card(name: Any) -> list[Path]:
    """Weights and card of a network that a configuration names, none of None; raises `ConfigError`."""
    return [] if name is None else [find_card(name), find_card(name).with_suffix(".safetensors")]
