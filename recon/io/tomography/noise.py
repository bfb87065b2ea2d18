"""How noisy a sinogram is, found from how neighbouring rays differ."""

from __future__ import annotations

import numpy as np

BINS = 12  # of equally many rays, by their line integral
FEWEST_RAYS = 200  # rays of a bin
GAUSSIAN = 1.4826  # median of absolute values to standard deviation


def estimated_std(data: np.ndarray) -> tuple[np.ndarray, str]:
    """The standard deviation of each ray of sinograms (slices, angles, detectors), and the estimate in a sentence.

    ``var y = a + b e^y``: e^y as of counts, which are fewest where most is absorbed, a what the electronics and the
    correction leave; a, b >= 0 by least squares over rays of like y. The variance of a bin is that of second
    differences along detectors and views, or along detectors alone where views differ more: the smaller, since
    the image adds to both. Noise that is correlated between neighbours is underestimated.
    """
    from scipy.optimize import nnls

    middle, residual = neighbour_differences(data)
    order = np.argsort(middle)
    bins = max(1, min(BINS, len(order) // FEWEST_RAYS))
    centre, variance = [], []
    for part in np.array_split(order, bins):
        centre.append(float(np.median(middle[part])))
        variance.append(float((GAUSSIAN * np.median(np.abs(residual[:, part]), 1)).min() ** 2))
    growth = np.exp(np.minimum(centre, 20.0))
    relative = 1 / np.maximum(variance, 1e-12 * max(variance) + 1e-30)
    columns = np.stack([np.ones(bins), growth], 1) * relative[:, None]
    (constant, slope), _ = (
        nnls(columns, np.asarray(variance) * relative) if bins > 1 else ((variance[0], 0.0), 0)
    )
    std = np.sqrt(constant + slope * np.exp(np.clip(data, -1.0, 20.0)))
    text = (
        f"noise {float(np.sqrt(constant + slope)):.3g} in air, {float(np.median(std)):.3g} in the median ray"
    )
    return std.astype(np.float32), text + ": estimated from how neighbouring rays differ"


def neighbour_differences(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Local means (n,), and two residuals (2, n) of unit gain for white noise, of the rays inside the sinograms."""
    row = data[..., :-2] - 2 * data[..., 1:-1] + data[..., 2:]
    across = (
        data[..., :-4] - 4 * data[..., 1:-3] + 6 * data[..., 2:-2] - 4 * data[..., 3:-1] + data[..., 4:]
    ) / np.sqrt(70)
    both = (row[:, :-2] - 2 * row[:, 1:-1] + row[:, 2:]) / 6 if data.shape[1] > 2 else None
    if both is None:
        alone = across.reshape(-1)
        return data[..., 2:-2].reshape(-1), np.stack([alone, alone])
    local = (data[:, 1:-1, 1:-3] + data[:, 1:-1, 2:-2] + data[:, 1:-1, 3:-1]) / 3
    return local.reshape(-1), np.stack([both[..., 1:-1].reshape(-1), across[:, 1:-1].reshape(-1)])
