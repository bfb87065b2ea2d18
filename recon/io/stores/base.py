"""What every file format gives: named arrays that can be fetched whole or one slice at a time."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...errors import InputError
from .geometry import Geometry
from .header import Header

NAMES = {
    "kspace": ("kspace", "ksp"),
    "mask": ("mask",),
    "trajectory": ("trajectory", "traj"),
    "maps": ("sensitivity_maps", "maps", "sens_maps", "mps"),
}
PAIR_NAMES = (("r", "i"), ("real", "imag"))
MOST_LISTED = 12  # names in one message


@dataclass(frozen=True)
class ArrayInfo:
    """Shape and dtype of one array in a file, the dtype as it is fetched.

    ``outside`` says where its numbers lie if that is another file: such an array is never fetched.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    outside: str = ""


@dataclass(frozen=True)
class Store:
    """A file of arrays. ``role`` (kspace, mask or maps) is what its only array is, if it has no names.

    ``axes`` says what a three-dimensional k-space is: "slices" (one coil) or "coils" (one slice).
    """

    path: Path
    role: str = "kspace"

    format: ClassVar[str] = ""
    axes: ClassVar[str] = "coils"

    def entries(self) -> dict[str, ArrayInfo]:
        """The arrays of the file by name, of one in a group by its path; raises `InputError` if it is damaged."""
        raise NotImplementedError

    def fetch(self, name: str, index: int | None = None) -> np.ndarray:
        """Array ``name``, or its ``index``-th part along the first axis: only that part is read."""
        raise NotImplementedError

    def header(self) -> Header:
        """The ISMRMRD header; `Header.present` says whether the file has one."""
        return Header()

    def geometry(self, size: tuple[int, int]) -> Geometry | None:
        """Where the pixels of the images of k-space of ``size`` (H, W) lie, as far as the file says."""
        return None

    def calibration(self, index: int) -> np.ndarray | None:
        """k-space (coils, H, W) complex64 that the maps of slice ``index`` are estimated from, zero where not measured.

        None where that is the slice's own.
        """
        return None

    def noise_scan(self) -> np.ndarray | None:
        """Samples (coils, n) complex64 of noise alone, taken without excitation, if the file has any."""
        return None

    def notes(self) -> list[str]:
        """What a user should know before the k-space is used, a sentence each."""
        return []

    def attributes(self) -> Mapping[str, Any]:
        """What else the file says of itself, by name."""
        return {}

    def find(self, role: str) -> str | None:
        """The name under which the file keeps its ``role``; raises `InputError` if more than one array could be it."""
        return self.locate(NAMES[role], anywhere=role == self.role)

    def locate(self, names: Iterable[str], anywhere: bool = False) -> str | None:
        """The first of ``names`` that the file holds: in the group of its main array, else outside any group.

        With ``anywhere``, for the main array itself: outside any group, else in the only group that has it.
        """
        entries, names = self.entries(), tuple(names)
        folder = "" if anywhere else (self.find(self.role) or "").rpartition("/")[0]
        for prefix in dict.fromkeys((f"{folder}/" if folder else "", "")):
            for name in names:
                if prefix + name in entries:
                    return self.inside(prefix + name, entries)
        found = [path for path in entries if path.rpartition("/")[2] in names] if anywhere else []
        if len(found) > 1:
            raise InputError(
                f'{self.path} holds several arrays "{found[0].rpartition("/")[2]}": {listed(found)}.',
                "Each lies in a group of its own, and nothing says which one is meant.",
                f'Copy one of them to the top of the file, under the name "{names[0]}".',
            )
        return self.inside(found[0], entries) if found else None

    def inside(self, name: str, entries: Mapping[str, ArrayInfo]) -> str:
        """``name``; raises `InputError` if its numbers lie in another file."""
        if entries[name].outside:
            raise outside(self.path, name, entries[name].outside)
        return name

    def contents(self) -> str:
        """The names of all arrays, for a message."""
        names = [
            f"{name} ({info.outside})" if info.outside else name for name, info in self.entries().items()
        ]
        return listed(names) or "nothing"

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turns what a damaged file makes the format's library raise into an `InputError`."""
        try:
            yield
        except (OSError, EOFError, KeyError, RuntimeError, ValueError, TypeError, OverflowError) as error:
            if isinstance(error, InputError):
                raise
            raise unreadable(self.path, self.format, error) from error
        except MemoryError as error:
            raise InputError(
                f"{self.path} does not fit into memory.",
                "One slice with all its coils is held at a time, and this one is too large.",
                "Compress the coils, or use a machine with more memory.",
            ) from error


def refuse_more_than_memory(shape: Iterable[int], dtype: np.dtype) -> None:
    """Raises `MemoryError` for an array larger than the machine's memory, before any of it is taken."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if math.prod(shape) * dtype.itemsize > pages > 0:
        raise MemoryError


def native_dtype(dtype: np.dtype) -> np.dtype:
    """What `native` makes of an array of ``dtype``."""
    names = dtype.names or ()
    if names in PAIR_NAMES and dtype[0] == dtype[1] and dtype[0].kind == "f" and dtype[0].itemsize in (4, 8):
        return np.dtype(f"c{2 * dtype[0].itemsize}")
    double = {"f": np.dtype(float), "c": np.dtype(complex)}.get(dtype.kind)
    if double is not None and dtype.itemsize > double.itemsize:  # torch has nothing longer
        return double
    return dtype.newbyteorder("=")


def native(array: np.ndarray) -> np.ndarray:
    """An array in the machine's byte order, pairs (r, i) or (real, imag) of floats as complex numbers.

    The only place where byte order is dealt with: torch takes no other than the machine's.
    """
    kind, names = native_dtype(array.dtype), array.dtype.names
    if names and kind.kind == "c":
        pairs = np.empty(array.shape, kind)
        pairs.real, pairs.imag = array[names[0]], array[names[1]]
        return pairs
    return array if kind == array.dtype else array.astype(kind)


def unreadable(path: Path, format: str, error: Exception) -> InputError:
    """The error for a file that its format's library could not read."""
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return InputError(
        f"{path} cannot be read as {format}.",
        f"It is damaged, incomplete or of another kind: {reason}.",
        "Copy or download it again, and compare its size with the original's.",
    )


def outside(path: Path, name: str, where: str) -> InputError:
    """The error for an array whose numbers lie in another file than the one that was named."""
    return InputError(
        f'{path}: "{name}" is {where}.',
        "Only the file that was named is read: what it points to could be any file of this machine.",
        "Copy the array itself into the file, or name the file that holds it.",
    )


def listed(names: Iterable[str]) -> str:
    """The first dozen of ``names``, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(names[:MOST_LISTED]) + more
