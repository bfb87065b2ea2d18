"""Results as HDF5 that fastMRI's evaluation reads, written slice by slice so that a run can be continued."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, SupportsFloat

import h5py
import numpy as np
from torch import Tensor

from ..errors import InputError, OutputError, ReconError
from ..intervals import LEVEL, RULE

PART = ".part"
KIND = "recon-result"
VERSIONED = ("recon", "torch", "deepinv", "numpy", "h5py")

MEANING = {
    "reconstruction": "magnitude of the mean of the samples, in the units of the k-space file",
    "std": "standard deviation of the samples, in the units of the k-space file; NaN of one sample",
    "interval": "low and high end of the credible interval, in the units of the k-space file; NaN of one sample",
    "samples": "posterior samples, complex, in the units of the k-space file",
    "zero_filled": "image of the measured k-space without a prior, in the units of the k-space file",
    "mask": "true where k-space was used",
    "finished": "true where the slice is done",
}


@dataclass(frozen=True)
class SavedResult:
    """A finished result: images (slices, h, w) float32, ``samples`` (slices, S, h, w) complex64 if asked for.

    ``interval`` (slices, 2, h, w) are its low and high ends; None in files older than it.
    ``scores`` has one value a slice for each metric, with its convention in ``conventions``; NaN
    where there was no reference.
    """

    path: Path
    reconstruction: np.ndarray
    std: np.ndarray
    interval: np.ndarray | None
    zero_filled: np.ndarray
    samples: np.ndarray | None
    mask: np.ndarray | None
    config: dict[str, Any]
    seed: int
    versions: dict[str, str]
    scores: dict[str, np.ndarray]
    conventions: dict[str, str]
    attrs: dict[str, Any]


def fingerprint(config: Mapping[str, Any], source: str = "") -> str:
    """Hash of a resolved configuration and of the data it is applied to (`Scan.fingerprint`)."""
    text = json.dumps(config, sort_keys=True, default=str) + "\n" + source
    return hashlib.sha256(text.encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of what made a result."""
    found = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def result_paths(inputs: Sequence[str | Path], folder: str | Path) -> list[Path]:
    """``folder/<stem>.h5`` for each input.

    Raises `OutputError` where two inputs would write the same file, or one would overwrite an input.
    """
    taken: dict[Path, Path] = {}
    sources = {Path(source).resolve(): Path(source) for source in inputs}
    paths = []
    for source in map(Path, inputs):
        path = Path(folder) / f"{source.stem}.h5"
        if path in taken:
            raise OutputError(
                f"{taken[path]} and {source} would both be written to {path}.",
                "Results are named after their input, and these two share a name.",
                "Rename one, or reconstruct them into different folders with --out.",
            )
        if path.resolve() in sources:
            raise OutputError(
                f"The result of {source} would overwrite {sources[path.resolve()]}.",
                "Results are named after their input, and the output folder is the input's.",
                "Choose another folder with --out.",
            )
        taken[path] = source
        paths.append(path)
    return paths


def check_folder(folder: str | Path) -> Path:
    """The output folder, which may not exist yet, if files can be written there; leaves nothing behind.

    Raises `OutputError` where they cannot.
    """
    folder = Path(folder)
    there = next((p for p in (folder, *folder.absolute().parents) if p.exists()), Path.cwd())
    try:
        if not there.is_dir():
            raise NotADirectoryError(f"{there} is a file")
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise OutputError(
            f"Nothing can be written to the folder {folder}.",
            f"{error.strerror or error}.",
            "Choose another folder with --out, or change who may write there.",
        ) from error
    return folder


def is_done(path: str | Path, config: Mapping[str, Any], source: str = "", overwrite: bool = False) -> bool:
    """Whether a finished result of this configuration and this data is at ``path``.

    Raises `OutputError` where something else is there, unless ``overwrite``.
    """
    path = Path(path)
    if not path.exists() or overwrite:
        return False
    old = identity(path)
    if old is None:
        raise OutputError(
            f"{path} is in the way.",
            "It is no result of this program, so it is not replaced.",
            "Move it, choose another folder with --out, or replace it with --overwrite.",
        )
    if old[0] != fingerprint(config, source):
        raise OutputError(
            f"{path} was made with other settings.",
            difference(old[1], config),
            "Keep both with another --out, or replace it with --overwrite.",
        )
    return True


class ResultWriter:
    """Writes ``path`` through ``path.part``, which a later run with the same configuration continues.

    All space is taken at once and a finished slice changes no structure of the file, so a run that
    is killed leaves a file that can be read. Use it as a context manager: leaving closes it, and
    the last slice done, `finish` renames it to ``path``.

    ``size`` is (h, w) and ``samples`` the number S of samples a slice; ``source`` is the data's
    `Scan.fingerprint`; ``scores`` names the metrics that will be written, with their conventions.

    Raises `OutputError` where the folder cannot be written, or where a ``.part`` of other settings
    or another run is in the way (unless ``overwrite``).
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
    ):
        self.path = Path(path)
        self.part = self.path.with_name(self.path.name + PART)
        self._config, self._source = config, source
        self._overwrite = overwrite
        if is_done(self.path, config, source, overwrite):
            raise OutputError(
                f"{self.path} is done already.",
                "It was made with these settings.",
                "Replace it with --overwrite.",
            )
        with writing(self.part):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if overwrite:
                self.part.unlink(missing_ok=True)
            if self.part.exists():
                self._continue((slices, samples, *size))
            else:
                self._create((slices, samples, *size), seed, mask, scores or {}, attrs or {})

    def _create(
        self,
        shape: tuple[int, int, int, int],
        seed: int,
        mask: Tensor | None,
        scores: Mapping[str, str],
        attrs: Mapping[str, Any],
    ) -> None:
        slices, _, height, width = shape
        started = False
        try:
            self._file = file = h5py.File(self.part, "x")
            started = True
            for name, size, kind in (
                ("reconstruction", (slices, height, width), np.float32),
                ("std", (slices, height, width), np.float32),
                ("interval", (slices, 2, height, width), np.float32),
                ("zero_filled", (slices, height, width), np.float32),
                ("samples", shape, np.complex64),
            ):
                allocate(file, name, size, kind, np.nan)
            allocate(file, "finished", (slices,), np.bool_, False)
            if mask is not None:
                file["mask"] = mask.cpu().numpy()
            file["config"] = json.dumps(self._config, indent=2, sort_keys=True, default=str)
            group = file.create_group("scores")
            for name, convention in scores.items():
                allocate(group, name, (slices,), np.float64, np.nan)
                group[name].attrs["convention"] = convention
            for name, meaning in MEANING.items():
                if name in file:
                    file[name].attrs["meaning"] = meaning
            file["interval"].attrs.update(level=LEVEL, method=RULE)
            for name, value in attrs.items():
                file.attrs[name] = value
            file.attrs.update(
                kind=KIND,
                seed=seed,
                versions=json.dumps(versions()),
                source=self._source,
                fingerprint=fingerprint(self._config, self._source),
            )
            file.flush()
        except BaseException:
            if started:
                with suppress(OSError, RuntimeError):  # closing writes, which may be what failed
                    self._file.close()
                self.part.unlink()
            raise

    def _continue(self, shape: tuple[int, int, int, int]) -> None:
        old = identity(self.part)
        if old is None:
            raise OutputError(
                f"{self.part} cannot be continued.",
                "It is damaged, or another run is writing it.",
                "Wait for that run, or remove the file, or start again with --overwrite.",
            )
        if old[0] != fingerprint(self._config, self._source):
            raise OutputError(
                f"{self.part} was begun with other settings.",
                difference(old[1], self._config),
                "Use the old settings to continue it, or remove it or use --overwrite to start again.",
            )
        self._file = h5py.File(self.part, "r+")
        found = self._file["samples"].shape
        if found != shape:
            self._file.close()
            raise OutputError(
                f"{self.part} was begun for samples of shape {found}, not {shape}.",
                "Its input was another one.",
                "Remove it, or start again with --overwrite.",
            )

    def __enter__(self) -> ResultWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def finished(self) -> list[bool]:
        """For each slice whether it is done."""
        return [bool(done) for done in self._file["finished"][:]]

    @property
    def todo(self) -> list[int]:
        """The slices that are not done yet."""
        return [i for i, done in enumerate(self.finished) if not done]

    def write(
        self,
        index: int,
        *,
        mean: Tensor,
        samples: Tensor,
        zero_filled: Tensor,
        std: Tensor | None = None,
        interval: Tensor | None = None,
        scores: Mapping[str, SupportsFloat] | None = None,
    ) -> None:
        """Slice ``index``: ``mean``, ``zero_filled`` and ``std`` (h, w), ``interval`` (2, h, w), ``samples`` (S, h, w).

        The slice counts as done only once everything else of it is in the file.
        """
        file = self._file
        with writing(self.part):
            file["reconstruction"][index] = host(mean.abs())
            file["zero_filled"][index] = host(zero_filled.abs())
            file["samples"][index] = host(samples)
            if std is not None:
                file["std"][index] = host(std)
            if interval is not None and "interval" in file:  # a file that an older version began has none
                file["interval"][index] = host(interval)
            for name, value in (scores or {}).items():
                file["scores"][name][index] = float(value)
            file.flush()
            file["finished"][index] = True
            file.flush()

    def finish(self) -> Path:
        """Rename the ``.part`` to its final name; raises `OutputError` while a slice is missing."""
        if self.todo:
            raise OutputError(
                f"{self.part} is not complete.", f"Slices {self.todo} are missing.", "Reconstruct them first."
            )
        with writing(self.part):
            self.close()
            with open(self.part, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(self.part, self.path)
        return self.path

    def close(self) -> None:
        self._file.close()


def read_result(path: str | Path, samples: bool = False) -> SavedResult:
    """A result written by `ResultWriter`, finished or not (unfinished slices are NaN).

    Raises `InputError` where ``path`` is no such file.
    """
    path = Path(path)
    if not path.is_file() or identity(path) is None:
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
            zero_filled=file["zero_filled"][()],
            samples=file["samples"][()] if samples else None,
            mask=file["mask"][()] if "mask" in file else None,
            config=json.loads(file["config"][()]),
            seed=int(attrs["seed"]),
            versions=json.loads(attrs["versions"]),
            scores={name: data[()] for name, data in scores.items()},
            conventions={name: data.attrs["convention"] for name, data in scores.items()},
            attrs=attrs,
        )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what a full disk or a lost folder makes the system or HDF5 raise into an `OutputError`."""
    try:
        yield
    except ReconError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        system = re.search(r"error message = '([^']+)'", str(error))
        reason = getattr(error, "strerror", None) or (system[1] if system else str(error).splitlines()[0])
        raise OutputError(
            f"{path} cannot be written.",
            f"{reason}.",
            "Free space or choose another folder with --out, then run the same command again.",
        ) from error


def allocate(group: h5py.Group, name: str, shape: tuple[int, ...], kind: Any, fill: Any) -> None:
    """A dataset whose space is taken now, so that writing to it later moves nothing in the file."""
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_ALLOC)
    settings.set_fill_value(np.array(fill, dtype=kind))
    space, dtype = h5py.h5s.create_simple(shape), h5py.h5t.py_create(np.dtype(kind), logical=True)
    h5py.h5d.create(group.id, name.encode(), dtype, space, dcpl=settings)


def identity(path: Path) -> tuple[str, dict[str, Any]] | None:
    """Fingerprint and configuration of a result, or None where the file is no readable one."""
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("kind") != KIND:
                return None
            return str(file.attrs["fingerprint"]), json.loads(file["config"][()])
    except (OSError, KeyError, ValueError, RuntimeError):
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
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def host(image: Tensor) -> np.ndarray:
    return image.detach().cpu().numpy()
