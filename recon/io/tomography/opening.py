"""A file of tomography, by its content; its angles, and its rotation axis, settled."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...errors import ConfigError, InputError, ReconError
from ..stores import HDF5Store, NpzStore, Store, open_store
from .centre import rotation_centre
from .checks import checked, refuse_rays
from .layouts import (
    DXCHANGE,
    LODOPAB,
    from_arrays,
    from_exchange,
    from_lodopab,
    is_exchange,
    is_lodopab,
    is_plain,
)
from .sinogram import Sinogram
from .stacks import from_stack, is_stack

AUTO = "auto"
OFF = 0.5  # detectors between the axis of a file and that of its sinogram, from where it is said


def is_tomography(path: str | Path) -> bool:
    """Whether a file, or a folder of TIFF files, holds what `open_sinogram` reads; False for what cannot be read at all."""
    path = Path(path)
    try:
        if not os.path.exists(path):
            return False
        if path.is_dir() or is_stack(path):
            return is_stack(path)
        store = open_store(path, "kspace")
        if not isinstance(store, HDF5Store | NpzStore):
            return False
        entries = store.entries()
        return is_lodopab(entries) or is_exchange(entries) or is_plain(entries)
    except (ReconError, OSError):
        return False


def open_sinogram(
    path: str | Path,
    *,
    axis: float | str | None = None,
    radians: bool = False,
    rows: tuple[int, int] | None = None,
) -> Sinogram:
    """The sinograms of a file, whole and `checked`, its formats those of `recon.io.tomography`.

    ``axis``: the detector that the rotation axis falls on; "auto" to find it in a parallel beam, as is done where
    neither it nor the file says (`rotation_centre`). ``radians``: the angles in the file are. ``rows``: first and last + 1
    of the slices to keep. Raises `InputError` for whatever cannot be used.
    """
    path = Path(path)
    if is_stack(path):
        found = from_stack(path)
    else:
        store = open_store(path, "kspace")
        found = from_store(store, rows)
    if rows is not None and found.format not in (DXCHANGE, LODOPAB):  # of which no more was read
        found = found.part(*rows)
    if radians:
        found = replace(found, angles=np.rad2deg(found.angles))
    refuse_rays(found)
    published = axis is None and found.format == LODOPAB
    return checked(found if published else with_axis(found, axis))


def from_store(store: Store, rows: tuple[int, int] | None) -> Sinogram:
    """The sinograms of a file of arrays, by the names of these; raises `InputError` for one that holds none."""
    entries = store.entries()
    if is_lodopab(entries):
        return from_lodopab(store, rows)
    if is_exchange(entries):
        return from_exchange(store, rows)
    if is_plain(entries):
        return from_arrays(store)
    raise InputError(
        f"{store.path} holds no sinogram.",
        f"It holds: {store.contents()}.",
        "Store `sinogram`, `angles_deg` and `geometry`; or exchange/data, or LoDoPaB's data.",
    )


def with_axis(sinogram: Sinogram, axis: float | str | None) -> Sinogram:
    """``sinogram`` with the rotation axis given, found where it is to be, or as the file says; what is done is `said`.

    Raises `ConfigError` for an axis that is no detector, `InputError` where it is to be found and cannot be.
    """
    beam = sinogram.beam
    if axis is not None and axis != AUTO:
        try:
            place = float(axis)
        except ValueError:
            raise ConfigError(f'--axis is "{axis}".', "It is the number of a detector, or auto.") from None
        if not -sinogram.detectors < place < 2 * sinogram.detectors:
            raise ConfigError(
                f"--axis is {place:g}.", f"{sinogram.path} has detectors 0 to {sinogram.detectors - 1}."
            )
        return replace(
            sinogram,
            beam=replace(beam, axis=place),
            said=(*sinogram.said, f"rotation axis on detector {place:g}, as given"),
        )
    middle = f"rotation axis in the middle of the detector, {(sinogram.detectors - 1) / 2:g}"
    if beam.kind != "parallel":
        if axis == AUTO:
            raise InputError(
                f"{sinogram.path}: the axis of a {beam.kind} beam is not searched for.",
                "That is done for parallel rays.",
                "Give it with --axis, or in the geometry.",
            )
        note = middle if beam.axis is None else f"rotation axis on detector {beam.axis:g}, as the file says"
        return replace(sinogram, said=(*sinogram.said, note))
    try:
        found = rotation_centre(sinogram.data, sinogram.angles)
    except InputError as error:
        if axis == AUTO:
            raise
        if beam.axis is None:
            warning = f"{error.what} {error.why} Taken: the {middle}; --axis gives another"
            return replace(sinogram, warnings=(*sinogram.warnings, warning))
        return replace(
            sinogram, said=(*sinogram.said, f"rotation axis on detector {beam.axis:g}, as the file says")
        )
    if axis is None and beam.axis is not None:
        note = (
            f"rotation axis on detector {beam.axis:g}, as the file says; the sinogram itself says {found:.2f}"
        )
        note += " (--axis auto takes that)" if abs(found - beam.axis) > OFF else ""
        return replace(sinogram, said=(*sinogram.said, note))
    return replace(
        sinogram,
        beam=replace(beam, axis=round(found, 2)),
        said=(*sinogram.said, f"rotation axis on detector {found:.2f}, found in the sinogram"),
    )
