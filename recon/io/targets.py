"""Where results go: names that fit, folders that can be written, and inputs that no result replaces."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import OutputError

NAME_BYTES = 255  # bytes of a file name, where the system does not say


def fitting(folder: str | Path, stem: str, suffix: str) -> Path:
    """``folder/stem+suffix``; a name too long for the file system keeps its start, and a hash stands for the rest."""
    folder = Path(folder)
    room = longest_name(folder) - len(os.fsencode(suffix))
    if len(os.fsencode(stem)) > room:
        digest = hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]
        stem = os.fsencode(stem)[: room - 9].decode(errors="ignore") + "-" + digest
    return folder / (stem + suffix)


def longest_name(folder: Path) -> int:
    """Bytes that a file name in ``folder``, which need not exist yet, may have."""
    try:
        return os.pathconf(nearest_folder(folder), "PC_NAME_MAX")
    except (OSError, ValueError, AttributeError):  # not every system can say
        return NAME_BYTES


def nearest_folder(folder: Path) -> Path:
    """``folder`` or the nearest folder above it that exists."""
    return next((p for p in (folder, *folder.absolute().parents) if p.exists()), Path.cwd())


def picture_path(target: str | Path, index: int) -> Path:
    """The picture of slice ``index`` of the result ``target``: ``<stem>_000.png`` beside it."""
    target = Path(target)
    return fitting(target.parent, target.stem, f"_{index:03d}.png")


def result_paths(inputs: Sequence[str | Path], folder: str | Path, suffix: str = ".h5") -> list[Path]:
    """``folder/<stem><suffix>`` for each input.

    Raises `OutputError` where two inputs would be written to the same file, or one would overwrite an input.
    """
    taken: dict[Path, Path] = {}
    for source in map(Path, inputs):
        path = fitting(folder, source.stem, suffix)
        if path in taken:
            raise OutputError(
                f"{taken[path]} and {source} would both be written to {path}.",
                "Results are named after their input, and these two share a name.",
                "Rename one, or use different folders with --out.",
            )
        taken[path] = source
    refuse_overwriting(taken, inputs)
    return list(taken)


def refuse_overwriting(targets: Iterable[str | Path], inputs: Iterable[str | Path]) -> None:
    """Raise `OutputError` where a file to be written is one of the files that are read, under whatever name.

    Symbolic and hard links count as the file they lead to. ``inputs`` are all files that a command
    reads (data, masks, maps, configurations); names of files that do not exist are harmless.
    """
    read = {identity: Path(source) for source in inputs for identity in identities(Path(source))}
    for target in map(Path, targets):
        for identity in identities(target):
            if identity in read:
                raise OutputError(
                    f"The result {target} would overwrite {read[identity]}.",
                    "That file is read by this command, and no command writes over its inputs.",
                    "Choose another folder with --out.",
                )


def identities(path: Path) -> list[object]:
    """What two names of one file have in common: the path without links, and the file's number on its device."""
    found: list[object] = [Path(os.path.realpath(path))]
    try:
        at = path.stat()
    except (OSError, ValueError):  # it does not exist
        return found
    return [*found, (at.st_dev, at.st_ino)] if at.st_ino else found


def refuse_existing(targets: Iterable[str | Path], overwrite: bool = False) -> None:
    """Raise `OutputError` where a file to be written exists already, unless ``overwrite``."""
    for path in map(Path, targets):
        if path.exists() and not overwrite:
            raise OutputError(f"{path} exists already.", do="Choose another --out, or use --overwrite.")


def check_folder(folder: str | Path) -> Path:
    """The output folder, which need not exist yet, if files can be written there; leaves nothing behind.

    Raises `OutputError` where they cannot.
    """
    folder = Path(folder)
    try:
        nearest = nearest_folder(folder)
        if not nearest.is_dir():
            raise NotADirectoryError(f"{nearest} is a file")
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise OutputError(
            f"Nothing can be written to the folder {folder}.",
            f"{error.strerror or error}.",
            "Choose another folder with --out, or change who may write there.",
        ) from error
    return folder
