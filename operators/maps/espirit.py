"""ESPIRiT: coil sensitivity maps from the fully sampled centre of k-space."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..coils import noise_level, rss
from ..errors import OperatorError
from ..fourier import ifft2c
from ..masks import calibration_region
from .support import solid

BRIGHT = 0.25  # of the maximum at low resolution: certainly object
SMALLEST = 3  # kernel
LIT, FAINT = 0.06, 0.03  # of the maximum at low resolution: object, and object where a map explains it
BLUR = 0.15  # of a pixel at low resolution: the margin of the support
TIE = 1e-3  # of the largest possible eigenvalue, 1: what chooses among vectors of equal eigenvalues
WEAKEST = 0.005  # of the largest singular value: below, coils vary too little with place to tell apart
BAND = 1e-3  # of the threshold, in power: over so much on either side a kernel goes from noise to signal
NOISE_BAND = 0.1  # the same of the edge of the noise
CHUNK_BYTES = 2**26  # pixel matrices held at a time


def espirit(
    kspace: Tensor,
    mask: Tensor | None = None,
    calibration: int | tuple[int, int] | None = 24,
    kernel: int | None = None,
    threshold: float | None = None,
    noise: float | None = None,
    crop: float | None = 0.8,
    sets: int = 1,
    soft: bool = False,
    phase: str = "coils",
) -> tuple[Tensor, Tensor]:
    """Maps (sets, coils, H, W) complex and eigenvalues (sets, H, W) of k-space (coils, H, W); batch axes in front stay.

    Every patch of noise-free k-space lies in the row space of the calibration matrix. A pixel's
    coil vector ``S`` therefore solves ``G(r) S = S`` with
    ``G(r) = sum_k u_k u_k^H / kernel^2``, ``u_k(r) = sum_d v_k(d) e^{2 pi i d r / N}`` over the
    kernels ``v_k`` whose singular value exceeds ``threshold`` times the largest (near it, in part). The maps are the
    eigenvectors of the ``sets`` largest eigenvalues, of unit length over the coils. Their phase is free
    at each pixel: ``phase="coils"`` makes the strongest combination of coils real and positive, which
    winds around each point where that combination is blind; ``phase="image"`` makes the
    image of low resolution real and positive, so that images are nearly real and vary smoothly.

    ``kernel`` None is `kernel_size`. ``threshold`` None counts as signal what exceeds half a percent of the largest
    singular value and all that noise alone would give, see `noise_edge`; ``noise``: its standard deviation per real
    component, in the units of k-space, None to estimate it.

    ``calibration`` bounds the calibration area in samples (rows and columns; None: all there is);
    it is cut from the largest fully sampled rectangle around the zero frequency, of ``mask`` (H, W)
    where given, else of the samples that are not zero. ``crop`` zeroes a map where its eigenvalue
    is smaller; None chooses it, see `automatic_crop`, and fills the outline of what is seen, see `solid`, for the first
    set; the second keeps what its eigenvalues explain there. ``soft`` replaces that step by a smooth one from
    ``2 crop - 1`` to 1, which multiplies the map (soft-SENSE weighting; the length over the coils is
    then the weight).

    Raises `OperatorError` for k-space that is not complex or is zero, more sets than coils, and a
    calibration area smaller than the kernel.
    Source: Uecker et al., MRM 71:990 (2014), equations 6-12.
    """
    if kspace.ndim < 3 or not kspace.is_complex():
        raise OperatorError(
            f"ESPIRiT was given k-space of shape {tuple(kspace.shape)} and type {kspace.dtype}.",
            "It takes complex k-space (coils, H, W), or batches of it.",
        )
    *batch, coils, height, width = kspace.shape
    if not 1 <= sets <= coils:
        raise OperatorError(f"{sets} map sets were asked for and there are {coils} coils.", do="Use 1 or 2.")
    if phase not in ("coils", "image"):
        raise OperatorError(f"There is no phase {phase!r} for maps.", do='Use "coils" or "image".')
    samples = kspace.reshape(-1, coils, height, width)
    rows, columns = calibration_area(samples, mask, calibration)
    data = samples[..., rows, columns]
    if kernel is None:
        kernel = kernel_size(min(data.shape[-2:]), coils)
    if min(data.shape[-2:]) < kernel:
        raise OperatorError(
            f"The fully sampled centre is {data.shape[-2]} x {data.shape[-1]}, smaller than the kernel "
            f"of {kernel} x {kernel}.",
            "ESPIRiT reads the maps off patches of the centre.",
            "Measure more central lines (at least 12), or give maps.",
        )
    peak = data.abs().amax((1, 2, 3), keepdim=True)
    if not (torch.isfinite(peak).all() and (peak > 0).all()):
        raise OperatorError("The centre of k-space is zero, or not finite.", "No maps can be read off it.")
    data = data / peak
    window = hann(rows, height, data)[:, None] * hann(columns, width, data)
    image = ifft2c(samples / peak * window)
    brightness = rss(image)
    relative = torch.zeros_like(peak.flatten())
    if threshold is None or (crop is None and not soft):
        level = [noise_level(one, mask) if noise is None else torch.as_tensor(noise) for one in samples]
        relative = torch.stack(level).to(peak) / peak.flatten()
    edge = noise_edge(data, kernel, relative if threshold is None else 0 * relative)
    threshold = WEAKEST if threshold is None else threshold
    correlation = kernel_correlation(projector(data, kernel, threshold, edge), coils, kernel)
    flat = data.flatten(2)
    combinations = torch.linalg.eigh(flat @ flat.mH)[1]  # of the coils, the strongest last
    values, maps = eigenmaps(correlation.to(kspace.dtype), *preference(image, brightness, combinations), sets)
    if phase == "image":
        reference = image
    else:
        strongest = combinations[..., -1, None, None]
        centre = data[..., height // 2 - rows.start, width // 2 - columns.start, None, None]
        along = (strongest.conj() * centre).sum(1, keepdim=True)  # an eigenvector's own phase is free
        reference = strongest * torch.where(along == 0, 1, along.sgn())
    maps = maps * turn(maps, reference)
    if crop is None:
        limit = torch.stack([automatic_crop(v[0], b) for v, b in zip(values, brightness, strict=True)])
        limit = limit.view(-1, 1, 1, 1)
    else:
        limit = torch.full((len(values), 1, 1, 1), crop, dtype=values.dtype, device=values.device)
    weight = smoothstep((values - (2 * limit - 1)) / (2 - 2 * limit)) if soft else (values >= limit)
    if crop is None and not soft:
        shade = relative * window.square().mean().sqrt() * math.sqrt(2 * coils)  # noise alone is so bright
        blur = (BLUR * height / (rows.stop - rows.start), BLUR * width / (columns.stop - columns.start))
        for each, light, dark in zip(weight, brightness, shade, strict=True):
            support = solid(object_seen(each[0], light, float(dark)), blur)
            each &= support
            each[0] = support
    maps = maps * weight[:, :, None]
    return maps.reshape(*batch, *maps.shape[1:]), values.reshape(*batch, *values.shape[1:])


def calibration_area(
    samples: Tensor, mask: Tensor | None, calibration: int | tuple[int, int] | None
) -> tuple[slice, slice]:
    """Rows and columns of (B, coils, H, W) to calibrate on."""
    if mask is None:
        mask = (samples != 0).flatten(0, 1).any(0)
    rows, columns = calibration_region(mask.expand(samples.shape[-2:]))
    if calibration is None:
        return rows, columns
    most = (calibration, calibration) if isinstance(calibration, int) else calibration
    return within(rows, most[0], samples.shape[-2]), within(columns, most[1], samples.shape[-1])


def within(region: slice, most: int, size: int) -> slice:
    """At most ``most`` indices of ``region``, around the centre of an axis of ``size``."""
    length = min(most, region.stop - region.start)
    start = min(max(size // 2 - length // 2, region.start), region.stop - length)
    return slice(start, start + length)


def kernel_size(lines: int, coils: int) -> int:
    """The kernel for a calibration area of so many samples along its shorter side: 3, 4 from 6, 5 from 14, 6 from 22.

    A larger kernel describes maps that vary more, and fewer of its patches fit. Two coils say so little of a pixel that
    their kernel is larger by one.
    """
    return min(min(SMALLEST + (lines + 2) // 8, 6) + (coils <= 2), max(lines, SMALLEST))


def noise_edge(data: Tensor, kernel: int, noise: Tensor) -> Tensor:
    """What no singular value of patches of noise alone exceeds (B,); noise (B,) per real component.

    ``sqrt(2) noise (sqrt(m) + sqrt(n))`` of an m x n matrix (Marchenko and Pastur 1967); that patches share samples
    raises it little.
    """
    _, coils, height, width = data.shape
    rows, patches = coils * kernel**2, (height - kernel + 1) * (width - kernel + 1)
    return math.sqrt(2) * (math.sqrt(rows) + math.sqrt(patches)) * noise


def projector(data: Tensor, kernel: int, threshold: float, edge: Tensor) -> Tensor:
    """``V V^H`` onto the signal part of the patches of (B, coils, h, w): (B, n, n), n = coils kernel^2, in double precision.

    Signal are singular values above ``threshold`` times the largest, and above ``edge`` (B,).
    """
    patches = data.to(torch.complex128).unfold(-2, kernel, 1).unfold(-2, kernel, 1)
    patches = patches.permute(0, 1, 4, 5, 2, 3).flatten(1, 3).flatten(2)
    power, vectors = torch.linalg.eigh(patches @ patches.mH)
    # A step at the threshold would leave the choice to rounding; noise itself is known less well.
    signal = above(power, threshold**2 * power[:, -1:], BAND)
    signal = signal * above(power, edge.to(power)[:, None].square(), NOISE_BAND)
    return (vectors * signal[:, None]) @ vectors.mH


def above(power: Tensor, limit: Tensor, band: float) -> Tensor:
    """From 0 to 1 over ``band`` times the ``limit`` on either side of it; 1 where there is no limit."""
    return smoothstep(torch.where(limit > 0, (power / limit - 1) / (2 * band) + 0.5, 1))


def kernel_correlation(projection: Tensor, coils: int, kernel: int) -> Tensor:
    """``K_cc'(delta) = sum_{d - d' = delta} P(c d, c' d') / kernel^2``: (B, coils, coils, 2 kernel - 1, 2 kernel - 1)."""
    blocks = projection.view(-1, coils, kernel, kernel, coils, kernel, kernel)
    total = projection.new_zeros(len(projection), coils, coils, 2 * kernel - 1, 2 * kernel - 1)
    for i in range(kernel):
        for j in range(kernel):
            shifted = blocks[..., i, j].permute(0, 1, 4, 2, 3)
            total[..., kernel - 1 - i : 2 * kernel - 1 - i, kernel - 1 - j : 2 * kernel - 1 - j] += shifted
    return total / kernel**2


def preference(image: Tensor, brightness: Tensor, combinations: Tensor) -> tuple[Tensor, Tensor]:
    """``u`` (B, H, W, coils) and ``R`` (B, coils, coils) of ``T(r) = u u^H + R``, Hermitian with distinct eigenvalues.

    ``u`` is the image of low resolution (B, coils, H, W), of unit length over the coils where it is not
    black; ``R = sum_i i / (2 coils) w_i w_i^H`` ranks combinations of the coils, columns of (B, coils,
    coils), the strongest last.
    """
    darkest = 1e-3 * brightness.amax((-2, -1), keepdim=True)
    u = image / (brightness.square() + darkest.square()).sqrt()[:, None]
    coils = combinations.shape[-1]
    ranks = torch.arange(coils, device=image.device) / (2 * coils)
    return u.permute(0, 2, 3, 1), (combinations * ranks) @ combinations.mH


def eigenmaps(correlation: Tensor, u: Tensor, ranked: Tensor, sets: int) -> tuple[Tensor, Tensor]:
    """Largest eigenpairs of ``G(r) = sum_delta K(delta) e^{2 pi i delta r / N}``: (B, sets, H, W), (B, sets, coils, H, W).

    The sum over the few delta is written out along each axis, exact at every pixel and for every size.
    Where noise fills the calibration matrix, several or all eigenvalues are 1, and rounding would choose
    among their vectors. So those of ``G + TIE (u u^H + ranked)`` are taken, see `preference`; the values
    are the Rayleigh quotients of G alone.
    """
    count, coils, _, taps, _ = correlation.shape
    vertical, horizontal = (waves(n, taps // 2, correlation) for n in u.shape[1:3])
    partly = correlation @ horizontal.mT
    values, maps = [], []
    rows = max(1, CHUNK_BYTES // (count * len(horizontal) * coils**2 * correlation.element_size()))
    for some, near in zip(vertical.split(rows), u.split(rows, 1), strict=True):
        matrices = torch.einsum("yd,bijdx->byxij", some, partly)
        tie = TIE * (near[..., :, None] * near[..., None, :].conj() + ranked[:, None, None])
        vector = torch.linalg.eigh(tie.add_(matrices))[1][..., -sets:].flip(-1)
        value = (vector.conj() * (matrices @ vector)).sum(-2).real
        values.append(value.permute(0, 3, 1, 2))
        maps.append(vector.permute(0, 4, 3, 1, 2))
    return torch.cat(values, 2), torch.cat(maps, 3)


def waves(size: int, reach: int, like: Tensor) -> Tensor:
    """``e^{2 pi i delta r / size}``: (size, 2 reach + 1), r counted from the centre pixel."""
    r = torch.arange(size, dtype=torch.float64, device=like.device) - size // 2
    delta = torch.arange(-reach, reach + 1, dtype=torch.float64, device=like.device)
    angle = 2 * math.pi / size * r[:, None] * delta
    return torch.polar(torch.ones_like(angle), angle).to(like.dtype)


def turn(maps: Tensor, reference: Tensor) -> Tensor:
    """The factor of modulus 1 that makes ``<map, reference>`` over the coils real and positive: (B, sets, 1, H, W)."""
    along = (maps.conj() * reference[:, None]).sum(2, keepdim=True)
    return torch.where(along == 0, 1, along.sgn())


def hann(region: slice, size: int, like: Tensor) -> Tensor:
    """``cos^2`` over an axis of ``size``, one at zero frequency and zero outside ``region``."""
    place = torch.arange(size, device=like.device) - size // 2
    reach = max(region.stop - size // 2, size // 2 - region.start)
    inside = (place >= region.start - size // 2) & (place < region.stop - size // 2)
    return torch.cos(place / reach * (math.pi / 2)).square().to(like.real.dtype) * inside


def object_seen(explained: Tensor, brightness: Tensor, noise: float) -> Tensor:
    """Where the image of low resolution (H, W) shows an object, bool: it is lit, or a map explains what is faint.

    ``explained`` (H, W) bool; ``noise`` is the brightness of noise alone.
    """
    lit, faint = (share * float(brightness.max()) for share in (LIT, FAINT))
    return (brightness > max(lit, 5 * noise)) | (explained & (brightness > max(faint, 3 * noise)))


def automatic_crop(values: Tensor, brightness: Tensor) -> Tensor:
    """``1 - 6 (1 - q)``, q the median eigenvalue (H, W) of the bright pixels; within .6 to .98.

    Bright is above a quarter of the maximum of the low-resolution image, (H, W). The better the
    calibration area determines the maps, the closer to 1 the object's eigenvalues lie, and the
    tighter the support may be drawn around it.
    """
    inside = values[brightness > BRIGHT * brightness.max()]
    return (1 - 6 * (1 - inside.median())).clamp(0.6, 0.98)


def smoothstep(t: Tensor) -> Tensor:
    """``3 t^2 - 2 t^3`` for t in 0..1, constant outside."""
    t = t.clamp(0, 1)
    return t * t * (3 - 2 * t)
