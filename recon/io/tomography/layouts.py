"""Files of named arrays: a sinogram with its angles and geometry, LoDoPaB's observations, DXchange's raw frames."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...errors import InputError
from ..stores import ArrayInfo, Store
from ..stores.fastmri import dataset_in, plain_value
from .checks import checked_angles
from .counts import corrected
from .geometry import beam_of, parsed_block
from .sinogram import Beam, Sinogram

SINOGRAM = ("sinogram", "sino", "sinograms", "projections")
ANGLES = ("angles_deg", "angles", "theta")
COUNTS = ("raw", "flat", "dark")
EXCHANGE = {"raw": "exchange/data", "flat": "exchange/data_white", "dark": "exchange/data_dark"}
EXCHANGE_ANGLES = "exchange/theta"

RAY_BYTES = 24  # a ray takes at the peak: its counts, its integral, its noise, and copies of these
DXCHANGE = "DXchange HDF5"
LODOPAB = "LoDoPaB HDF5"
LODOPAB_RAYS = (1000, 513)  # views and detectors of an observation
LODOPAB_WIDTH, LODOPAB_SIZE = 0.26, 362  # metres and pixels of an image's side
LODOPAB_SCALE = 81.35858  # 1/m, the attenuation that is 1 in it
LODOPAB_WATER = 20.0  # 1/m
LODOPAB_PHOTONS = 4096.0  # that each detector would count without an object


def is_lodopab(entries: Mapping[str, ArrayInfo]) -> bool:
    """Whether the arrays of a file are those of an observation of LoDoPaB-CT."""
    return list(entries) == ["data"] and entries["data"].shape[1:] == LODOPAB_RAYS


def is_exchange(entries: Mapping[str, ArrayInfo]) -> bool:
    """Whether the arrays of a file are those of the Scientific Data Exchange."""
    return EXCHANGE["raw"] in entries


def is_plain(entries: Mapping[str, ArrayInfo]) -> bool:
    """Whether the arrays of a file are a sinogram or raw counts, with angles."""
    return named(entries, ANGLES) is not None and (
        named(entries, SINOGRAM) is not None or {"raw", "flat"} <= set(entries)
    )


def named(entries: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """The first of ``names`` that is there."""
    return next((name for name in names if name in entries), None)


def described(entries: Mapping[str, ArrayInfo]) -> tuple[str, ...]:
    """Names, shapes and dtypes of arrays."""
    return tuple(f"{name} {info.shape} {info.dtype}" for name, info in entries.items())


def refuse_too_many(path: Path, shape: Iterable[int]) -> None:
    """Raise `InputError` for more rays than the memory holds."""
    needed, there = RAY_BYTES * math.prod(shape), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there > 0:
        raise InputError(
            f"{path} does not fit into memory.",
            f"Its rays need about {needed / 2**30:.0f} GiB, {there / 2**30:.0f} are there.",
            "Read a part of its slices with --rows A:B.",
        )


def from_arrays(store: Store) -> Sinogram:
    """The layout of our own, in npz or HDF5; see `recon.io.tomography`. Raises `InputError`."""
    entries, path = store.entries(), store.path
    name, turns = named(entries, SINOGRAM), named(entries, ANGLES)
    assert turns is not None
    refuse_too_many(path, entries[name or "raw"].shape)
    block = geometry_block(store, entries)
    counts = {part: numbers(store, part) for part in COUNTS if part in entries}
    told = None
    if "raw" in counts and "flat" in counts:
        raw = rows_of(counts["raw"], path)
        told = corrected(raw, *(counts.get(part) for part in ("flat", "dark")))  # type: ignore[arg-type]
    said: list[str] = []
    if name is not None:
        data = numbers(store, name)
        if data.ndim == 2:
            data = data[None]
    elif told is not None:
        data = told.data
    else:
        raise InputError(
            f"{path} has raw counts without a flat field.",
            "Transmission is the ratio of the two.",
            "Store it as `flat`, (frames, rows, detectors).",
        )
    if data.ndim != 3:
        raise InputError(
            f"{path}: the sinogram is of shape {data.shape}.",
            "It is (slices, angles, detectors) or (angles, detectors); of a cone beam (angles, rows, detectors).",
            "Store it so.",
        )
    beam, water, unused = beam_of(block, str(path), data.shape[2])
    frames_first = beam.kind == "cone"
    if name is None and not frames_first:
        data = data.transpose(1, 0, 2)
    angles = checked_angles(numbers(store, turns), data.shape, 0 if frames_first else 1, path)
    std = None
    if told is not None:
        std = told.std if frames_first else told.std.transpose(1, 0, 2)
        if std.shape != data.shape:
            raise InputError(
                f"{path}: the raw counts are {told.std.shape}, the sinogram {data.shape}.",
                "Counts are (angles, rows, detectors), a sinogram (slices, angles, detectors).",
                "Store counts of the same rays, or none.",
            )
        said += (
            told.said
            if name is None
            else [f"noise of each ray from its counts ({path.name}: raw, flat, dark)"]
        )
    elif "std" in entries:
        std = np.broadcast_to(numbers(store, "std"), data.shape).astype(np.float32)
        said.append("noise of each ray as stored")
    return Sinogram(
        path,
        f"{store.format} with a geometry",
        np.ascontiguousarray(data, np.float32),
        angles,
        beam,
        None if std is None else np.ascontiguousarray(std, np.float32),
        water,
        (*said, *unused),
        () if told is None else told.warnings,
        described(entries),
        neighbours=told is not None or frames_first,
    )


def numbers(store: Store, name: str) -> np.ndarray:
    """An array of real numbers; raises `InputError` for others."""
    array = store.fetch(name)
    if array.dtype.kind not in "fiu":
        raise InputError(
            f"{store.path}: {name} is {array.dtype}.", "It holds real numbers.", "Store it as float32."
        )
    return array


def rows_of(raw: np.ndarray, path: Path) -> np.ndarray:
    """Raw frames (angles, rows, detectors), of one row also (angles, detectors)."""
    if raw.ndim == 2:
        raw = raw[:, None]
    if raw.ndim != 3:
        raise InputError(
            f"{path}: the raw counts are of shape {raw.shape}.",
            "They are (angles, rows, detectors).",
            "Store them so.",
        )
    return raw


def geometry_block(store: Store, entries: Mapping[str, ArrayInfo]) -> dict[str, Any]:
    """The geometry of a file: a text ``geometry``, or the attributes of an HDF5 file; {} for none, a parallel beam."""
    if "geometry" in entries:
        text = store.fetch("geometry")
        if text.size != 1 or text.dtype.kind not in "USO":
            raise InputError(
                f"{store.path}: its geometry is {text.dtype} of shape {text.shape}.",
                "It is one text of JSON.",
                "Store json.dumps(...) under `geometry`.",
            )
        return parsed_block(text.reshape(-1)[0], str(store.path))
    attributes = dict(store.attributes())
    if isinstance(attributes.get("geometry"), str) and str(attributes["geometry"]).lstrip().startswith("{"):
        return parsed_block(str(attributes["geometry"]), str(store.path))
    return attributes


def rows_in(store: Store, name: str, rows: tuple[int, int] | None, axis: int) -> np.ndarray:
    """The part ``rows`` along ``axis`` of an array of three axes in an HDF5 file, None for all.

    Raises `InputError` for other shapes, for rows that it does not have, and for more than the memory holds.
    """
    with store.reading(), h5py.File(store.path, "r") as file:
        data = dataset_in(file, name, store.path)
        if data.ndim != 3 or data.dtype.kind not in "fiu":
            raise InputError(
                f"{store.path}: {name} is {data.dtype} of shape {data.shape}.",
                "It holds real numbers, and three axes.",
                "Check the file.",
            )
        first, last = rows or (0, data.shape[axis])
        if not 0 <= first < last <= data.shape[axis]:
            raise InputError(
                f"{store.path}: slices {first} to {last} were asked for.",
                f"It has {data.shape[axis]}.",
                "Use --rows within them.",
            )
        shape = [*data.shape]
        shape[axis] = last - first
        refuse_too_many(store.path, shape)
        part = (slice(first, last),) if axis == 0 else (slice(None), slice(first, last))
        return np.asarray(data[part])


def from_lodopab(store: Store, rows: tuple[int, int] | None = None) -> Sinogram:
    """Observations (slices, 1000, 513) of LoDoPaB-CT, or ``rows`` of them, whose geometry and scale are as published.

    Parallel beam, 1000 views over half a turn, 513 detectors along the diagonal of images of 26 cm and 362 pixels a
    side. ``observation * 81.35858 = -log(counts / 4096)``: images are attenuation over that of 81.35858 / m, in which
    water, of 20 / m, is 0.2458, and the noise of a ray is known. Views are counted so that images lie as the data set's.
    Source: Leuschner et al., Scientific Data 8, 109 (2021).
    """
    entries = store.entries()
    data = rows_in(store, "data", rows, 0).astype(np.float32)
    views, detectors = LODOPAB_RAYS
    angles = (np.arange(views) + 0.5) * (180.0 / views) - 90.0
    pitch = math.sqrt(2) * LODOPAB_WIDTH / detectors
    beam = Beam(
        pitch=pitch,
        axis=(detectors - 1) / 2,
        unit="m",
        pixel=LODOPAB_WIDTH / LODOPAB_SIZE,
        size=LODOPAB_SIZE,
    )
    std = np.exp(0.5 * LODOPAB_SCALE * np.minimum(data, 0.25)) / (math.sqrt(LODOPAB_PHOTONS) * LODOPAB_SCALE)
    said = ("LoDoPaB-CT: geometry and scale as published; noise of each ray from 4096 photons",)
    water = LODOPAB_WATER / LODOPAB_SCALE
    return Sinogram(
        store.path,
        LODOPAB,
        data,
        angles,
        beam,
        std.astype(np.float32),
        water,
        said,
        (),
        described(entries),
    )


def from_exchange(store: Store, rows: tuple[int, int] | None = None) -> Sinogram:
    """Raw frames of DXchange (``exchange/data``, ``data_white``, ``data_dark``, ``theta``), corrected, as sinograms.

    A parallel beam whose axis the file does not say. Only ``rows``, first and last + 1, are read, None for all. Without
    ``theta`` the views are spread from 0 to 180 degrees, both included, as the format's own reader takes them. Raises
    `InputError` for a file without flat fields, and for what `corrected` refuses.
    """
    entries, path = store.entries(), store.path
    missing = [name for part, name in EXCHANGE.items() if part != "dark" and name not in entries]
    if missing:
        raise InputError(
            f"{path} has no {missing[0]}.",
            "Transmission is the ratio of counts to it.",
            "Store the flat fields.",
        )
    frames = {part: rows_in(store, name, rows, 1) for part, name in EXCHANGE.items() if name in entries}
    turns, units = None, ""
    if EXCHANGE_ANGLES in entries:
        with store.reading(), h5py.File(path, "r") as file:
            theta = dataset_in(file, EXCHANGE_ANGLES, path)
            turns, units = np.asarray(theta[()]), str(plain_value(theta.attrs.get("units", "")))
    told = corrected(frames["raw"], frames["flat"], frames.get("dark"))
    said = list(told.said)
    data = np.ascontiguousarray(told.data.transpose(1, 0, 2))
    if turns is None:
        turns = np.linspace(0, 180, data.shape[1])
        said.append("no angles in the file: from 0 to 180 degrees")
    turns = checked_angles(turns, data.shape, 1, path)
    if units.lower().startswith("rad"):
        turns = np.rad2deg(turns)
    std = np.ascontiguousarray(told.std.transpose(1, 0, 2))
    return Sinogram(
        path, DXCHANGE, data, turns, Beam(), std, None, tuple(said), told.warnings, described(entries), True
    )
