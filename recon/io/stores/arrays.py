"""NumPy's npy and npz files; nothing pickled is ever read."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tokenize import TokenError
from typing import IO, ClassVar

import numpy as np
from numpy.lib import format as npy

from ...errors import InputError
from .base import ArrayInfo, Store, native, native_dtype, refuse_more_than_memory


@dataclass(frozen=True)
class NpyStore(Store):
    """One array, k-space (slices, coils, H, W) or (coils, H, W); only the slice asked for is read."""

    format: ClassVar[str] = "npy"

    def entries(self) -> dict[str, ArrayInfo]:
        with self.reading():
            array = self._open()
            return {self.role: ArrayInfo(array.shape, native_dtype(array.dtype))}

    def fetch(self, name: str, index: int | None = None) -> np.ndarray:
        with self.reading():
            array = self._open()
            part = array if index is None else array[index]
            refuse_more_than_memory(part.shape, part.dtype)
            return native(np.array(part))

    def _open(self) -> np.ndarray:
        with open(self.path, "rb") as file:
            shape, fortran, dtype = read_header(file)
            if dtype.hasobject:
                raise pickled(self)
            start, size = file.tell(), os.fstat(file.fileno()).st_size
        if 0 in shape or dtype.itemsize == 0:  # an empty array cannot be mapped
            return np.empty(shape if 0 in shape else (0,), dtype)
        if size - start < math.prod(shape) * dtype.itemsize:
            raise EOFError(f"an array of shape {shape} does not fit into its {size} bytes")
        return np.memmap(self.path, dtype, "r", start, shape, order="F" if fortran else "C")


@dataclass(frozen=True)
class NpzStore(Store):
    """Arrays by name, k-space (slices, coils, H, W) or (coils, H, W); a slice is read without the rest."""

    format: ClassVar[str] = "npz"

    def entries(self) -> dict[str, ArrayInfo]:
        with self.reading_zip(), zipfile.ZipFile(self.path) as archive:
            found = {}
            for member in archive.namelist():
                if member.endswith(".npy"):
                    with archive.open(member) as file:
                        shape, _, dtype = read_header(file)
                    found[member.removesuffix(".npy")] = ArrayInfo(shape, native_dtype(dtype))
            return found

    def fetch(self, name: str, index: int | None = None) -> np.ndarray:
        with self.reading_zip(), zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as file:
            shape, fortran, dtype = read_header(file)
            if dtype.hasobject:
                raise pickled(self)
            if math.prod(shape) * dtype.itemsize > archive.getinfo(f"{name}.npy").file_size:
                raise EOFError(f"{name} of shape {shape} is longer than its part of the file")
            part = shape if index is None or fortran else shape[1:]
            refuse_more_than_memory(part, dtype)
            size = math.prod(part) * dtype.itemsize
            if index and not fortran:
                file.seek(index * size, 1)
            data = file.read(size)
            if len(data) != size:
                raise EOFError(f"{name} ends early")
            array = np.frombuffer(data, dtype).reshape(part, order="F" if fortran else "C")
            return native(array[index] if fortran and index is not None else array)

    @contextmanager
    def reading_zip(self) -> Iterator[None]:
        """`reading`, with what a damaged or encrypted archive raises."""
        with self.reading():
            try:
                yield
            except (zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
                raise OSError(str(error)) from error


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, Fortran order and dtype at the head of a npy file; raises `ValueError` if it is damaged."""
    read = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
    try:
        shape, fortran, dtype = read(file)
    except (TokenError, SyntaxError, MemoryError) as error:  # of Python's parser, which reads the header
        raise ValueError(f"its header is not one of npy: {error}") from error
    if any(size < 0 for size in shape) or len(shape) > 32:
        raise ValueError(f"its header gives the shape {shape}")
    return shape, fortran, dtype


def pickled(store: Store) -> InputError:
    """The error for an array of Python objects."""
    return InputError(
        f"{store.path} holds Python objects, not numbers.",
        "Reading them would run code from the file, so they are never read.",
        "Save a plain array: np.save(path, array.astype(np.complex64)).",
    )
