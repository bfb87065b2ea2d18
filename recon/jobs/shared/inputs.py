"""The k-space files that a job is given: found, looked at, and planned before any work starts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import ConfigError, InputError
from ...io import (
    READERS,
    KSpaceFile,
    Scan,
    is_done,
    read_maps,
)
from ...io.acquisition import Acquisition, acquire, refuse_few_lines
from ...io.lock import refuse_busy
from ...latent import LatentPrior
from .settings import Settings


@dataclass(frozen=True, eq=False)
class PlannedFile:
    """One input, looked at and found usable: what will be done with it."""

    file: KSpaceFile
    acquisition: Acquisition
    source: str
    target: Path
    config: dict[str, Any]
    maps: str | None
    done: bool

    @property
    def cropped_readout(self) -> bool:
        """Whether the oversampled readout is cut to the image before the work instead of after it."""
        return self.acquisition.whole_columns and self.file.crop[0] < self.file.height

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image that is sampled."""
        return (self.file.crop[0] if self.cropped_readout else self.file.height, self.file.width)


def expand(inputs: Sequence[str | Path], failed: Callable[[Path, Exception], None]) -> list[Path]:
    """The files named by ``inputs``, each once; a folder stands for the k-space files in it."""
    found: dict[Path, Path] = {}
    for path in map(Path, inputs):
        files = [path]
        if path.is_dir():
            suffixes = [suffix for suffix in READERS if suffix != ".hdr"]  # its .cfl stands for it
            files = sorted(f for f in path.iterdir() if f.suffix.lower() in suffixes and f.is_file())
            if not files:
                failed(
                    path,
                    InputError(
                        f"The folder {path} holds no k-space.",
                        f"No file in it ends in {', '.join(suffixes)}.",
                        "Name the files, or another folder.",
                    ),
                )
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def plan_file(
    file: KSpaceFile, found: Scan, target: Path, settings: Settings, prior: Any, overwrite: bool
) -> PlannedFile:
    """Settle how a file that was looked at is reconstructed; raises what cannot be."""
    recipe = settings.recipe
    acquisition = acquire(file, found, settings.mask)
    if settings.maps is not None:
        for index in range(file.slices):
            read_maps(settings.maps, file, index)
    elif file.maps is None and file.coils > 1:
        refuse_few_lines(file, acquisition, recipe.kernel)
        if recipe.sets is not None and recipe.sets > file.coils:
            raise ConfigError(
                f"{file.path}: {recipe.sets} sets of maps were asked for.",
                f"It has {file.coils} coils.",
                "Use --sets 1.",
            )
    config = {
        **asdict(recipe),
        "prior_sha256": getattr(prior, "card", {}).get("sha256", ""),
        "mask": asdict(settings.mask) | {"digest": digest(acquisition.mask.numpy().tobytes())},
        "maps": None if settings.maps is None else digest(Path(settings.maps).read_bytes()),
        "dtype": settings.runtime.dtype,
    }
    refuse_busy(target)
    done = is_done(target, config, found.fingerprint, overwrite)
    plan = PlannedFile(file, acquisition, found.fingerprint, target, config, settings.maps, done)
    if isinstance(prior, LatentPrior):
        prior.refuse_size(plan.size)
    return plan


def digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
