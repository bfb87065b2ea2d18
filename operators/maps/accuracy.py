"""How well sensitivity maps are known, and the noise that their error amounts to in each sample of k-space."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import conv2d

UNEXPLAINED = 0.25  # of the share that the maps leave unexplained: the mean square of their relative error
NEARBY = 5  # samples along each axis: the power of k-space is their mean


def map_error(values: Tensor, image: Tensor) -> float:
    """Relative error of maps, ``e^2 = sum_r |x|^2 (1 - lambda) / (4 sum_r |x|^2)``.

    values (sets, H, W) are the eigenvalues of `espirit`: a map explains the share lambda of the energy of its pixel in
    the calibration area. image (sets, H, W). Of simulated scans (2 to 32 coils, 4 to 32 central lines, noise .002 to
    .04) the true error, as a share of the object's energy, is .3 to 1.2 times that.
    """
    energy = image.abs().square()
    lost = (energy * (1 - values).clamp_min(0)).sum() / energy.sum()
    return float((UNEXPLAINED * lost).sqrt())


def error_noise(y: Tensor, mask: Tensor, error: float) -> Tensor:
    """``s_k = e |y_k| / sqrt(2)``, std per real component (H, W) of the noise that maps of relative ``error`` e amount to.

    ``A x`` with maps S instead of S + dS misses ``F dS x``: about e times what is measured nearby, mostly at low
    frequencies. ``|y_k|^2`` is the mean over the coils of y (coils, H, W) and over the column, where the mask (H, W) has
    whole columns, else over the samples in a window around k.
    """
    power = y.abs().square().mean(0)
    mask = mask.to(power)
    if (mask == mask[:1]).all():
        power = power.mean(0).expand(power.shape)
    else:
        window = power.new_ones(1, 1, NEARBY, NEARBY)
        total, count = (conv2d(v[None, None], window, padding="same")[0, 0] for v in (power * mask, mask))
        power = mask * total / count.clamp_min(1)
    return error * (power / 2).sqrt()
