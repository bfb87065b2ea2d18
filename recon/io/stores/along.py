"""ISMRMRD readouts along trajectories: their samples, and where in k-space each of these lies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from operators.noncartesian.trajectories import FARTHEST, ROUNDING

from ...errors import InputError
from .acquisitions import Acquisitions
from .base import refuse_more_than_memory
from .encoding import Encoding
from .partitions import planes_of_volume

ONE_TRAJECTORY = 1e-4  # of the largest number of a trajectory: two that differ by less are one
REACH = 0.3  # of .5 cycles per pixel: a unit in which a trajectory reaches less far is another
Unit = tuple[str, tuple[float, float]]


@dataclass(frozen=True, eq=False)
class AlongTrajectory:
    """The readouts of images, ``images`` with the indices of each, with the trajectories that they carry.

    An image has its readouts in the order they were played. Of a volume (a stack of stars or spirals) readouts of the same
    line counter belong together, a trajectory for all partitions, and its slices are those of `planes_of_volume`.
    Samples to be discarded are left out. ``encoding`` says the sizes.
    """

    acquisitions: Acquisitions
    images: list[np.ndarray]
    encoding: Encoding

    @property
    def shape(self) -> tuple[int, int, int]:
        """(coils, readouts, samples) of an image; one with fewer readouts than others is filled with zeros."""
        coils = int(self.acquisitions.heads["active_channels"][self.images[0][0]])
        return coils, max(int(number.max()) + 1 for number in self._numbers), self._samples

    @cached_property
    def points(self) -> np.ndarray:
        """(readouts, samples, 2) float32 in cycles per pixel for all slices, or (slices, readouts, samples, 2)."""
        return self._stored[0] * np.array(self.unit[1], np.float32)

    @cached_property
    def unit(self) -> Unit:
        """That of the stored trajectories, and the factors along H and W that make cycles per pixel of it."""
        most = np.abs(self._stored[0]).reshape(-1, 2).max(0)
        return seeming_unit_of(most, self.encoding)

    @property
    def notes(self) -> list[str]:
        """What was understood of the trajectories, as far as it is unusual, a sentence each."""
        name, factors = self.unit
        notes = [self._stored[1]] if self._stored[1] else []
        reach = float(np.abs(self.points).max())
        if max(factors) != 1:
            notes.append(f"The trajectory is taken to be in {name}, by its range.")
        elif reach < REACH:
            notes.append(
                f"The trajectory, taken to be in cycles per pixel, reaches {reach:.2g} of .5: a lower resolution than the "
                "header's, or another unit."
            )
        return notes

    def kspace(self, image: int) -> np.ndarray:
        """(slices, coils, readouts, samples) complex64 of one of ``images``."""
        coils, readouts, samples = self.shape
        partitions, indices, numbers = self.encoding.matrix[2], self.images[image], self._numbers[image]
        refuse_more_than_memory((partitions, coils, readouts, samples), np.dtype(np.complex64))
        kspace = np.zeros((partitions, coils, readouts, samples), np.complex64)
        count = np.zeros((partitions, readouts), np.int32)
        for number, (_, one) in zip(numbers, self.acquisitions.read(indices), strict=True):
            partition = self.encoding.partition(one, self.acquisitions.path)
            kspace[partition, :, number] += one.data[:, one.discard_pre : one.discard_pre + samples]
            count[partition, number] += 1
        kspace /= np.maximum(count, 1)[:, None, :, None]
        if partitions == 1:
            return kspace
        kspace = planes_of_volume(kspace, count > 0, self.acquisitions.path)
        first = partitions // 2 - self.encoding.image[2] // 2
        return np.ascontiguousarray(kspace[first : first + self.encoding.image[2]])

    @cached_property
    def _numbers(self) -> list[np.ndarray]:
        """For each image, the place of each readout among those of the image."""
        if self.encoding.matrix[2] == 1:
            return [np.arange(len(indices)) for indices in self.images]
        lines = self.acquisitions.heads["idx"]["kspace_encode_step_1"]
        return [np.unique(lines[indices], return_inverse=True)[1].ravel() for indices in self.images]

    @cached_property
    def _samples(self) -> int:
        """Samples of a readout that are not to be discarded; raises `InputError` where readouts differ."""
        heads = self.acquisitions.heads[np.concatenate(self.images)]
        kept = heads["number_of_samples"].astype(int) - heads["discard_pre"] - heads["discard_post"]
        if kept.min() != kept.max() or kept.max() < 1:
            raise InputError(
                f"{self.acquisitions.path}: its readouts have {kept.min()} to {kept.max()} samples that are kept.",
                "All readouts of a trajectory are equally long here.",
                "Keep readouts of one length, or correct discard_pre and discard_post.",
            )
        return int(kept.max())

    @cached_property
    def _stored(self) -> tuple[np.ndarray, str]:
        """`points` as stored, and what is to be said of a third number of each sample."""
        _, readouts, samples = self.shape
        found = np.zeros((len(self.images), readouts, samples, 2), np.float32)
        third = 0.0
        for place, (indices, numbers) in enumerate(zip(self.images, self._numbers, strict=True)):
            points = self._trajectories(indices)
            self._refuse_third(points)
            third = max(third, float(np.abs(points[..., 2:]).max(initial=0)))
            found[place, numbers] = points[..., :2]
            self._refuse_turned(found[place, numbers], points[..., :2])
        if not np.abs(found - found[:1]).max() > ONE_TRAJECTORY * np.abs(found).max():  # NaN is refused later
            found = found[0]
        elif self.encoding.image[2] > 1:
            found = np.repeat(found, self.encoding.image[2], axis=0)
        plain = third == 0 or self.encoding.matrix[2] > 1
        return found, "" if plain else (
            "The third number of each place of the trajectory is taken for a weight, and not used."
        )

    def _trajectories(self, indices: np.ndarray) -> np.ndarray:
        """(readouts, samples, dimensions) of the readouts ``indices``, those to be discarded left out."""
        heads, samples = self.acquisitions.heads, self._samples
        whole = self.acquisitions.trajectories(indices)
        firsts = heads["discard_pre"][indices]
        return np.stack([one[first : first + samples] for one, first in zip(whole, firsts, strict=True)])

    def _refuse_third(self, points: np.ndarray) -> None:
        """Raises `InputError` where the third of each sample's numbers is a coordinate along which readouts run."""
        third = points[..., 2:]
        along = np.ptp(third, axis=1).max(initial=0) > ONE_TRAJECTORY * np.abs(points).max()
        if along and (self.encoding.matrix[2] > 1 or third.min() < 0):
            raise InputError(
                f"{self.acquisitions.path} has a trajectory in three dimensions.",
                "Its readouts leave their plane, so that its slices cannot be taken apart.",
                "Use a measurement of slices, or a stack of stars or of spirals.",
            )

    def _refuse_turned(self, kept: np.ndarray, points: np.ndarray) -> None:
        """Raises `InputError` where readouts of one line counter, of several partitions, have different trajectories."""
        if np.abs(kept - points).max() > ONE_TRAJECTORY * np.abs(points).max():
            raise InputError(
                f"{self.acquisitions.path}: readouts of one line have different trajectories in different partitions.",
                "Slices can be taken apart only where each readout was measured in every partition.",
                "Use a stack whose partitions have the same readouts, or number its readouts one by one.",
            )


def seeming_unit_of(most: np.ndarray, encoding: Encoding) -> Unit:
    """The unit in which the largest numbers (2,) of a trajectory fill k-space, and its factors to cycles per pixel.

    Cycles per pixel where no number exceeds .5. Of no unit that is known: cycles per pixel too, which is refused later.
    """
    height, width = encoding.size
    usual: Unit = ("cycles per pixel", (1.0, 1.0))
    wide = encoding.matrix[0]
    units = [
        usual,
        (f"cycles per field of view, [-{height}/2, {height}/2]", (1 / height, 1 / width)),
        (f"cycles per encoded field of view, [-{wide}/2, {wide}/2]", (1 / wide, height / width / wide)),
        ("radians per pixel, [-pi, pi]", (0.5 / np.pi, 0.5 / np.pi)),
    ]
    if encoding.pixel is not None:
        mm = encoding.pixel[:2]
        for name, scale in (("metre", 1e3), ("millimetre", 1.0)):
            units.append((f"cycles per {name}", (mm[0] / scale, mm[1] / scale)))
            units.append((f"radians per {name}", tuple(p / scale / (2 * np.pi) for p in mm)))  # type: ignore[arg-type]
    if most.max() <= FARTHEST + ROUNDING:
        return usual
    fits = (unit for unit in units if REACH <= (most * unit[1]).max() <= FARTHEST + ROUNDING)
    return next(fits, usual)
