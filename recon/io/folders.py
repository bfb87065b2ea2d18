"""The files in a folder that somebody meant to be read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..errors import InputError


def files_in(folder: str | Path, suffixes: Iterable[str]) -> list[Path]:
    """The files of a folder whose suffix is one of ``suffixes`` in either case, sorted by name; none in its subfolders.

    Hidden files are left out: .DS_Store, and the side files ``._name.h5`` that macOS leaves on foreign
    disks. Raises `InputError` for a folder that cannot be read.
    """
    wanted = {suffix.lower() for suffix in suffixes}
    try:
        found = [path for path in Path(folder).iterdir() if not path.name.startswith(".")]
        return sorted(path for path in found if path.suffix.lower() in wanted and path.is_file())
    except OSError as error:
        raise InputError(
            f"The folder {folder} cannot be read.",
            f"{error.strerror or error}.",
            "Check the path and who may read it, or name the files.",
        ) from error
