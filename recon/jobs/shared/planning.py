"""The k-space files that a job is given: found, inspected, and planned before any work starts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import ConfigError, InputError
from ...io import READERS, KSpaceFile, Survey, files_in, read_maps
from ...io.acquisition import Acquisition, acquire, refuse_few_lines
from ...io.checks.maps import are_conjugated, unit_maps
from ...priors import about
from ...registry.recipe import build
from .coils import Mixing, mixing
from .memory import memory
from .settings import Settings


@dataclass(frozen=True, eq=False)
class PlannedFile:
    """One input that can be used, and what will be done with it.

    ``source`` is the fingerprint of its k-space, ``config`` everything else that the result depends on,
    ``maps`` a file of sensitivity maps, ``conjugated`` whether their phase is turned, ``mixing`` how the file's coils
    become ``coils``, ``notes`` sentences about what is unusual, ``done`` whether ``target`` holds this result already.
    """

    file: KSpaceFile
    acquisition: Acquisition
    source: str
    target: Path
    config: dict[str, Any]
    maps: str | None
    mixing: Mixing
    conjugated: bool = False
    notes: tuple[str, ...] = ()
    done: bool = False

    @property
    def coils(self) -> int:
        """Number of coils that are reconstructed."""
        return len(self.mixing.matrix)

    @property
    def whitened(self) -> bool:
        """Whether the coils are weighted by their noise."""
        return bool(self.config.get("whiten"))

    @property
    def cropped_readout(self) -> bool:
        """Whether the oversampled readout is cropped to the image before the reconstruction, not after it."""
        cropped = self.file.trajectory is None and self.file.crop[0] < self.file.height
        return cropped and self.acquisition.whole_columns

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image that is sampled."""
        height, width = self.file.image_shape[2:]
        return (self.file.crop[0] if self.cropped_readout else height, width)


def kspace_files(inputs: Sequence[str | Path], failed: Callable[[Path, Exception], None]) -> list[Path]:
    """The files named by ``inputs``, each once; a folder stands for the k-space files in it.

    ``failed`` is told of a folder that cannot be read or holds none.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, inputs):
        try:
            for file in kspace_in(path) if path.is_dir() else [path]:
                found.setdefault(file.resolve(), file)
        except InputError as error:
            failed(path, error)
    return list(found.values())


def kspace_in(folder: Path) -> list[Path]:
    """The k-space files in a folder; raises `InputError` where there is none or it cannot be read."""
    suffixes = [suffix for suffix in READERS if suffix != ".hdr"]  # its .cfl stands for it
    files = files_in(folder, suffixes)
    if not files:
        raise InputError(
            f"The folder {folder} holds no k-space.",
            f"No file in it ends in {', '.join(suffixes)}.",
            "Name the files, or another folder.",
        )
    return files


def plan_file(file: KSpaceFile, found: Survey, target: Path, settings: Settings, prior: Any) -> PlannedFile:
    """How ``file`` is reconstructed with these settings.

    Raises `ConfigError` and `InputError` where mask, maps, coils or the size of the image do not allow it.
    """
    recipe = settings.recipe
    acquisition = acquire(file, found, settings.mask)
    mixed = mixing(file, found, acquisition, settings)
    coils, conjugated, notes = len(mixed.matrix), False, list(mixed.said)
    if settings.maps is not None or file.maps is not None:
        conjugated, said = settled_maps(file, found, acquisition.mask, settings.maps)
        notes += said
    elif coils > 1:
        refuse_few_lines(file, acquisition, recipe.kernel)
        if recipe.sets is not None and recipe.sets > coils:
            raise ConfigError(
                f"{file.path}: {recipe.sets} sets of maps were asked for.",
                f"It has {coils} coils.",
                "Use --sets 1.",
            )
    config = {
        **asdict(recipe),
        "prior_sha256": about(prior).card.get("sha256", ""),
        "mask": asdict(settings.mask) | {"digest": digest(acquisition.mask.numpy().tobytes())},
        "maps": None if settings.maps is None else digest(Path(settings.maps).read_bytes()),
        "dtype": settings.runtime.precision,
    }
    if settings.whiten or settings.coils is not None:  # what was begun without them goes on
        config |= {"whiten": settings.whiten, "coils": settings.coils}
    if file.trajectory is not None:
        config |= {"matrix": file.trajectory.size}
    if settings.layout.axes or file.shifted or file.rolled:
        config |= {"axes": settings.layout.axes, "shifted": file.shifted, "rolled": file.rolled}
    plan = PlannedFile(
        file,
        acquisition,
        found.fingerprint,
        target,
        config,
        settings.maps,
        mixed,
        conjugated,
        (*file.notes, *acquisition.notes, *notes),
    )
    about(prior).space.refuse_size(plan.size)
    return plan


def settled_maps(file: KSpaceFile, found: Survey, mask: Tensor, path: str | None) -> tuple[bool, list[str]]:
    """Whether the maps in the file at ``path``, None for the file's own, are conjugated, and what is to be said of them.

    Every slice's are read; the loudest slice tells. Raises `InputError` for maps that do not fit.
    """
    said: dict[str, None] = {}
    loudest = int(found.by_slice.argmax())
    conjugated, fit = False, ""
    for index in range(file.slices):
        piece = file.read_slice(index)
        maps = piece.maps if path is None else read_maps(path, file, index)
        assert maps is not None
        maps, scaled = unit_maps(maps)
        said |= {scaled: None} if scaled else {}
        if index == loudest and file.trajectory is None:
            conjugated, fit = are_conjugated(maps, piece.kspace, mask)
    return conjugated, [*said, *([fit] if fit else [])]


def noted_lines(plan: PlannedFile) -> list[str]:
    """What is unusual about a file and its mask and maps, a line each."""
    return [f"  note: {note}" for note in plan.notes]


def digest(data: bytes) -> str:
    """A short hash, in hexadecimal."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def plan_in_words(plan: PlannedFile, settings: Settings, prior: Any, slices: int | None = None) -> str:
    """What would be done with a file, or with ``slices`` of its slices, for ``--dry-run``."""
    file, recipe = plan.file, settings.recipe
    maps = "given" if plan.maps or file.maps else "estimated" if plan.coils > 1 else "none, one coil"
    sampler, solver = build(recipe, prior)
    calls = (slices or file.slices) * sampler.network_calls(solver, recipe.steps, recipe.last_level(prior))
    needed = memory(plan.size, plan.coils, settings, prior)
    lines = [
        f"{file.path} -> {plan.target}" + (" (done already)" if plan.done else ""),
        f"  {file.counts}, {file.height} x {file.width}, image {file.crop[0]} x {file.crop[1]}",
        f"  {'mask' if file.trajectory is None else 'trajectory'}: {plan.acquisition}; maps: {maps}",
        f"  {0 if plan.done else calls} network calls of {recipe.samples} samples in "
        f"{settings.runtime.precision}; about {needed / 2**30:.1f} GiB of memory",
        *noted_lines(plan),
    ]
    return "\n".join(lines)
