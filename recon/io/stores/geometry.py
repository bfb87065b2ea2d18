"""Where the pixels of an image lie in the patient, in the coordinates of DICOM (LPS) and of NIfTI (RAS)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .header import Grid

PARALLEL = 1e-3  # of unit vectors, and of steps between slices relative to their length


@dataclass(frozen=True, eq=False)
class Geometry:
    """Pixel sizes, and where known the place of each slice, of images (slices, h, w).

    ``spacing`` (mm): from row to row, from column to column, thickness. ``positions`` (slices, 3) in mm: the centre
    of pixel [h // 2, w // 2] in the patient's coordinates, which grow to the left, to the back and to the head (LPS).
    ``axes`` (slices, 3, 3): unit vectors along which rows, columns and slices are counted. Both are None where
    the file does not say. ``volumes``: for each slice the number of the volume it belongs to, None for one volume.
    """

    spacing: tuple[float, float, float]
    positions: np.ndarray | None = None
    axes: np.ndarray | None = None
    volumes: np.ndarray | None = None

    @classmethod
    def of_grid(cls, space: Grid | None, size: tuple[int, int]) -> Geometry | None:
        """Pixel sizes alone, of k-space of ``size`` (H, W) that encodes the field of view of ``space``; None if unknown."""
        if space is None or space.fov is None:
            return None
        x, y, z = space.fov
        return cls((x / size[0], y / size[1], z / space.matrix[2]))

    def corner(self, index: int, size: tuple[int, int]) -> np.ndarray:
        """Centre (3,) of pixel [0, 0] of slice ``index`` of an image of ``size``, in mm, LPS."""
        assert self.positions is not None and self.axes is not None
        steps = [size[axis] // 2 * self.spacing[axis] * self.axes[index, axis] for axis in (0, 1)]
        return self.positions[index] - steps[0] - steps[1]

    def stacks(self, count: int) -> list[list[int]]:
        """The ``count`` slices in stacks that are grids: parallel, one step apart, in the order of that step.

        Each volume is a stack where it is one, else each of its slices is. Without positions the file's order is kept.
        """
        numbers = np.zeros(count, int) if self.volumes is None else self.volumes
        found = []
        for number in dict.fromkeys(numbers.tolist()):
            members = np.flatnonzero(numbers == number)
            ordered = self._in_line(members)
            found += [[int(i)] for i in members] if ordered is None else [ordered.tolist()]
        return found

    def _in_line(self, members: np.ndarray) -> np.ndarray | None:
        """``members`` ordered along their normal; None where they are not parallel and evenly spaced in one line."""
        if self.positions is None or self.axes is None or len(members) == 1:
            return members
        normal = self.axes[members[0], 2]
        if np.abs(self.axes[members] - self.axes[members[0]]).max() > PARALLEL:
            return None
        ordered = members[np.argsort(self.positions[members] @ normal, kind="stable")]
        steps = np.diff(self.positions[ordered], axis=0)
        length = np.linalg.norm(steps.mean(0))
        if length == 0 or np.abs(steps - steps.mean(0)).max() > max(PARALLEL * length, 1e-2):
            return None
        return ordered

    def affine(self, stack: list[int], size: tuple[int, int]) -> np.ndarray:
        """(4, 4): pixel [row, column, place in ``stack``] of images of ``size`` to mm in NIfTI's coordinates (RAS).

        Without positions it is pixel sizes alone, the middle of the image at 0.
        """
        matrix = np.eye(4)
        if self.positions is None or self.axes is None:
            matrix[:3, :3] = np.diag(self.spacing)
            matrix[:3, 3] = -np.array([*(n // 2 for n in size), len(stack) // 2]) * self.spacing
            return matrix
        first, last = self.positions[stack[0]], self.positions[stack[-1]]
        axes = self.axes[stack[0]]
        through = (last - first) / (len(stack) - 1) if len(stack) > 1 else axes[2] * self.spacing[2]
        matrix[:3, :3] = np.stack([axes[0] * self.spacing[0], axes[1] * self.spacing[1], through], 1)
        matrix[:3, 3] = self.corner(stack[0], size)
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix
