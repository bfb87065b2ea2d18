"""ISMRMRD raw data: readouts sorted into the k-space of slices, Cartesian or along the trajectories that they carry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import h5py
import numpy as np

from ...errors import InputError
from .acquisitions import Acquisitions
from .along import AlongTrajectory
from .base import ArrayInfo, Store, listed, refuse_more_than_memory
from .encoding import Encoding
from .fastmri import HDF5Store, xml_in
from .geometry import Geometry
from .header import CARTESIAN, EITHER, Header
from .partitions import planes_of_volume

COUNTERS = ("set", "repetition", "phase", "contrast", "slice")  # of images, the slowest first
SEPARATE = ("separate", "external")  # modes of calibration lines that are no part of the images
KEPT = 2  # volumes in memory: of an image, and of its calibration
FULL_ENOUGH = 0.5  # readouts of an image over those of the fullest; one with fewer was interrupted


@dataclass(frozen=True, eq=False)
class ISMRMRDStore(Store):
    """ISMRMRD's files: readouts in ``GROUP/data``, a header in ``GROUP/xml``. They are read with the package ``ismrmrd``.

    ``kspace`` is (images, coils, H, W): an image for each slice, contrast, cardiac phase, repetition and set, the
    slice counted fastest, then in this order. Readouts of one line are averaged; those played backwards are turned;
    noise scans, navigators, phase correction and dummies are left out. Of a volume with two phase encodings the slices
    are those of `planes_of_volume`. Sizes: `Encoding`. Where the readouts carry a trajectory, ``kspace`` is (images, coils,
    readouts, samples) and there is a ``trajectory`` beside it, see `AlongTrajectory`. Source: Inati et al., MRM 77:411 (2017).
    """

    format: ClassVar[str] = "ISMRMRD"

    @cached_property
    def group(self) -> str:
        """The group of the measurement; raises `InputError` where the file has several and none is ``dataset``."""
        found = raw_groups(self.path)
        if len(found) > 1 and "dataset" not in found:
            raise InputError(
                f"{self.path} holds {len(found)} measurements: {listed(found)}.",
                "Nothing says which one is meant.",
                'Copy one of them to a file of its own, into the group "dataset".',
            )
        return "dataset" if "dataset" in found else found[0]

    @cached_property
    def acquisitions(self) -> Acquisitions:
        """All readouts of the measurement, with their trajectories where they have any."""
        with self.reading():
            return Acquisitions.of(self.path, self.group)

    @cached_property
    def stored_header(self) -> Header:
        """The file's own header, of the encoding that its images are of."""
        return Header.parse(self._xml, self.path, self._encoding_of_images)

    @cached_property
    def encoding(self) -> Encoding:
        """Sizes and places of the k-space that is made."""
        made = Encoding.along_trajectory if self.non_cartesian else Encoding.of
        return made(self.stored_header, self.path)

    @cached_property
    def non_cartesian(self) -> bool:
        """Whether samples lie along the trajectories that the readouts carry; raises `InputError` where some have none."""
        kind = self.stored_header.trajectory
        carried = self.acquisitions.heads["trajectory_dimensions"][np.concatenate(self.images)] > 1
        if kind in CARTESIAN or (kind in EITHER and not carried.any()):
            return False
        if not carried.all():
            raise InputError(
                f"{self.path} has the trajectory {kind or 'of its readouts'}, and {int((~carried).sum())} of its "
                f"{len(carried)} readouts do not say where their samples lie.",
                "A file of ISMRMRD keeps two or three numbers for each sample, which are missing there.",
                "Convert the raw data again with their trajectory, or store k-space and trajectory in an npz file.",
            )
        return True

    @cached_property
    def along(self) -> AlongTrajectory | None:
        """The readouts with their trajectories; None where samples lie on a Cartesian grid."""
        if not self.non_cartesian:
            return None
        return AlongTrajectory(self.acquisitions, self.images, self.encoding)

    @cached_property
    def images(self) -> list[np.ndarray]:
        """For each image or volume, in the order of ``kspace``, the indices of its readouts."""
        return self._sorted.images

    @property
    def coils(self) -> int:
        """Receive coils of the images."""
        return int(self.acquisitions.heads["active_channels"][self.images[0][0]])

    @property
    def planes(self) -> int:
        """Slices of each of ``images``: 1, or those of a volume with two phase encodings."""
        return self.encoding.image[2]

    def entries(self) -> dict[str, ArrayInfo]:
        count, kind = len(self.images) * self.planes, np.dtype(np.complex64)
        if self.along is None:
            return {"kspace": ArrayInfo((count, self.coils, *self.encoding.size), kind)}
        with self.reading():
            shape, places = self.along.shape, self.along.points
        return {
            "kspace": ArrayInfo((count, *shape), kind),
            "trajectory": ArrayInfo(places.shape, places.dtype),
        }

    def fetch(self, name: str, index: int | None = None) -> np.ndarray:
        if name == "trajectory" and self.along is not None:
            with self.reading():
                return self.along.points if index is None else self.along.points[index]
        count = len(self.images) * self.planes
        if index is None:
            refuse_more_than_memory(self.entries()["kspace"].shape, np.dtype(np.complex64))
            return np.stack([self.fetch(name, i) for i in range(count)])
        with self.reading():
            image, plane = divmod(index, self.planes)
            return self._volume(self.images[image], image)[plane]

    def calibration(self, index: int) -> np.ndarray | None:
        """Of a calibration scan of its own; else of all repetitions, where they take turns with their lines.

        None along a trajectory.
        """
        if self.along is not None:
            return None
        image, plane = divmod(index, self.planes)
        counters, own = self.acquisitions.heads["idx"], self.images[image]
        chosen = self._sorted.calibration
        chosen = chosen[counters["slice"][chosen] == counters["slice"][own[0]]]
        if not len(chosen):
            chosen = self._of_all_repetitions(own[0])
            lines = counters["kspace_encode_step_1"]
            if len(np.unique(lines[chosen])) == len(np.unique(lines[own])):
                return None
        with self.reading():
            return self._volume(chosen)[plane]

    def _of_all_repetitions(self, like: int) -> np.ndarray:
        """The readouts of images that differ from readout ``like`` in the repetition alone."""
        used = np.sort(np.concatenate(self.images))
        counters = self.acquisitions.heads["idx"]
        others = [name for name in COUNTERS if name != "repetition"]
        alike = np.all([counters[name][used] == counters[name][like] for name in others], axis=0)
        return used[alike]

    def header(self) -> Header:
        return self.encoding.header(self.stored_header)

    def geometry(self, size: tuple[int, int]) -> Geometry | None:
        pixel = self.encoding.pixel
        if pixel is None:
            return None
        heads = self.acquisitions.heads[[indices[0] for indices in self.images]]
        axes = np.stack([heads[name] for name in ("read_dir", "phase_dir", "slice_dir")], 1).astype(float)
        identity = np.abs(axes @ axes.transpose(0, 2, 1) - np.eye(3)).max()
        if not identity < 1e-2:  # also where a value is NaN
            return Geometry(pixel)
        away = (np.arange(self.planes) - self.planes // 2) * pixel[2]
        positions = heads["position"].astype(float)[:, None] + away[:, None] * axes[:, None, 2]
        counters = COUNTERS if self.planes > 1 else COUNTERS[:-1]
        volumes = numbered(heads["idx"], counters)
        repeated = (np.repeat(array, self.planes, axis=0) for array in (axes, volumes))
        return Geometry(pixel, positions.reshape(-1, 3), *repeated)

    def noise_scan(self) -> np.ndarray | None:
        chosen = self.acquisitions.noise
        chosen = chosen[self.acquisitions.heads["active_channels"][chosen] == self.coils]
        with self.reading():
            found = [readout.data for _, readout in self.acquisitions.read(chosen)]
        return np.concatenate(found, axis=1) if found else None

    def attributes(self) -> Mapping[str, Any]:
        heads, told = self.acquisitions.heads, {}
        counted = {name: len(np.unique(heads["idx"][name][np.concatenate(self.images)])) for name in COUNTERS}
        if self.planes > 1:
            counted = {**counted, "partition": self.planes}
        several = [f"{n} {name}s" for name, n in reversed(counted.items()) if n > 1]
        if several:
            told["order"] = " x ".join(several) + ", the first counted fastest"
        noise = len(self.acquisitions.noise)
        calibration = len(self._sorted.calibration)
        told["readouts"] = f"{len(np.concatenate(self.images))} of images, {noise} of noise" + (
            f", {calibration} of a calibration scan, of {len(heads)}" if calibration else f", of {len(heads)}"
        )
        if self.along is not None:
            with self.reading():
                told["units of the trajectory"] = self.along.unit[0]
        return told

    def notes(self) -> list[str]:
        notes = list(self._sorted.notes)
        used = np.concatenate(self.images)
        carried = self.acquisitions.heads["trajectory_dimensions"][used] > 0
        if self.along is not None:
            with self.reading():
                notes += self.along.notes
        elif carried.any():
            kind = self.stored_header.trajectory or "no trajectory"
            notes.append(f"The header says {kind}: the trajectories that readouts carry are not used.")
        if self.along is None and self.acquisitions.flagged("ACQ_IS_REVERSE")[used].any():
            notes.append(
                "Some readouts were played backwards (EPI): they are turned, but not corrected for the ghosts of delays."
            )
        if self.encoding.finer > 1.02:
            image = " x ".join(map(str, self.encoding.image[:2]))
            notes.append(f"The header asks for interpolation: the image is {image}, as it was measured.")
        return notes

    @cached_property
    def _xml(self) -> bytes:
        with self.reading(), h5py.File(self.path, "r") as file:
            return xml_in(file, f"{self.group}/xml", self.path)

    @cached_property
    def _encoding_of_images(self) -> int:
        refs = self.acquisitions.heads["encoding_space_ref"][self.acquisitions.imaging]
        return int(Counter(refs.tolist()).most_common(1)[0][0]) if len(refs) else 0

    @cached_property
    def _sorted(self) -> Sorting:
        """The readouts of each image or volume, those of a calibration scan, and what is to be said of the others."""
        imaging, heads, notes = self.acquisitions.imaging, self.acquisitions.heads, []
        refuse_without_images(self, imaging)
        if self.stored_header.multiband > 1:
            raise InputError(
                f"{self.path} has {self.stored_header.multiband} slices in each readout (multiband).",
                "Slices that were excited together lie over one another, and are not taken apart here.",
                "Separate them first, for instance with the scanner's own reconstruction.",
            )
        other = heads["encoding_space_ref"][imaging] != self._encoding_of_images
        if other.any():
            notes.append(f"{int(other.sum())} readouts of other encodings are left out.")
        imaging = imaging[~other]
        alone = self.acquisitions.flagged("ACQ_IS_PARALLEL_CALIBRATION")
        alone &= ~self.acquisitions.flagged("ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING")
        separate = imaging[:0]
        if self.stored_header.calibration in SEPARATE:
            separate, imaging = imaging[alone[imaging]], imaging[~alone[imaging]]
            refuse_without_images(self, imaging)
        coils = heads["active_channels"][imaging]
        if (coils != coils[0]).any():
            raise InputError(
                f"{self.path}: its readouts have {coils.min()} to {coils.max()} coils.",
                "All lines of an image are received by the same coils.",
                "Keep the readouts of one coil array.",
            )
        which = numbered(heads["idx"][imaging], COUNTERS)
        images = [imaging[which == number] for number in range(which.max() + 1)]
        fullest = max(map(len, images))
        whole = [indices for indices in images if len(indices) >= FULL_ENOUGH * fullest]
        if len(whole) < len(images):
            notes.append(f"{len(images) - len(whole)} interrupted images of {len(images)} are left out.")
        return Sorting(whole, separate[heads["active_channels"][separate] == coils[0]], tuple(notes))

    @cached_property
    def _kept(self) -> dict[bytes, np.ndarray]:
        return {}

    def _volume(self, indices: np.ndarray, image: int | None = None) -> np.ndarray:
        """(planes, coils, H, W) of the readouts ``indices``, those of an ``image``; the last volumes are kept."""
        key = indices.tobytes()
        if key not in self._kept:
            while len(self._kept) >= KEPT:
                self._kept.pop(next(iter(self._kept)))
            if image is None or self.along is None:
                self._kept[key] = self._assembled(indices)
            else:
                self._kept[key] = self.along.kspace(image)
        return self._kept[key] if self.planes > 1 else self._kept.pop(key)

    def _assembled(self, indices: np.ndarray) -> np.ndarray:
        """The readouts ``indices`` in their places, averaged; (planes, coils, H, W)."""
        rows, columns, partitions = self.encoding.matrix
        shape = (partitions, columns, self.coils, rows)
        refuse_more_than_memory(shape, np.dtype(np.complex64))
        total = np.zeros(shape, np.complex64)
        count = np.zeros((partitions, columns, rows), np.int32)
        turned = self.acquisitions.flagged("ACQ_IS_REVERSE")
        for index, readout in self.acquisitions.read(indices):
            first, samples, line, partition = self.encoding.place(readout, bool(turned[index]), self.path)
            there = slice(first, first + samples.shape[1])
            total[partition, line, :, there] += samples
            count[partition, line, there] += 1
        kspace = np.empty((partitions, self.coils, *self.encoding.size), np.complex64)
        sampled = np.empty((partitions, *self.encoding.size), bool)
        for p in range(partitions):  # one after another, for the memory
            mean = total[p] / np.maximum(count[p], 1)[:, None]
            kspace[p], sampled[p] = self.encoding.reduced(np.moveaxis(mean, 0, -1), count[p].T > 0)
        del total
        if partitions > 1:
            kspace = planes_of_volume(kspace, sampled, self.path)
        first = partitions // 2 - self.planes // 2
        return np.ascontiguousarray(kspace[first : first + self.planes])


@dataclass(frozen=True, eq=False)
class Sorting:
    """Indices of readouts: for each image or volume, and of a calibration scan of its own; and what is to be said."""

    images: list[np.ndarray]
    calibration: np.ndarray
    notes: tuple[str, ...]


def raw_groups(path: Any) -> list[str]:
    """The groups of an HDF5 file that hold readouts and a header, as ISMRMRD has them."""
    entries = HDF5Store(path).entries()
    groups = [name.removesuffix("/data") for name in entries if name.endswith("/data")]
    return [
        group
        for group in groups
        if f"{group}/xml" in entries
        and (entries[f"{group}/data"].outside or "head" in (entries[f"{group}/data"].dtype.names or ()))
    ]


def numbered(counters: np.ndarray, names: Iterable[str]) -> np.ndarray:
    """(n,): the place of each in the order of these ISMRMRD counters, the first name the slowest."""
    values = np.stack([counters[name] for name in names], axis=1)
    return np.unique(values, axis=0, return_inverse=True)[1].ravel()


def refuse_without_images(store: ISMRMRDStore, imaging: np.ndarray) -> None:
    """Raises `InputError` for a file of which no readout belongs to an image."""
    if not len(imaging):
        total, noise = len(store.acquisitions.heads), len(store.acquisitions.noise)
        raise InputError(
            f"{store.path} has no readouts of images.",
            f"Of its {total} readouts {noise} are noise, and the others calibration, navigation or correction.",
            "Convert the measurement itself, not only its adjustments.",
        )
