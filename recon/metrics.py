"""How close a reconstruction is to its reference, and whether its uncertainty is true.

A number without its convention means little: the data range alone moves PSNR by decibels. So each
`Score` carries its convention. Real images are compared with their signs, as scikit-image does; if
either image is complex, the magnitudes of both are compared. Everything in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .errors import InputError
from .intervals import NORMAL, QUANTILES, effective_number, enough, interval, reach, refuse_level

ImageArray = Tensor | np.ndarray
"""Images as the metrics take them: (H, W) or volumes (S, H, W), real or complex."""

FASTMRI = (
    "fastMRI: values as they are, of complex images magnitudes, "
    "data range = largest magnitude of the reference volume"
)
SCALED = (
    "scaled: per slice, reconstruction scaled by least squares where the reference's magnitude exceeds 5 % of its "
    "maximum, data range = that maximum, whole image"
)
SCALED_OBJECT = SCALED.replace("whole image", "there only")
CONVENTIONS = {f"scaled_{name}": SCALED for name in ("psnr", "ssim", "nmse")} | {
    f"fastmri_{name}": FASTMRI for name in ("psnr", "ssim", "nmse")
}
OBJECT = 0.05
WINDOW = 7


@dataclass(frozen=True)
class Score:
    """A value of a metric (PSNR in dB) with its convention; the reconstruction was multiplied by ``scale``."""

    name: str
    value: float
    convention: str
    scale: float = 1.0

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        unit = " dB" if self.name == "psnr" else ""
        return f"{self.name} {self.value:.4g}{unit} ({self.convention})"


@dataclass(frozen=True)
class Coverage:
    """Share of the object's pixels whose reference lies in the ``level`` interval of ``samples`` draws."""

    value: float
    level: float
    samples: int
    pixels: int
    method: str


def psnr(recon: ImageArray, reference: ImageArray, data_range: float | None = None) -> Score:
    """``10 log10(range^2 / mean (recon - reference)^2)`` in dB, of volumes (S, H, W) or slices (H, W).

    ``data_range`` is the reference's largest magnitude if none is given. Infinite for equal images.
    Raises `InputError` for different shapes, and for a reference that is zero or not finite.
    """
    recon, reference, top = prepared(recon, reference, data_range)
    return Score("psnr", peak_signal_to_noise(recon, reference, top), FASTMRI)


def ssim(recon: ImageArray, reference: ImageArray, data_range: float | None = None) -> Score:
    """Mean over slices of the structural similarity, 7 x 7 uniform window, K1 = .01, K2 = .03.

    ``data_range`` and errors as in `psnr`; NaN for images smaller than the window. Source: Wang et al.,
    IEEE TIP 13:600 (2004), in scikit-image's defaults.
    """
    recon, reference, top = prepared(recon, reference, data_range)
    return Score("ssim", similarity(recon, reference, top), FASTMRI)


def nmse(recon: ImageArray, reference: ImageArray) -> Score:
    """``||recon - reference||^2 / ||reference||^2`` of volumes (S, H, W) or slices (H, W); errors as in `psnr`."""
    recon, reference, _ = prepared(recon, reference, None)
    return Score("nmse", normalised(recon, reference), FASTMRI)


def scaled_psnr(recon: ImageArray, reference: ImageArray) -> Score:
    """PSNR of one slice (H, W) after `least_squares_scale`; the range is the reference's largest magnitude."""
    scale, recon, reference, top = scaled_pair(recon, reference)
    return Score("psnr", peak_signal_to_noise(recon, reference, top), SCALED, scale)


def object_psnr(recon: ImageArray, reference: ImageArray) -> Score:
    """`scaled_psnr` over `object_mask` alone: the noise floor around the object does not count."""
    scale, recon, reference, top = scaled_pair(recon, reference)
    inside = object_mask(reference)
    return Score("psnr", peak_signal_to_noise(recon[inside], reference[inside], top), SCALED_OBJECT, scale)


def scaled_ssim(recon: ImageArray, reference: ImageArray) -> Score:
    """SSIM of one slice (H, W), scaled as in `scaled_psnr`."""
    scale, recon, reference, top = scaled_pair(recon, reference)
    return Score("ssim", similarity(recon, reference, top), SCALED, scale)


def scaled_nmse(recon: ImageArray, reference: ImageArray) -> Score:
    """NMSE of one slice (H, W), scaled as in `scaled_psnr`."""
    scale, recon, reference, _ = scaled_pair(recon, reference)
    return Score("nmse", normalised(recon, reference), SCALED, scale)


def scores(recon: ImageArray, reference: ImageArray, volume_max: float | None = None) -> dict[str, Score]:
    """All six metrics of one slice (H, W), by their names in `CONVENTIONS`.

    ``volume_max`` is the data range of the fastMRI convention: the maximum of the reference volume, of which
    this slice may not be the brightest; the slice's own maximum if it is not given. Errors as in `psnr`.
    """
    return {
        "scaled_psnr": scaled_psnr(recon, reference),
        "scaled_ssim": scaled_ssim(recon, reference),
        "scaled_nmse": scaled_nmse(recon, reference),
        "fastmri_psnr": psnr(recon, reference, volume_max),
        "fastmri_ssim": ssim(recon, reference, volume_max),
        "fastmri_nmse": nmse(recon, reference),
    }


def object_mask(reference: ImageArray, threshold: float = OBJECT) -> np.ndarray:
    """Where the magnitude of the reference exceeds ``threshold`` of its maximum: bool, same shape."""
    reference = magnitudes(reference)
    return reference > threshold * reference.max()


def least_squares_scale(recon: ImageArray, reference: ImageArray) -> float:
    """``argmin_{s >= 0} || s recon - reference ||`` over `object_mask`; 0 for a reconstruction of zeros.

    Never negative: units may differ, but a reconstruction of the opposite sign is a wrong one.
    """
    inside = object_mask(reference)
    recon, reference = (image[inside] for image in comparable(recon, reference))
    power = float(recon @ recon)
    return max(float(recon @ reference) / power, 0.0) if power > 0 else 0.0


def coverage(
    reference: ImageArray,
    samples: ImageArray | None = None,
    *,
    mean: ImageArray | None = None,
    std: ImageArray | None = None,
    k: int | None = None,
    mask: ImageArray | None = None,
    level: float = 0.90,
    weights: ImageArray | None = None,
) -> Coverage:
    """How often the interval of ``level`` from k samples holds the reference (..., H, W) of a new draw.

    `recon.intervals.interval` of real values or of complex ones' magnitudes: quantiles where k is enough for the level,
    else ``mean ± t((1 + level)/2, k - 1) std sqrt(1 + 1/k)``, std with k - 1. Give ``samples`` (k, ..., H, W), of an
    ensemble with their ``weights`` (k,), or ``mean`` and ``std`` of the values that are compared, and ``k``. ``mask`` is bool, by default `object_mask` of the reference.

    Raises `InputError` for fewer than two samples, `ConfigError` for a level outside (0, 1).
    """
    if samples is None and (mean is None or std is None or k is None):
        raise InputError(
            "Coverage was asked for without samples.",
            "An interval needs the samples, or their mean, std and number.",
            "Give samples=, or mean=, std= and k=.",
        )
    count = len(samples) if samples is not None else int(k or 0)
    if count < 2:
        raise InputError(
            f"Coverage cannot be computed from {count} sample.",
            "One sample has no spread.",
            "Draw at least 2, better 8 or more.",
        )
    refuse_level(level)
    inside = object_mask(reference) if mask is None else numpy(mask).astype(bool)
    if samples is not None:
        truth, samples = comparable(reference, samples)
        low, high, method = bounds(samples, level, weights)
    else:
        truth, centre = comparable(reference, mean)  # type: ignore[arg-type]
        half = reach(level, count) * magnitudes(std)  # type: ignore[arg-type]
        low, high, method = centre - half, centre + half, NORMAL
    held = ((low <= truth) & (truth <= high))[inside]
    return Coverage(float(held.mean()), level, count, int(held.size), method)


def bounds(
    samples: ImageArray, level: float, weights: ImageArray | None = None
) -> tuple[np.ndarray, np.ndarray, str]:
    """Both ends (..., H, W) of the interval of two or more samples (k, ..., H, W), and how they were found.

    Of the values of real samples, of the magnitudes of complex ones.
    """
    w = None if weights is None else torch.from_numpy(np.array(numpy(weights), dtype=np.float64))
    low, high = interval(torch.from_numpy(comparable(samples)[0]), level, w)  # type: ignore[misc]
    few = not enough(effective_number(len(samples), w), level)
    return low.numpy(), high.numpy(), NORMAL if few else QUANTILES


def prepared(
    recon: ImageArray, reference: ImageArray, data_range: float | None
) -> tuple[np.ndarray, np.ndarray, float]:
    """Both images as `comparable` volumes (S, H, W), and the data range."""
    recon, reference = comparable(recon, reference)
    if recon.shape != reference.shape:
        raise InputError(
            f"A reconstruction {recon.shape} cannot be compared with a reference {reference.shape}.",
            "Metrics compare pixel by pixel.",
            "Crop both to one size.",
        )
    top = float(np.abs(reference).max(initial=0.0)) if data_range is None else data_range
    if not 0 < top < np.inf:
        raise InputError(
            "The reference is zero everywhere, or not finite.",
            "A metric is relative to the reference, so there is nothing to compare with.",
            "Leave the reference out.",
        )
    volume = (-1, *reference.shape[-2:])
    return recon.reshape(volume), reference.reshape(volume), top


def scaled_pair(recon: ImageArray, reference: ImageArray) -> tuple[float, np.ndarray, np.ndarray, float]:
    """The `least_squares_scale`, the scaled reconstruction and the reference (S, H, W), and the data range."""
    image, reference, top = prepared(recon, reference, None)
    scale = least_squares_scale(image, reference)
    return scale, scale * image, reference, top


def peak_signal_to_noise(recon: np.ndarray, reference: np.ndarray, top: float) -> float:
    """PSNR in dB for the data range ``top``."""
    error = float(np.mean((recon - reference) ** 2))
    return float(10 * np.log10(top**2 / error)) if error > 0 else float("inf")


def similarity(recon: np.ndarray, reference: np.ndarray, top: float) -> float:
    """Mean structural similarity of volumes (S, H, W) for the data range ``top``."""
    from skimage.metrics import structural_similarity

    if min(reference.shape[-2:]) < WINDOW:
        return float("nan")
    pairs = zip(recon, reference, strict=True)
    return float(np.mean([structural_similarity(r, x, win_size=WINDOW, data_range=top) for x, r in pairs]))


def normalised(recon: np.ndarray, reference: np.ndarray) -> float:
    """NMSE of arrays of one shape."""
    return float(np.sum((recon - reference) ** 2) / np.sum(reference**2))


def comparable(*images: ImageArray) -> list[np.ndarray]:
    """Images as float64 arrays of what metrics compare: values if all are real, magnitudes if any is complex."""
    arrays = [numpy(image) for image in images]
    signed = not any(np.iscomplexobj(array) for array in arrays)
    return [array.astype(np.float64) if signed else magnitudes(array) for array in arrays]


def magnitudes(image: ImageArray) -> np.ndarray:
    """``|image|`` as a float64 array."""
    return np.abs(numpy(image)).astype(np.float64)


def numpy(image: ImageArray) -> np.ndarray:
    """A tensor or an array as an array, on the processor."""
    return image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
