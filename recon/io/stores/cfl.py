"""BART's file pairs: ``x.hdr`` lists the dimensions, ``x.cfl`` holds complex64 in Fortran order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ...errors import InputError
from ..whole import write_together
from .base import ArrayInfo, Store, refuse_more_than_memory

READ, PHASE, PARTITION, COIL, MAPS, SLICE = 0, 1, 2, 3, 4, 13
RANK = 16
LONGEST_HDR = 2**20  # characters; a real one has some hundred


def read_cfl(path: str | Path) -> np.ndarray:
    """The array of a pair, mapped read-only, complex64, 16 axes.

    ``path`` is that of either file, or without suffix. Raises `InputError` if one of the two is missing, or
    the header asks for another size than the data have.
    """
    data, header = pair(path)
    for file in (header, data):
        if not file.is_file():
            raise InputError(
                f"{file} is missing.",
                f"BART keeps an array in two files, {data.name} and {header.name}.",
                "Copy both into one folder.",
            )
    shape = read_dimensions(header)
    found, wanted = data.stat().st_size, 8 * int(np.prod(shape, dtype=object))
    if found != wanted:
        raise InputError(
            f"{data} has {found} bytes, its header asks for {wanted}.",
            f"{header.name} gives the dimensions {trimmed(shape)}: one of the two is damaged.",
            "Copy both files again.",
        )
    return np.memmap(data, dtype="<c8", mode="r", shape=shape, order="F")


def write_cfl(path: str | Path, array: np.ndarray) -> Path:
    """Write an array of up to 16 axes as a pair; returns the path of the cfl file. The header is renamed last."""
    data, header = pair(path)
    shape = tuple(array.shape) + (1,) * (RANK - array.ndim)
    dimensions = f"# Dimensions\n{' '.join(map(str, shape))}\n"
    values = np.asarray(array, dtype="<c8").ravel(order="F")
    write_together({data: values.tofile, header: lambda file: file.write(dimensions.encode())})
    return data


@dataclass(frozen=True)
class CflStore(Store):
    """k-space with axes (readout, phase, slice, coil), BART's 0 to 3, or slices in axis 13; sets of maps in axis 4.

    The readout becomes H and the phase W; if the readout has one sample, axes 1 and 2 are H and W.
    """

    format: ClassVar[str] = "BART cfl"

    def entries(self) -> dict[str, ArrayInfo]:
        array = self._slices_first()
        return {self.role: ArrayInfo(array.shape, array.dtype)}

    def fetch(self, name: str, index: int | None = None) -> np.ndarray:
        with self.reading():
            array = self._slices_first()
            part = array if index is None else array[index]
            refuse_more_than_memory(part.shape, part.dtype)
            return np.array(part)

    @property
    def stacked(self) -> bool:
        """Whether the slices are those of dimension 2, which is BART's second phase encoding, not of dimension 13."""
        shape = read_cfl(self.path).shape
        return shape[PARTITION] > 1 and shape[READ] > 1

    def _slices_first(self) -> np.ndarray:
        """A view: (slices, coils, H, W) of k-space, (slices, sets, coils, H, W) of maps, (H, W) of a mask."""
        with self.reading():
            array = read_cfl(self.path)
        shape = array.shape
        named = (READ, PHASE, PARTITION, COIL, SLICE) + ((MAPS,) if self.role == "maps" else ())
        more = [axis for axis, size in enumerate(shape) if size > 1 and axis not in named]
        if shape[PARTITION] > 1 and shape[SLICE] > 1 and shape[READ] > 1:
            more.append(PARTITION)
        if more:
            raise InputError(
                f"{self.path} has dimensions {trimmed(shape)}, which is not a {self.role} of 2-D slices.",
                f"Axis {more[0]} has {shape[more[0]]} entries"
                + (": maps have sets there, k-space does not." if more[0] == MAPS else "."),
                "Pick one entry of that axis first: bart slice AXIS INDEX in out.",
            )
        if shape[READ] == 1 and shape[PARTITION] > 1:
            rows, columns, slices = PHASE, PARTITION, SLICE
        else:
            rows, columns, slices = READ, PHASE, SLICE if shape[SLICE] > 1 else PARTITION
        order = (slices, MAPS, COIL, rows, columns)
        view = np.transpose(array, order + tuple(a for a in range(array.ndim) if a not in order))
        view = view.reshape(view.shape[:5])
        if self.role == "maps":
            return view if len(view) > 1 else view[0]
        return view[:, 0] if self.role == "kspace" else view[0, 0, 0].real


def pair(path: str | Path) -> tuple[Path, Path]:
    """The cfl and the hdr file of a pair."""
    stem = str(path).removesuffix(".cfl").removesuffix(".hdr")
    return Path(stem + ".cfl"), Path(stem + ".hdr")


def read_dimensions(header: Path) -> tuple[int, ...]:
    """The line after ``# Dimensions``, 16 sizes; raises `InputError` if there is no such line."""
    with open(header, errors="replace") as file:
        lines = file.read(LONGEST_HDR).splitlines()
    try:
        at = next(i for i, line in enumerate(lines) if line.strip().lower() == "# dimensions")
        shape: tuple[int, ...] = tuple(int(word) for word in lines[at + 1].split())
        if not shape or min(shape) < 1 or len(shape) > RANK:
            raise ValueError
    except (StopIteration, IndexError, ValueError):
        raise InputError(
            f"{header} gives no dimensions.",
            f'A BART header has a line "# Dimensions", then one line of up to {RANK} positive sizes.',
            "Copy the header again, or write that line by hand.",
        ) from None
    return shape + (1,) * (RANK - len(shape))


def trimmed(shape: tuple[int, ...]) -> str:
    """Dimensions as text, without trailing ones."""
    last = max((i for i, n in enumerate(shape) if n > 1), default=0)
    return " ".join(map(str, shape[: last + 1]))
