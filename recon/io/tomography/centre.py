"""The rotation axis of a parallel beam, found from the sinogram alone."""

from __future__ import annotations

import math

import numpy as np

from ...errors import InputError

SLACK = 3  # angular orders beside the wedge
FINE = 0.05  # detectors, of the search
WIDE = 0.2  # of the detector, on both sides of what the centres of mass say
MOST_LOOKED_AT = 5  # slices
MOST_RAYS = 1024  # views, and detectors of a view: of more every other is left out, and neighbours are added


def rotation_centre(data: np.ndarray, angles: np.ndarray) -> float:
    """The detector, from 0, on which the axis of parallel projections (slices, angles, detectors) falls.

    Views of half a turn and the same views seen from behind, ``p(a + 180, s) = p(a, 2 c - s)``, make a whole turn. Of one
    that is consistent, the Fourier transform vanishes where the angular order k exceeds ``|w|`` times the radius of the
    object; outside that wedge ``|P(k, w) + (-1)^k e^(-2 i c w) P(k, w)^*|^2`` is least at the axis c, searched around what
    the centres of mass of the projections say (`by_mass`). Of slices the median. angles in degrees.

    Source: the wedge is that of Edholm, Lewitt and Lindholm (1986), as a criterion of the axis Vo et al., Optics Express 22
    (2014). Raises `InputError` where the views cover less than half a turn: no view is then seen from behind.
    """
    angles = np.asarray(angles, np.float64)
    order = np.argsort(angles, kind="stable")
    angles, gap = angles[order], np.median(np.diff(np.sort(angles))) if len(angles) > 1 else 0.0
    covered = angles[-1] - angles[0] + gap
    if covered < 180 - 1e-3 - 0.5 * gap:
        raise InputError(
            f"The rotation axis cannot be found from views over {covered:.4g} degrees.",
            "It takes half a turn: each line must nearly be seen from both sides.",
            "Give it with --axis, or in the geometry; the middle of the detector is used until then.",
        )
    some = np.unique(np.linspace(0, len(data) - 1, min(len(data), MOST_LOOKED_AT)).astype(int))
    return float(
        np.median([centre_of_slice(data[index][order].astype(np.float64), angles) for index in some])
    )


def centre_of_slice(view: np.ndarray, angles: np.ndarray) -> float:
    """`rotation_centre` of one slice (angles, detectors), sorted by angle; the mean over the half turns in it."""
    every, wide = math.ceil(len(view) / MOST_RAYS), math.ceil(view.shape[1] / MOST_RAYS)
    if every > 1:
        view, angles = view[::every], angles[::every]
    if wide > 1:
        kept = view.shape[1] // wide * wide
        coarse = view[:, :kept].reshape(len(view), -1, wide).mean(2)
        return wide * centre_of_slice(coarse, angles) + (wide - 1) / 2
    starts = [angles[0]]
    if angles[-1] - angles[0] > 270:
        starts.append(angles[0] + 180)
    near = by_mass(view, angles)
    found = []
    for start in starts:
        within = (angles >= start) & (angles < start + 180 - 1e-6)
        found.append(by_wedge(view[within], angles[within] - start, near))
    return float(np.mean(found))


def by_mass(view: np.ndarray, angles: np.ndarray) -> float:
    """c of centres of mass ``c + a cos + b sin``, by robust least squares; what is between the ends of a view counts."""
    count = view.shape[1]
    edge = max(2, count // 50)
    first, last = view[:, :edge].mean(1), view[:, -edge:].mean(1)
    air = first[:, None] + (last - first)[:, None] * np.linspace(0, 1, count)
    mass = (view - air).sum(1)
    turn = np.deg2rad(angles)
    usable = mass > 0.1 * np.median(mass)
    if np.median(mass) <= 0 or usable.sum() < 3:
        return (count - 1) / 2
    place = ((view - air) @ np.arange(count))[usable] / mass[usable]
    columns = np.stack([np.ones_like(turn), np.cos(turn), np.sin(turn)], 1)[usable]
    weight = np.ones(len(place))
    centre = (count - 1) / 2
    for _ in range(10):
        fit = np.linalg.lstsq(columns * weight[:, None], place * weight, rcond=None)[0]
        off = place - columns @ fit
        weight = 1 / np.sqrt(1 + (off / (3 * np.median(np.abs(off)) + 1e-12)) ** 2)
        centre = float(fit[0])
    return centre if 0 <= centre <= count - 1 else (count - 1) / 2


def by_wedge(view: np.ndarray, angles: np.ndarray, near: float) -> float:
    """The axis of views (angles, detectors) over half a turn from 0, near ``near``: see `rotation_centre`."""
    views, count = view.shape
    turn = np.deg2rad(angles)
    ends = np.concatenate([turn, [turn[0] + math.pi]])
    arc = (np.diff(ends) + np.roll(np.diff(ends), 1)) / 2
    order = np.arange(1 - views, views)
    fast = 2 ** math.ceil(math.log2(2 * count))
    along = np.fft.rfft(view, fast, axis=1)
    turned = np.exp(-1j * np.outer(order, turn)) * arc
    front, back = turned @ along, ((-1.0) ** order)[:, None] * (turned @ along.conj())
    frequency = np.arange(fast // 2 + 1) * (2 * math.pi / fast)
    outside = np.abs(order)[:, None] > count / 2 * frequency + SLACK
    outside[:, 0] = False
    cross = (front.conj() * back * outside).sum(0)
    reach = WIDE * count
    places = np.arange(max(near - reach, 0.05 * count), min(near + reach, 0.95 * count), FINE)
    energy = (np.exp(-2j * np.outer(places, frequency)) @ cross).real
    return float(places[energy.argmin()])
