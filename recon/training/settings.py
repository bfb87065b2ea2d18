"""What every training can be told."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..errors import ConfigError
from ..registry.configuration import construct
from .sets import ImageSet

MATRIX_PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Training:
    """Keys that every training has, with their defaults.

    ``data`` and ``validation``: .npz files with ``images`` (N, H, W), relative to ``data_root``.
    ``length``: ``{"minutes": m}`` or ``{"steps": n}``; the learning rate falls to zero over it.
    ``complex_images``: train on (real, imaginary) channels with smooth random phase.
    ``precision`` of the matrix work: "float32" or "bf16"; the weights stay in float32.
    """

    name: str
    data: tuple[str | dict, ...]
    length: dict[str, float]
    validation: tuple[str | dict, ...] = ()
    data_root: str = "."
    out: str = "out/train"
    complex_images: bool = True
    citation: tuple[str, ...] = ()
    percentile: float = 99.5
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
    init: str | None = None
    compile: bool = False
    checkpoint_minutes: float = 2.0

    def __post_init__(self):
        if set(self.length) not in ({"minutes"}, {"steps"}):
            raise ConfigError(
                f"length is {self.length}.",
                "A run is as long as a number of minutes or a number of steps.",
                "Write length: {minutes: 120} or length: {steps: 10000}.",
            )
        if self.precision not in MATRIX_PRECISIONS:
            raise ConfigError(
                f"precision is {self.precision!r}.", f"It is one of {', '.join(MATRIX_PRECISIONS)}."
            )

    @property
    def channels(self) -> int:
        """Real channels of an image: 2 of a complex one."""
        return 2 if self.complex_images else 1

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
    def files(self) -> list[Path]:
        """The files that are read."""
        return [self.root / each.file for each in (*self.sets, *self.validation_sets)]

    @property
    def sets(self) -> list[ImageSet]:
        """The sets that are trained on."""
        return [as_set(entry) for entry in self.data]

    @property
    def validation_sets(self) -> list[ImageSet]:
        """The sets that the weights are judged on."""
        return [as_set(entry) for entry in self.validation]


def as_set(entry: str | dict) -> ImageSet:
    """An entry of ``data``: the name of a file, or a mapping of `ImageSet`'s keys."""
    return ImageSet(entry) if isinstance(entry, str) else construct(ImageSet, entry, "A training set")
