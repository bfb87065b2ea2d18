"""Quality on real data: PSNR beside the tools in use."""

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

from operators.coils import rss
from operators.espirit import espirit
from operators.fourier import ifft2c
from operators.masks import make_mask
from operators.mri import MRI

from ..errors import ConfigError
from ..io import open_kspace, read_cfl, write_cfl
from ..metrics import object_psnr, psnr, scaled_psnr, scaled_ssim
from ..mri import cg_sense, reconstruct_slice
from ..registry.recipe import Recipe
from ..runtime.runtime import Runtime

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
