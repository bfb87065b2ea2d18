"""The readouts of an ISMRMRD file, each with its header, as the scanner played them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from operators.errors import import_extra

from ...errors import InputError
from .fastmri import dataset_in

TOGETHER = 256  # readouts read at once
NO_IMAGE = (
    "ACQ_IS_NOISE_MEASUREMENT",
    "ACQ_IS_NAVIGATION_DATA",
    "ACQ_IS_PHASECORR_DATA",
    "ACQ_IS_HPFEEDBACK_DATA",
    "ACQ_IS_DUMMYSCAN_DATA",
    "ACQ_IS_RTFEEDBACK_DATA",
    "ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA",
    "ACQ_IS_PHASE_STABILIZATION_REFERENCE",
    "ACQ_IS_PHASE_STABILIZATION",
)
"""Flags of readouts that belong to no image."""


def ismrmrd_library() -> Any:
    """The package ``ismrmrd``; raises `InputError` with the line that installs it where it is missing."""
    return import_extra("ismrmrd", "formats", "ISMRMRD raw data are read with", InputError, parts=("file",))


@dataclass(frozen=True, eq=False)
class Acquisitions:
    """All readouts of the group ``group`` of the file at ``path``: their ``heads``, and their samples on demand.

    ``heads`` (n,) has the fields of ISMRMRD's acquisition header, such as ``heads["idx"]["slice"]``; an index is a place
    in it. Layout: Inati et al., MRM 77:411 (2017).
    """

    path: Path
    group: str
    heads: np.ndarray

    @classmethod
    def of(cls, path: Path, group: str) -> Acquisitions:
        """The readouts of a file, whose samples are not read yet; raises `InputError`, or what h5py raises."""
        wanted = ismrmrd_library().hdf5.acquisition_dtype
        with h5py.File(path, "r") as file:
            data = dataset_in(file, f"{group}/data", path)
            if data.dtype.names is None or set(data.dtype.names) != set(wanted.names) or data.ndim != 1:
                raise ValueError(f"{group}/data holds no acquisitions, but {data.dtype}")
            if data.dtype["head"] != wanted["head"]:
                raise ValueError("its acquisitions are of another version of ISMRMRD than 1")
            return cls(path, group, data.fields("head")[()] if data.size else np.empty(0, wanted["head"]))

    def flagged(self, *names: str) -> np.ndarray:
        """(n,) bool: readouts with any of these flags, named as in ``ismrmrd`` (ACQ_IS_NOISE_MEASUREMENT)."""
        library = ismrmrd_library()
        bits = sum(1 << getattr(library, name) - 1 for name in names)
        return (self.heads["flags"] & np.uint64(bits)) != 0

    @property
    def noise(self) -> np.ndarray:
        """Indices of the readouts of noise alone."""
        return np.flatnonzero(self.flagged("ACQ_IS_NOISE_MEASUREMENT"))

    @property
    def imaging(self) -> np.ndarray:
        """Indices of the readouts of images, those of parallel calibration included."""
        return np.flatnonzero(~self.flagged(*NO_IMAGE))

    def read(self, indices: Iterable[int]) -> Iterator[tuple[int, Any]]:
        """(index, `ismrmrd.Acquisition`) of each of the increasing ``indices``, from the file.

        An acquisition has ``data`` (coils, samples) complex64 and ``traj`` (samples, dimensions) float32, no columns
        where it has no trajectory. Raises `InputError`, or what h5py raises, where the file is damaged.
        """
        made = ismrmrd_library().file.Acquisitions.from_numpy
        with h5py.File(self.path, "r") as file:
            data = dataset_in(file, f"{self.group}/data", self.path)
            for some in in_parts(indices):
                rows = data[some]
                self._refuse_lengths(some, rows["traj"], rows["data"])
                yield from zip(some, map(made, rows), strict=True)

    def trajectories(self, indices: Iterable[int]) -> list[np.ndarray]:
        """(samples, dimensions) float32 of each of the increasing ``indices``, without reading their data; raises as `read`."""
        found = []
        with h5py.File(self.path, "r") as file:
            data = dataset_in(file, f"{self.group}/data", self.path)
            for some in in_parts(indices):
                rows = data.fields("traj")[some]
                self._refuse_lengths(some, rows)
                shapes = self.heads[["number_of_samples", "trajectory_dimensions"]][some]
                found += [row.reshape(tuple(shape)) for row, shape in zip(rows, shapes, strict=True)]
        return found

    def _refuse_lengths(self, indices: list[int], places: np.ndarray, data: np.ndarray | None = None) -> None:
        """Raises `InputError` for readouts of another length than their headers say: their trajectory, their ``data``."""
        for place, index in enumerate(indices):
            head = self.heads[index]
            samples, dimensions = int(head["number_of_samples"]), int(head["trajectory_dimensions"])
            if len(places[place]) != samples * dimensions:
                raise InputError(
                    f"{self.path}: the trajectory of readout {index} is of another length than its data.",
                    f"It has {len(places[place])} numbers, {dimensions} for each of {samples} samples.",
                    "Write one place for each sample, those to be discarded included.",
                )
            if data is not None and len(data[place]) != 2 * samples * int(head["active_channels"]):
                raise InputError(
                    f"{self.path}: readout {index} has {len(data[place]) // 2} numbers.",
                    f"Its header says {samples} samples of {head['active_channels']} coils.",
                    "Convert the raw data again.",
                )


def in_parts(indices: Iterable[int]) -> Iterator[list[int]]:
    """``indices``, `TOGETHER` at a time."""
    every = [int(i) for i in indices]
    for start in range(0, len(every), TOGETHER):
        yield every[start : start + TOGETHER]
