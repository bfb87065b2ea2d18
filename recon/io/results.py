"""Results as HDF5 that fastMRI's evaluation reads, written slice by slice so that an interrupted run can go on."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, SupportsFloat

import h5py
import numpy as np
from torch import Tensor

from ..errors import InputError, OutputError
from ..intervals import LEVEL, RULE, RULE_OF_VALUES
from .lock import WriteLock
from .stores.fastmri import datasets
from .targets import fitting
from .whole import HDF5_ERRORS, reserve, writing

KIND = "recon-result"
STRUCTURE = 2**16  # bytes that HDF5 needs beside the arrays, and more
VERSIONED = ("recon", "torch", "deepinv", "numpy", "h5py")

MEANING = {
    "reconstruction": "{mean} of the samples, in {unit}",
    "std": "standard deviation of the samples, in {unit}; NaN of one sample",
    "interval": "low and high end of the credible interval, in {unit}; NaN of one sample",
    "samples": "posterior samples, {kind}, in {unit}",
    "zero_filled": "image of the measured k-space without a prior, in {unit}",
    "fbp": "filtered back-projection of the sinogram, in {unit}",
    "residual": "median over the samples of |A x - y| per measured number, in units of the noise: near 1 where all is right",
    "mask": "true where k-space was used",
    "finished": "true where the slice is done",
}


@dataclass(frozen=True)
class Images:
    """What the images of a result are: their ``unit`` in words, whether they are ``real``, and which is made ``without`` a prior."""

    unit: str = "the units of the k-space file"
    real: bool = False
    without: str = "zero_filled"

    @property
    def meaning(self) -> dict[str, str]:
        """What each array of the file holds."""
        words = {
            "unit": self.unit,
            "kind": "real" if self.real else "complex",
            "mean": "mean" if self.real else "magnitude of the mean",
        }
        return {name: text.format(**words) for name, text in MEANING.items()}


OF_KSPACE = Images()


@dataclass(frozen=True)
class SavedResult:
    """A result in memory: images (slices, h, w) float32 in the units of the k-space file, or of the sinogram.

    ``samples`` (slices, S, h, w), complex64 of k-space, float32 of sinograms, are read only if asked for. ``zero_filled``
    is the image without a prior of k-space, ``fbp`` that of sinograms, the other is None. ``interval`` (slices, 2, h, w) holds
    the low and high ends of the 90 % interval, ``residual`` (slices,) how far the samples are from the
    measurements in units of the noise; both are None in files of older versions. ``scores`` has one value
    per slice for each metric, NaN without a reference; ``conventions`` says how each is defined.
    """

    path: Path
    reconstruction: np.ndarray
    std: np.ndarray
    interval: np.ndarray | None
    residual: np.ndarray | None
    zero_filled: np.ndarray | None
    fbp: np.ndarray | None
    samples: np.ndarray | None
    mask: np.ndarray | None
    config: dict[str, Any]
    seed: int
    versions: dict[str, str]
    scores: dict[str, np.ndarray]
    conventions: dict[str, str]
    attrs: dict[str, Any]


def fingerprint(config: Mapping[str, Any], source: str = "") -> str:
    """Hash of a resolved configuration and of the data it is applied to (`Survey.fingerprint`)."""
    text = json.dumps(config, sort_keys=True, default=str) + "\n" + source
    return hashlib.sha256(text.encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on, by name."""
    found = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def part_of(path: Path) -> Path:
    """The file through which the result ``path`` is written, ``path.part``."""
    return fitting(path.parent, path.name, ".part")


def is_done(path: str | Path, config: Mapping[str, Any], source: str = "", overwrite: bool = False) -> bool:
    """Whether a result of this configuration and this data is at ``path`` with all its slices finished.

    Raises `OutputError` where something else is there, or what was begun beside it is of other settings
    or is not readable, unless ``overwrite``.
    """
    if overwrite:
        return False
    path, part, wanted = Path(path), part_of(Path(path)), fingerprint(config, source)
    old, begun = provenance(path), provenance(part)
    if old is not None and old.fingerprint == wanted and old.complete:
        return True
    if begun is not None and begun.fingerprint == wanted:
        return False  # what is at ``path`` an interrupted run had leave to replace
    if path.exists() and old is None:
        raise OutputError(
            f"{path} is in the way.",
            "It is not a result of this program, or is damaged, so it is not replaced.",
            "Move it, choose another folder with --out, or replace it with --overwrite.",
        )
    if old is not None and old.fingerprint != wanted:
        raise OutputError(
            f"{path} was made with other settings.",
            difference(old.config, config),
            "Keep both with another --out, or replace it with --overwrite.",
        )
    if part.exists() and begun is None:
        raise OutputError(
            f"{part} cannot be continued.",
            "It is damaged, or a run on another machine is writing it.",
            "Wait for that run, or remove the file, or start again with --overwrite.",
        )
    if begun is not None:
        raise OutputError(
            f"{part} was begun with other settings.",
            difference(begun.config, config),
            "Use the old settings to continue it, or remove it or use --overwrite to start again.",
        )
    return False


class ResultWriter:
    """Write a result through ``path.part``, which a later run with the same configuration continues.

    All space is reserved at once and finishing a slice changes nothing in the structure of the file, so
    a run that is killed leaves a file that can be read. Use it as a context manager: leaving closes the
    file, and after the last slice `finish` renames it to ``path``. The writer holds a lock on ``path``
    until it is closed.

    ``size`` is (h, w), ``samples`` the number S of samples per slice, ``source`` the data's fingerprint
    (`Survey.fingerprint`); ``scores`` names the metrics that will be written, with their conventions.

    Raises `OutputError` where the disk is full or the folder cannot be written, where another run is
    writing the same result, and, unless ``overwrite``, where a result or a ``.part`` of other settings is
    in the way.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        slices: int,
        size: tuple[int, int],
        samples: int,
        config: Mapping[str, Any],
        seed: int,
        source: str = "",
        mask: Tensor | None = None,
        scores: Mapping[str, str] | None = None,
        attrs: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        images: Images = OF_KSPACE,
    ):
        self.path, self.part, self.images = Path(path), part_of(Path(path)), images
        shape = (slices, samples, *size)
        with writing(self.part):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = WriteLock(self.path)
            try:
                if is_done(self.path, config, source, overwrite):
                    raise OutputError(
                        f"{self.path} is done already.",
                        "It was made with these settings.",
                        "Replace it with --overwrite.",
                    )
                if overwrite:
                    self.part.unlink(missing_ok=True)
                if self.part.exists():
                    self._file = self._continued(shape)
                else:
                    self._file = self._created(shape, config, seed, source, mask, scores or {}, attrs or {})
            except BaseException:
                self._lock.release()
                raise

    def _created(
        self,
        shape: tuple[int, int, int, int],
        config: Mapping[str, Any],
        seed: int,
        source: str,
        mask: Tensor | None,
        scores: Mapping[str, str],
        attrs: Mapping[str, Any],
    ) -> h5py.File:
        """A new file with everything in it but the slices."""
        slices, samples, height, width = shape
        described = json.dumps(config, indent=2, sort_keys=True, default=str)
        each = 1 if self.images.real else 2
        arrays = 4 * slices * height * width * (5 + each * samples) + height * width
        reserve(
            self.part, arrays + len(described) + STRUCTURE + 256 * slices
        )  # scores, and whether it is finished
        file = None
        try:
            file = h5py.File(self.part, "w")
            for name, size, kind in (
                ("reconstruction", (slices, height, width), np.float32),
                ("std", (slices, height, width), np.float32),
                ("interval", (slices, 2, height, width), np.float32),
                (self.images.without, (slices, height, width), np.float32),
                ("samples", shape, np.float32 if self.images.real else np.complex64),
            ):
                allocate(file, name, size, kind, np.nan)
            allocate(file, "residual", (slices,), np.float64, np.nan)
            allocate(file, "finished", (slices,), np.bool_, False)
            if mask is not None:
                file["mask"] = mask.cpu().numpy()
            file["config"] = described
            group = file.create_group("scores")
            for name, convention in scores.items():
                allocate(group, name, (slices,), np.float64, np.nan)
                group[name].attrs["convention"] = convention
            for name, meaning in self.images.meaning.items():
                if name in file:
                    file[name].attrs["meaning"] = meaning
            file["interval"].attrs.update(level=LEVEL, method=RULE_OF_VALUES if self.images.real else RULE)
            for name, value in attrs.items():
                file.attrs[name] = value
            file.attrs.update(
                kind=KIND,
                seed=seed,
                versions=json.dumps(versions()),
                source=source,
                fingerprint=fingerprint(config, source),
            )
            file.flush()
        except BaseException:
            if file is not None:
                with suppress(*HDF5_ERRORS):  # closing writes, which may be what failed
                    file.close()
            self.part.unlink()
            raise
        return file

    def _continued(self, shape: tuple[int, int, int, int]) -> h5py.File:
        """What an earlier run with the same settings left."""
        file = h5py.File(self.part, "r+")
        found = file["samples"].shape
        if found != shape:
            file.close()
            raise OutputError(
                f"{self.part} was begun for samples of shape {found}, not {shape}.",
                "Its input was another one.",
                "Remove it, or start again with --overwrite.",
            )
        return file

    def __enter__(self) -> ResultWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def finished(self) -> list[bool]:
        """For each slice, whether it is finished."""
        return [bool(done) for done in self._file["finished"][:]]

    @property
    def todo(self) -> list[int]:
        """The slices that are not finished yet."""
        return [i for i, done in enumerate(self.finished) if not done]

    def write(
        self,
        index: int,
        *,
        mean: Tensor,
        samples: Tensor,
        zero_filled: Tensor | None = None,
        fbp: Tensor | None = None,
        std: Tensor | None = None,
        interval: Tensor | None = None,
        residual: float = math.nan,
        scores: Mapping[str, SupportsFloat] | None = None,
    ) -> None:
        """Write slice ``index``: ``mean``, ``zero_filled`` or ``fbp``, and ``std`` (h, w), ``interval`` (2, h, w), ``samples`` (S, h, w).

        ``residual``: `SavedResult.residual` of the slice. The slice counts as finished only once everything else of it is in the file. Raises `OutputError`.
        """
        file = self._file
        with writing(self.part):
            file["reconstruction"][index] = host(mean if self.images.real else mean.abs())
            without = zero_filled if fbp is None else fbp
            if without is not None:
                file[self.images.without][index] = host(without if self.images.real else without.abs())
            file["samples"][index] = host(samples)
            if std is not None:
                file["std"][index] = host(std)
            if interval is not None and "interval" in file:  # a file that an older version began has none
                file["interval"][index] = host(interval)
            if "residual" in file:
                file["residual"][index] = residual
            for name, value in (scores or {}).items():
                file["scores"][name][index] = float(value)
            file.flush()
            file["finished"][index] = True
            file.flush()

    @property
    def scores(self) -> dict[str, np.ndarray]:
        """For each metric the scores of all slices, also those of an earlier run; NaN where there is none."""
        return {name: data[:] for name, data in self._file["scores"].items()}

    def finish(self) -> Path:
        """Rename the ``.part`` to its final name.

        Raises `OutputError` while a slice is missing, where the file is no longer the one that was
        written, and where the disk kept less of it than was written.
        """
        if self.todo:
            raise OutputError(
                f"{self.part} is not complete.", f"Slices {self.todo} are missing.", "Reconstruct them first."
            )
        if not self._is_own():
            raise OutputError(
                f"{self.part} is no longer the file that was written.",
                "It was removed or replaced during the run.",
                "Run the same command again.",
            )
        with writing(self.part):
            self._file.close()
            with open(self.part, "rb+") as file:
                os.fsync(file.fileno())
            kept = provenance(self.part)
            if kept is None or not kept.complete:
                raise OSError(errno.EIO, "The disk kept less than was written")
            os.replace(self.part, self.path)
        self.close()
        return self.path

    def close(self) -> None:
        """Leave what is done for a later run, and let others write."""
        try:
            with writing(self.part):
                self._file.close()
        finally:
            self._lock.release()

    def discard(self) -> None:
        """Close, and remove what was begun."""
        try:
            if self._is_own():
                self.part.unlink()
            with suppress(*HDF5_ERRORS):  # closing writes, which may be what failed
                self._file.close()
        finally:
            self._lock.release()

    def _is_own(self) -> bool:
        """Whether the ``.part`` still is the file that this writer has open."""
        try:
            return bool(self._file) and os.path.samestat(
                os.fstat(self._file.id.get_vfd_handle()), self.part.stat()
            )
        except OSError:
            return False


def read_result(path: str | Path, samples: bool = False) -> SavedResult:
    """Read what `ResultWriter` wrote, finished or not (unfinished slices are NaN).

    Raises `InputError` where ``path`` is not such a file.
    """
    path = Path(path)
    if not path.is_file() or provenance(path) is None:
        raise InputError(
            f"{path} is not a result.",
            "It does not exist, is damaged, or was written by another program.",
            "Make one with: recon reconstruct FILE",
        )
    with h5py.File(path, "r") as file:
        scores = file["scores"]
        attrs = dict(file.attrs)
        return SavedResult(
            path=path,
            reconstruction=file["reconstruction"][()],
            std=file["std"][()],
            interval=file["interval"][()] if "interval" in file else None,
            residual=file["residual"][()] if "residual" in file else None,
            zero_filled=file["zero_filled"][()] if "zero_filled" in file else None,
            fbp=file["fbp"][()] if "fbp" in file else None,
            samples=file["samples"][()] if samples else None,
            mask=file["mask"][()] if "mask" in file else None,
            config=json.loads(file["config"][()]),
            seed=int(attrs["seed"]),
            versions=json.loads(attrs["versions"]),
            scores={name: data[()] for name, data in scores.items()},
            conventions={name: data.attrs["convention"] for name, data in scores.items()},
            attrs=attrs,
        )


def allocate(group: h5py.Group, name: str, shape: tuple[int, ...], kind: Any, fill: Any) -> None:
    """Add a dataset whose space is allocated now, so that writing to it later moves nothing in the file."""
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_ALLOC)
    settings.set_fill_value(np.array(fill, dtype=kind))
    settings.set_obj_track_times(False)  # the same run writes the same bytes
    space, dtype = h5py.h5s.create_simple(shape), h5py.h5t.py_create(np.dtype(kind), logical=True)
    h5py.h5d.create(group.id, name.encode(), dtype, space, dcpl=settings)


@dataclass(frozen=True)
class Provenance:
    """What a result was made from (`fingerprint`, settings), and whether all its slices are finished."""

    fingerprint: str
    config: dict[str, Any]
    complete: bool


def provenance(path: Path) -> Provenance | None:
    """Where a result comes from; None where ``path`` is not a result, not readable, or leads into other files."""
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("kind") != KIND or any(info.outside for _, info in datasets(file)):
                return None
            return Provenance(
                str(file.attrs["fingerprint"]),
                json.loads(file["config"][()]),
                bool(file["finished"][()].all()),
            )
    except (*HDF5_ERRORS, KeyError):
        return None


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The settings in which two configurations differ, as one sentence."""
    before, after = flat(old), flat(json.loads(json.dumps(new, default=str)))
    changed = [k for k in sorted(before.keys() | after.keys()) if before.get(k) != after.get(k)]
    if not changed:
        return "The settings are the same, but the data are not."
    shown = [f"{k} was {before.get(k)!r} and is now {after.get(k)!r}" for k in changed[:3]]
    return "; ".join(shown) + (f"; and {len(changed) - 3} more." if len(changed) > 3 else ".")


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level, with names such as ``mask.accel``."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def host(image: Tensor) -> np.ndarray:
    """A tensor of any device as an array."""
    return image.detach().cpu().numpy()
