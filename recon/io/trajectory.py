"""Where the samples of non-Cartesian k-space lie, read beside it and checked to fit it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from operators.noncartesian import trajectory_fault

from ..errors import InputError
from .cropping import as_tensor
from .stores import ArrayInfo, Store

MOST_PIXELS = 4096  # along an axis


@dataclass(frozen=True, eq=False)
class Trajectory:
    """``points`` (1 or slices, readouts, samples, 2) float32 in cycles per pixel, the first along H, for k-space of
    ``shape`` (slices, coils, readouts, samples) and images of ``size`` (H, W)."""

    points: Tensor
    shape: tuple[int, int, int, int]
    size: tuple[int, int]

    def of(self, index: int) -> Tensor:
        """That of a slice, (readouts, samples, 2)."""
        return self.points[index if len(self.points) > 1 else 0]


def find_trajectory(store: Store, kspace: ArrayInfo, matrix: Sequence[int] | None) -> Trajectory | None:
    """The trajectory beside k-space in a file; None where there is none, and k-space is Cartesian.

    It is (samples, 2) or (readouts, samples, 2) for all slices, or (slices, readouts, samples, 2). ``matrix`` (H, W)
    is the size of the image; None for that of the file's array "matrix", of its header, its maps or its reference.
    Raises `InputError` for one in other units or of another length than k-space, and where no size is known.
    """
    name = store.find("trajectory")
    if name is None:
        return None
    if store.entries()[name].dtype.kind not in "fiuc":
        raise InputError(
            f"{store.path}: {name} is {store.entries()[name].dtype}, not numbers.", do="Store it as float32."
        )
    points = torch.from_numpy(np.array(store.fetch(name), order="C"))
    points = points if points.is_complex() else points.double()
    refuse_fault(
        store, points if points.is_complex() else points.clamp(-0.5, 0.5)
    )  # units when the size is known
    shape, each = fitted_shape(store, kspace, tuple(points.shape))
    points = points.reshape(-1, *shape[2:], 2) if each else points.reshape(1, *shape[2:], 2)
    size = image_size(store, shape, points, matrix)
    refuse_fault(store, points, size)
    return Trajectory(as_tensor(points.numpy(), np.float32), shape, size)


def refuse_fault(store: Store, points: Tensor, size: tuple[int, int] | None = None) -> None:
    """Raises `InputError` for what `operators.noncartesian.trajectory_fault` finds."""
    fault = trajectory_fault(points, size)
    if fault is not None:
        what, why, do = fault
        raise InputError(f"{store.path}: {what[0].lower()}{what[1:]}", why, do)


def fitted_shape(
    store: Store, kspace: ArrayInfo, points: tuple[int, ...]
) -> tuple[tuple[int, int, int, int], bool]:
    """(slices, coils, readouts, samples) of k-space, and whether each slice has its own trajectory (..., 2).

    Raises `InputError` where the two have different lengths.
    """
    found, layout = kspace.shape, points[:-1]
    if kspace.dtype.kind != "c":
        raise InputError(
            f"{store.path}: k-space is {kspace.dtype}, not complex.",
            "Samples of k-space have a real and an imaginary part.",
            "Store them as complex64.",
        )
    for each in (False, True):
        inner = layout[1:] if each else layout
        if not 1 <= len(inner) <= 2:
            continue
        for tail in (inner, (math.prod(inner),)):
            lead = found[: len(found) - len(tail)]
            if found[len(lead) :] != tail or len(lead) > 2 or (each and lead[:1] != layout[:1]):
                continue
            several = len(lead) == 1 and (each or store.axes == "slices")
            lead = (*lead, 1) if several else (1,) * (2 - len(lead)) + lead
            readouts, samples = inner if len(inner) == 2 else (1, *inner)
            return (lead[0], lead[1], readouts, samples), each
    raise InputError(
        f"{store.path}: the trajectory of shape {points} does not fit k-space of shape {found}.",
        f"It has {math.prod(layout)} places, and the last axes of k-space are its samples.",
        "Store k-space as (slices, coils, readouts, samples) and the trajectory as (readouts, samples, 2).",
    )


def image_size(
    store: Store, shape: tuple[int, ...], points: Tensor, matrix: Sequence[int] | None
) -> tuple[int, int]:
    """(H, W): as asked for, else as the file says; raises `InputError` where neither does, or it is none."""
    entries, header = store.entries(), store.header()
    found: Sequence[int] | None = matrix
    if found is None and (name := store.locate(("matrix",))) is not None:
        found = [int(n) for n in np.ravel(store.fetch(name))]
    if found is None and header.recon is not None:
        found = header.recon.plane
    for names in (
        ("sensitivity_maps", "maps", "sens_maps", "mps"),
        ("reconstruction_rss", "reconstruction_esc"),
    ):
        if found is None and (name := store.locate(names)) is not None:
            found = entries[name].shape[-2:]
    if found is None:
        reach = round(1 / max(float(points.diff(dim=-2).norm(dim=-1).max()), 1 / MOST_PIXELS))
        raise InputError(
            f"{store.path} does not say how many pixels the image has.",
            "A trajectory in cycles per pixel does not either"
            + (f"; its readouts are spaced for up to {reach}." if shape[3] > 1 else "."),
            'Add --matrix N or --matrix H W, or store an array "matrix" in the file.',
        )
    size = tuple(found) * (2 if len(found) == 1 else 1)
    if len(size) != 2 or not all(1 < n <= MOST_PIXELS for n in size):
        raise InputError(
            f"{store.path}: the matrix is {' x '.join(map(str, found))}.",
            f"It is the height and the width of the image, up to {MOST_PIXELS} pixels each.",
            "Give --matrix N or --matrix H W.",
        )
    return size[0], size[1]
