"""Where the samples of an ISMRMRD readout lie in Cartesian k-space, and how large its image is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import InputError
from ..cropping import crop_readout
from .header import Grid, Header, Limits

SQUARE = 1.02  # pixels whose sides differ by less are taken for square
LEAK = 2  # samples of the cropped readout that a missing neighbour spoils


@dataclass(frozen=True)
class Encoding:
    """Sizes of one encoding of an ISMRMRD header, each along readout, phase and partitions.

    ``matrix`` is encoded; ``image`` (h, w, planes) is what the header keeps of its field of view; ``size``
    (H, W) is that of the k-space that is made of it: readout oversampling removed, which leaves ``rows``, and zeros
    added along the axis of lower resolution where the header asks for pixels of another shape. ``center``: the counters of line and partition at
    the zero frequency. ``pixel`` in mm, None where the header gives no field of view. ``finer`` is how much finer the
    header's image is, 1 unless it is interpolated.
    """

    matrix: tuple[int, int, int]
    image: tuple[int, int, int]
    size: tuple[int, int]
    rows: int
    center: tuple[int, int]
    pixel: tuple[float, float, float] | None
    finer: float

    @classmethod
    def of(cls, header: Header, path: Path) -> Encoding:
        """The encoding of a header; raises `InputError` for one without an encoded matrix."""
        encoded, recon = spaces(header, path)
        height, width, planes = kept(encoded.matrix, encoded, recon)
        finer = [recon.matrix[0] / height, recon.matrix[1] / width]
        grown = [f / min(finer) if f / min(finer) > SQUARE else 1.0 for f in finer]
        size = (round(height * grown[0]), round(encoded.matrix[1] * grown[1]))
        image = (size[0], min(round(width * grown[1]), size[1]), planes)
        pixel = None
        if encoded.fov:
            x, y, z = encoded.fov
            pixel = (x * height / encoded.matrix[0] / size[0], y / size[1], z / encoded.matrix[2])
        return cls(encoded.matrix, image, size, height, centers(header, encoded), pixel, min(finer))

    @classmethod
    def along_trajectory(cls, header: Header, path: Path) -> Encoding:
        """That of readouts along a trajectory, whose pixels are square: as wide as the encoded matrix has them in its
        readout, since some files count readouts in its other number. Raises as `of`."""
        encoded, recon = spaces(header, path)
        x, y, z = encoded.matrix
        pixel = None
        if encoded.fov:
            side = encoded.fov[0] / x
            pixel, y = (side, side, encoded.fov[2] / z), max(1, round(encoded.fov[1] / side))
        elif header.recon is not None:
            y = recon.matrix[1]
        image = kept((x, y, z), encoded, recon)
        finer = min(recon.matrix[0] / image[0], recon.matrix[1] / image[1])
        return cls((x, y, z), image, image[:2], image[0], centers(header, encoded), pixel, finer)

    def header(self, stored: Header) -> Header:
        """The header of the k-space that is made, for a file whose own is ``stored``."""
        fov = None
        if self.pixel is not None:
            fov = (self.pixel[0] * self.size[0], self.pixel[1] * self.size[1], self.pixel[2] * self.matrix[2])
        lines = Limits(stored.lines.maximum, self.center[0])
        return Header(True, Grid((*self.size, self.matrix[2]), fov), Grid(self.image), lines)

    def place(self, readout: Any, turned: bool, path: Path) -> tuple[int, np.ndarray, int, int]:
        """(first, samples (coils, n), line, partition) of a readout in the encoded matrix; ``turned``: played backwards.

        The sample at the zero frequency comes to the middle. One that fills the matrix does so without moving where its
        header names no other centre. Raises `InputError` for a readout that does not fit.
        """
        count = readout.number_of_samples
        begin, end = readout.discard_pre, count - readout.discard_post
        center, samples = readout.center_sample, readout.data
        if turned:
            begin, end, samples = count - end, count - begin, samples[:, ::-1]
        whole = count == self.matrix[0] and center in (0, count // 2)
        if turned and not whole:
            center = count - 1 - center
        shift = 0 if whole else self.matrix[0] // 2 - center
        low, high = max(begin, -shift), min(end, self.matrix[0] - shift)
        line = self.matrix[1] // 2 + readout.idx.kspace_encode_step_1 - self.center[0]
        partition = self.matrix[2] // 2 + readout.idx.kspace_encode_step_2 - self.center[1]
        inside = 0 <= line < self.matrix[1] and 0 <= partition < self.matrix[2]
        if not inside or 2 * (high - low) < end - begin or high <= low:
            raise InputError(
                f"{path}: readout {readout.scan_counter} does not fit the encoded matrix of its header.",
                f"Its {count} samples with the centre {readout.center_sample}, line {readout.idx.kspace_encode_step_1} and "
                f"partition {readout.idx.kspace_encode_step_2} leave {' x '.join(map(str, self.matrix))}.",
                "Correct encodedSpace and encodingLimits in the header, or convert the raw data again.",
            )
        return low + shift, samples[:, low:high], line, partition

    def partition(self, readout: Any, path: Path) -> int:
        """The partition of a readout in the encoded matrix; raises `InputError` for one outside of it."""
        partition = self.matrix[2] // 2 + readout.idx.kspace_encode_step_2 - self.center[1]
        if not 0 <= partition < self.matrix[2]:
            raise InputError(
                f"{path}: readout {readout.scan_counter} does not fit the encoded matrix of its header.",
                f"Its partition {readout.idx.kspace_encode_step_2} leaves {self.matrix[2]} partitions around {self.center[1]}.",
                "Correct encodedSpace and encodingLimits in the header, or convert the raw data again.",
            )
        return partition

    def reduced(self, kspace: np.ndarray, sampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """k-space (coils, X, Y) and where it was sampled (X, Y), encoded, as ones of ``size``.

        Readout oversampling is removed as by `crop_readout`. Rows within `LEAK` of samples that are missing in
        the readout (asymmetric echo) hold a part of them, and count as not sampled; those are zero.
        """
        if self.rows < self.matrix[0]:
            kspace = crop_readout(torch.from_numpy(kspace), self.rows).numpy()
            sampled = rows_left(sampled, self.rows)
        kspace, sampled = (enlarged(array, self.size) for array in (kspace, sampled))
        kspace *= sampled
        return kspace, sampled


def spaces(header: Header, path: Path) -> tuple[Grid, Grid]:
    """The encoded space and that of the image, the encoded one again where the header has none; raises `InputError`."""
    if header.encoded is None:
        raise InputError(
            f"{path}: its ISMRMRD header gives no encoded matrix.",
            "Without it nobody knows where a readout lies in k-space.",
            "Add encodedSpace/matrixSize to the header.",
        )
    return header.encoded, header.recon or header.encoded


def kept(matrix: tuple[int, int, int], encoded: Grid, recon: Grid) -> tuple[int, int, int]:
    """What the image keeps of the encoded ``matrix``: the share of its field of view, else of its matrix."""
    if encoded.fov and recon.fov:
        shares = [min(1.0, r / e) for r, e in zip(recon.fov, encoded.fov, strict=True)]
    else:
        shares = [min(1.0, r / e) for r, e in zip(recon.matrix, matrix, strict=True)]
    height, width, planes = (max(1, round(n * s)) for n, s in zip(matrix, shares, strict=True))
    return height, width, planes


def centers(header: Header, encoded: Grid) -> tuple[int, int]:
    """The counters of line and partition at the zero frequency: the middle, where the header does not say."""
    found = (header.lines.center, header.partitions.center)
    line, partition = (n // 2 if c is None else c for n, c in zip(encoded.matrix[1:], found, strict=True))
    return line, partition


def rows_left(sampled: np.ndarray, rows: int) -> np.ndarray:
    """(X, Y) -> (rows, Y): which rows of a cropped readout have all their neighbours within `LEAK` rows."""
    full, step = len(sampled), len(sampled) / rows
    reach = int(np.ceil(LEAK * step))
    padded = np.pad(sampled, ((reach, reach), (0, 0)), constant_values=True)
    clean = np.all(np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=0), axis=-1)
    places = np.round((np.arange(rows) - rows // 2) * step + full // 2).astype(int)
    return clean[np.clip(places, 0, full - 1)] & sampled.any(axis=0, keepdims=True)


def enlarged(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(..., H, W) in the middle of zeros (..., *size): position n // 2 stays the middle."""
    if array.shape[-2:] == size:
        return array
    before = [n // 2 - m // 2 for n, m in zip(size, array.shape[-2:], strict=True)]
    grown = np.zeros((*array.shape[:-2], *size), array.dtype)
    rows, columns = (slice(b, b + m) for b, m in zip(before, array.shape[-2:], strict=True))
    grown[..., rows, columns] = array
    return grown
