"""NumPy's npy and npz files; nothing pickled is ever read."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, ClassVar

import numpy as np
from numpy.lib import format as npy

from ..errors import InputError
from .stores import Entry, Store


@dataclass(frozen=True)
class NpyStore(Store):
    """One array, k-space (slices, coils, H, W) or (coils, H, W); only the slice asked for is read."""

    format: ClassVar[str] = "npy"

    def entries(self) -> dict[str, Entry]:
        with self.reading():
            array = self._open()
            return {self.role: Entry(array.shape, array.dtype)}

    def fetch(self, name: str, index: int | None = None) -> np.ndarray:
        with self.reading():
            array = self._open()
            return np.array(array if index is None else array[index])

    def _open(self) -> np.ndarray:
        with open(self.path, "rb") as file:
            shape, _, dtype = read_header(file)
            if dtype.hasobject:
                raise pickled(self)
            if 0 in shape:  # an empty array cannot be mapped
                return np.empty(shape, dtype)
        return np.load(self.path, mmap_mode="r", allow_pickle=False)


@dataclass(frozen=True)
class NpzStore(Store):
    """Arrays by name, k-space (slices, coils, H, W) or (coils, H, W); a slice is read without the rest."""

    format: ClassVar[str] = "npz"

    def entries(self) -> dict[str, Entry]:
        with self.reading_zip(), zipfile.ZipFile(self.path) as archive:
            found = {}
            for member in archive.namelist():
                if member.endswith(".npy"):
                    with archive.open(member) as file:
                        shape, _, dtype = read_header(file)
                    found[member.removesuffix(".npy")] = Entry(shape, dtype)
            return found

    def fetch(self, name: str, index: int | None = None) -> np.ndarray:
        with self.reading_zip(), zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as file:
            shape, fortran, dtype = read_header(file)
            if dtype.hasobject:
                raise pickled(self)
            part = shape if index is None or fortran else shape[1:]
            size = int(np.prod(part)) * dtype.itemsize
            if index and not fortran:
                file.seek(index * size, 1)
            data = file.read(size)
            if len(data) != size:
                raise EOFError(f"{name} ends early")
            array = np.frombuffer(data, dtype).reshape(part, order="F" if fortran else "C")
            return array[index] if fortran and index is not None else array

    @contextmanager
    def reading_zip(self) -> Iterator[None]:
        with self.reading():
            try:
                yield
            except zipfile.BadZipFile as error:
                raise OSError(str(error)) from error


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, Fortran order and dtype at the head of a npy file."""
    read = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
    return read(file)


def pickled(store: Store) -> InputError:
    return InputError(
        f"{store.path} holds Python objects, not numbers.",
        "Reading them would run code from the file, so they are never read.",
        "Save a plain array: np.save(path, array.astype(np.complex64)).",
    )
