"""What every file format gives: named arrays that can be fetched whole or one slice at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..errors import InputError

NAMES = {
    "kspace": ("kspace", "ksp"),
    "mask": ("mask",),
    "maps": ("sensitivity_maps", "maps", "sens_maps", "mps"),
}


@dataclass(frozen=True)
class Entry:
    """Shape and dtype of one array in a file."""

    shape: tuple[int, ...]
    dtype: np.dtype


@dataclass(frozen=True)
class Store:
    """A file of arrays. ``role`` (kspace, mask or maps) is what its only array is, if it has no names.

    ``axes`` says what a three-dimensional k-space is: "slices" (one coil) or "coils" (one slice).
    """

    path: Path
    role: str = "kspace"

    format: ClassVar[str] = ""
    axes: ClassVar[str] = "coils"

    def entries(self) -> dict[str, Entry]:
        """The arrays of the file by name; raises `InputError` where it is no such file."""
        raise NotImplementedError

    def fetch(self, name: str, index: int | None = None) -> np.ndarray:
        """Array ``name``, or its ``index``-th part along the first axis: only that part is read."""
        raise NotImplementedError

    def header(self) -> bytes | None:
        """The ISMRMRD XML header, if the file has one."""
        return None

    def attributes(self) -> Mapping[str, Any]:
        return {}

    def find(self, role: str) -> str | None:
        """The name under which the file keeps its ``role``."""
        names = self.entries()
        return next((n for n in NAMES[role] if n in names), None)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turns what a damaged file makes the format's library raise into an `InputError`."""
        try:
            yield
        except (OSError, EOFError, KeyError, RuntimeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise unreadable(self.path, self.format, error) from error
        except MemoryError as error:
            raise InputError(
                f"{self.path} does not fit into memory.",
                "One slice with all its coils is held at a time, and this one is too large.",
                "Compress the coils, or use a machine with more memory.",
            ) from error


def unreadable(path: Path, format: str, error: Exception) -> InputError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(
        f"{path} cannot be read as {format}.",
        f"It is damaged, incomplete or of another kind: {reason}.",
        "Copy or download it again, and compare its size with the original's.",
    )
