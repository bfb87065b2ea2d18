"""Quality on real data, one command each: PSNR beside the tools in use, and whether the std map is true."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from operators.coils import rss, simulate_coils
from operators.espirit import espirit
from operators.fourier import fft2c, ifft2c
from operators.masks import make_mask
from operators.mri import MRI

from .augment import smooth_field
from .errors import ConfigError
from .io import open_kspace, read_cfl, write_cfl
from .metrics import coverage, object_mask, object_psnr, psnr, scaled_psnr, scaled_ssim
from .mri import Recipe, cg_sense, reconstruct_slice
from .noise import Noise
from .runtime import Runtime

CASES = (
    ("4x equispaced", "equispaced-fraction", 4, 0.08),
    ("4x random", "random", 4, 0.08),
    ("8x equispaced", "equispaced-fraction", 8, 0.04),
)
BART_LAMBDAS = (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03)
Say = Callable[[str], object]


def compare(path: Path, recipe: Recipe, prior, runtime: Runtime, say: Say = print) -> None:
    """PSNR and SSIM of every method on the first slice of a fully sampled file, for each of `CASES`.

    Reference: root sum of squares of the fully sampled data. Convention of the first PSNR and of SSIM:
    `metrics.SCALED`; fastMRI's PSNR beside it. BART's lambda is the best of `BART_LAMBDAS` for the
    reference, which no user has.
    """
    kspace = open_kspace(path).read_slice(0).kspace
    reference = rss(ifft2c(kspace))
    say("| case | lines | method | network calls | PSNR | in the object | SSIM | PSNR, fastMRI | s |")
    say("|---|---|---|---|---|---|---|---|---|")
    for case, name, accel, center in CASES:
        mask = make_mask(name, (kspace.shape[-2], kspace.shape[-1]), accel, center, path.name)
        for method, calls, image, seconds in methods(kspace, mask, reference, recipe, prior, runtime):
            row = (case, int(mask[0].sum()), method, calls)
            measured = [metric(image, reference) for metric in (scaled_psnr, object_psnr, scaled_ssim, psnr)]
            numbers = "{:.2f} | {:.2f} | {:.3f} | {:.2f}".format(*map(float, measured))
            text = " | ".join([*map(str, row), numbers])
            say(f"| {text} | {seconds:.0f} |")


def methods(kspace, mask, reference, recipe: Recipe, prior, runtime: Runtime) -> Iterator[tuple]:
    """(name, network calls, magnitude image, seconds) of every method that is compared."""
    y = kspace * mask
    yield "zero-filled", 0, rss(ifft2c(y)), 0.0
    started = time.monotonic()
    maps, _ = espirit(y, mask)
    image = rss(cg_sense(MRI(mask, maps), y[None], weight=1e-2))[0]
    yield "CG-SENSE", 0, image, time.monotonic() - started
    if shutil.which("bart"):
        started = time.monotonic()
        images = {weight: bart_wavelets(y, weight) for weight in BART_LAMBDAS}
        best = max(images, key=lambda weight: float(scaled_psnr(images[weight], reference)))
        name = f"BART L1-wavelets, lambda {best}"
        yield name, 0, images[best], (time.monotonic() - started) / len(BART_LAMBDAS)
    for steps, samples in ((recipe.steps, 1), (recipe.steps, recipe.samples), (50, 4)):
        result = reconstruct_slice(
            kspace, mask, replace(recipe, steps=steps, samples=samples), prior, runtime
        )
        name = "recon, one sample" if samples == 1 else f"recon, mean of {samples}"
        yield name, f"{samples} x {result.network_calls}", result.mean.abs(), result.seconds


def bart_wavelets(y: Tensor, weight: float) -> Tensor:
    """``bart ecalib`` and ``bart pics -R W``: (coils, H, W) -> magnitude (H, W)."""
    with tempfile.TemporaryDirectory() as folder:
        k, maps, image = (os.path.join(folder, name) for name in ("k", "maps", "image"))
        write_cfl(k, y.permute(1, 2, 0)[:, :, None].numpy())
        for command in (
            ["bart", "ecalib", "-m1", k, maps],
            ["bart", "pics", "-S", "-e", "-i100", "-R", f"W:7:0:{weight}", k, maps, image],
        ):
            subprocess.run(command, check=True, capture_output=True)
        return torch.from_numpy(np.abs(read_cfl(image)).reshape(y.shape[-2:]))


def calibrate(
    path: Path, recipe: Recipe, prior, runtime: Runtime, slices: int = 2, say: Say = print
) -> list[float]:
    """Coverage of the 90 % interval on magnitude slices (.npz, ``images``): simulated coils, phase, noise.

    8 coils, smooth random phase, noise of .01 a real component; maps estimated from the undersampled
    data as always. Reference: noise-free root sum of squares; interval and mask: `metrics.coverage`.
    """
    with np.load(path, allow_pickle=False) as archive:
        images = torch.from_numpy(archive["images"].astype(np.float32))
    chosen = torch.linspace(0, len(images) - 1, slices).round().long()
    say("| slice | case | PSNR of the mean | coverage of 90 % | k |")
    say("|---|---|---|---|---|")
    covered = []
    for case, name, accel, center in CASES:
        shares = []
        for index in chosen.tolist():
            coils = coil_images(images[index], index)
            mask = make_mask(name, (coils.shape[-2], coils.shape[-1]), accel, center, f"slice {index}")
            noise = 0.01 * Noise(1, (index,))(coils[None], 0)[0]
            result = reconstruct_slice(fft2c(coils) + noise, mask, recipe, prior, runtime, slice_index=index)
            reference = rss(coils)
            share = coverage(reference, result.samples, mask=object_mask(reference)).value
            shares.append(share)
            say(f"| {index} | {case} | {float(scaled_psnr(result.mean, reference)):.2f} | {share:.3f} | {recipe.samples} |")  # fmt: skip
        covered.append(sum(shares) / len(shares))
        say(f"| all {len(shares)} | {case} | | {covered[-1]:.3f} | {recipe.samples} |")
    return covered


def coil_images(magnitude: Tensor, seed: int) -> Tensor:
    """(H, W) magnitudes -> (8, H, W) coil images of a complex image whose 99.5 percentile is 1."""
    magnitude = magnitude / torch.quantile(magnitude.flatten(), 0.995)
    generator = torch.Generator().manual_seed(seed)
    phase = smooth_field(1, max(magnitude.shape), generator)[0, 0, : magnitude.shape[0], : magnitude.shape[1]]
    return simulate_coils(8, (magnitude.shape[0], magnitude.shape[1])) * torch.polar(magnitude, phase)


def found(data: Path, *names: str) -> Path:
    """The first of these files below ``data``; raises `ConfigError`."""
    for name in names:
        if (data / name).is_file():
            return data / name
    raise ConfigError(
        f"{data} holds none of {', '.join(names)}.",
        "The measurement needs that file.",
        "Name the folder with --data, or set RECON_SHARED_DATA.",
    )
