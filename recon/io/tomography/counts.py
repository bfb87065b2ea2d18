"""Detector counts to line integrals: dark and flat field, logarithm, and what each ray's noise is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import InputError

VIEWS_TOGETHER = 64  # views that are corrected together, in float64
FEW = 1e-3  # share of rays, from where those that were mended are worth a warning
LEAST_FRAMES = 3  # flat fields, to tell noise from drift


@dataclass(frozen=True, eq=False)
class Corrected:
    """``data`` and ``std`` (angles, rows, detectors) float32 of counts, and what was done about bad ones, a sentence each."""

    data: np.ndarray
    std: np.ndarray
    said: tuple[str, ...]
    warnings: tuple[str, ...]


def corrected(raw: np.ndarray, flat: np.ndarray, dark: np.ndarray | None) -> Corrected:
    """``y = -log((I - D) / (F - D))`` and its standard deviation, D and F the means of dark and flat fields.

    ``var y = v(I - D) / (I - D)^2 + v(F - D) / (n (F - D)^2)``, with ``v(I) = g I + d`` of n flat fields: the noise of counts
    in proportion to them, g per count (`gain`), and that of the electronics d, as dark fields show it. raw
    (angles, rows, detectors); flat and dark (n, rows, detectors), or without the first axis. Where I - D is not positive it
    is taken as one photon, g; where F - D is not, a detector is dead: its data are drawn from its neighbours, its std is
    infinite. Raises `InputError` for shapes that do not fit, negative counts, NaN, or no light at all.
    """
    flat = flat[None] if flat.ndim == raw.ndim - 1 else flat
    dark = np.zeros_like(flat[:1]) if dark is None else dark[None] if dark.ndim == raw.ndim - 1 else dark
    for name, counts in (("raw counts", raw), ("flat fields", flat), ("dark fields", dark)):
        refuse_counts(name, counts, raw.shape)
    offset = dark.mean(0, dtype=np.float64)
    light = flat.mean(0, dtype=np.float64) - offset
    alive = light > 0
    if not alive.any():
        raise InputError(
            "The flat fields are no brighter than the dark fields.",
            "Without light no transmission can be computed.",
            "Check which is which.",
        )
    each, electronics = gain(flat, offset), float(dark.var(0, ddof=1).mean()) if len(dark) > 1 else 0.0
    light = np.where(alive, light, 1.0)
    of_light = (each * light + electronics) / (len(flat) * light**2)
    data, std, dim = np.empty(raw.shape, np.float32), np.empty(raw.shape, np.float32), 0
    for start in range(0, len(raw), VIEWS_TOGETHER):
        counts = raw[start : start + VIEWS_TOGETHER] - offset
        dim += int(((counts < each) & alive).sum())
        counts = np.maximum(counts, each)
        data[start : start + VIEWS_TOGETHER] = -np.log(counts / light)
        std[start : start + VIEWS_TOGETHER] = np.sqrt((each * counts + electronics) / counts**2 + of_light)
    if not alive.all():
        data = mended(data, alive)
        std[:, ~alive] = np.inf
    said = [
        f"flat and dark fields corrected, {1 / each:.3g} photons a count: noise of each ray from its counts"
    ]
    warnings = []
    if dim:
        text = (
            f"{dim} counts ({100 * dim / raw.size:.2g} %) are not above the dark field: taken as one photon"
        )
        (warnings if dim > FEW * raw.size else said).append(text)
    if not alive.all():
        warnings.append(f"{int((~alive).sum())} detectors see no light in the flat field: they are left out")
    return Corrected(data, std, tuple(said), tuple(warnings))


def refuse_counts(name: str, counts: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise `InputError` for counts that are none, or of another detector."""
    if counts.shape[1:] != shape[1:]:
        raise InputError(
            f"The {name} are {counts.shape}, the raw counts {shape}.",
            "All are frames of one detector: (frames, rows, detectors).",
            "Give them the same rows and detectors.",
        )
    if not np.isfinite(counts).all():
        raise InputError(f"The {name} hold NaN or infinity.", "They are counts.", "Write the file again.")
    if (lowest := counts.min()) < 0:
        raise InputError(
            f"The {name} hold negative counts, down to {lowest:g}.",
            "A detector counts from 0; corrected data are no counts.",
            "Store raw counts, or the finished sinogram as `sinogram`.",
        )


def gain(flat: np.ndarray, offset: np.ndarray) -> float:
    """Variance of flat fields (n, rows, detectors) over their mean: g counts a photon, the median of all detectors.

    From differences of frames that follow each other, each scaled to the mean light, so that neither drift nor
    fluctuations of the beam count. 1, as of a detector that counts photons, where fewer than 3 frames tell.
    """
    if len(flat) < LEAST_FRAMES:
        return 1.0
    light = flat - offset
    light *= light.mean() / light.mean((1, 2), keepdims=True)
    variance = (np.diff(light, axis=0) ** 2).mean(0) / 2
    mean = light.mean(0)
    ratio = variance[mean > 0] / mean[mean > 0]
    frames = len(flat) - 1  # the median of a chi-square, over its mean, is about (1 - 2/9n)^3
    found = float(np.median(ratio)) / (1 - 2 / (9 * frames)) ** 3
    return found if found > 0 else 1.0


def mended(data: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """``data`` (angles, rows, detectors) where ``alive`` (rows, detectors), in between by linear interpolation along a row."""
    data, place = data.copy(), np.arange(data.shape[-1])
    for row, known in enumerate(alive):
        if known.any() and not known.all():
            for view in data[:, row]:
                view[~known] = np.interp(place[~known], place[known], view[known])
        elif not known.any():
            data[:, row] = 0
    return data


def without_stripes(data: np.ndarray, width: int = 9) -> np.ndarray:
    """Sinograms (slices, angles, detectors) less what each detector differs from its neighbours in all views alike.

    The mean over the views minus its running median of ``width`` detectors: what turns into rings of an image.
    """
    from scipy.ndimage import median_filter

    mean = data.mean(1, dtype=np.float64)
    return (data - (mean - median_filter(mean, (1, width)))[:, None]).astype(np.float32)
