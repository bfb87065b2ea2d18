"""``recon bench mri``: image quality on a real scan beside the tools in use."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from operators.coils import rss
from operators.espirit import espirit
from operators.fourier import ifft2c
from operators.mri import MRI

from ...io import open_kspace
from ...jobs.shared.settings import prepared_prior, settle
from ...metrics import object_psnr, psnr, scaled_psnr, scaled_ssim
from ...mri import cg_sense, reconstruct_slice
from ...priors import Prior
from ...registry.configuration import read_config
from ...registry.recipe import Recipe
from ...runtime.runtime import Runtime
from ..methods.bart import BART_LAMBDAS, bart_maps, bart_wavelets
from .real import CASES, Say, find_scan


def run_comparison(config: str | None = None, data: str | Path | None = None, say: Say = print) -> None:
    """`compare_on_scan` with the settings of ``config`` (a preset or a YAML file), on the scan below ``data``."""
    settings = settle(read_config(config) if config else {}, {})
    path = find_scan(data)
    compare_on_scan(path, settings.recipe, prepared_prior(settings), settings.runtime, say)


def compare_on_scan(path: Path, recipe: Recipe, prior: Prior, runtime: Runtime, say: Say = print) -> None:
    """PSNR and SSIM of every method on the first slice of a fully sampled file, for each of `CASES`, as Markdown.

    Reference: root sum of squares of the fully sampled data. Convention of the first PSNR and of SSIM:
    `metrics.SCALED`; fastMRI's PSNR beside it. BART's lambda is the best of `BART_LAMBDAS` for the
    reference, which no user has.
    """
    kspace = open_kspace(path).read_slice(0).kspace
    reference = rss(ifft2c(kspace))
    say("| case | lines | method | network calls | PSNR | in the object | SSIM | PSNR, fastMRI | s |")
    say("|---|---|---|---|---|---|---|---|---|")
    for case in CASES.values():
        mask = case.make_mask(kspace, path.name)
        for method, calls, image, seconds in reconstructions(kspace, mask, reference, recipe, prior, runtime):
            row = (case.name, int(mask[0].sum()), method, calls)
            scores = [metric(image, reference) for metric in (scaled_psnr, object_psnr, scaled_ssim, psnr)]
            numbers = "{:.2f} | {:.2f} | {:.3f} | {:.2f}".format(*map(float, scores))
            text = " | ".join([*map(str, row), numbers])
            say(f"| {text} | {seconds:.0f} |")


def reconstructions(
    kspace: Tensor, mask: Tensor, reference: Tensor, recipe: Recipe, prior: Prior, runtime: Runtime
) -> Iterator[tuple[str, int | str, Tensor, float]]:
    """(name, network calls, magnitude image (H, W), seconds) of every method, for k-space (coils, H, W)."""
    y = kspace * mask
    yield "zero-filled", 0, rss(ifft2c(y)), 0.0
    started = time.monotonic()
    maps, _ = espirit(y, mask)
    image = rss(cg_sense(MRI(mask, maps), y[None], weight=1e-2))[0]
    yield "CG-SENSE", 0, image, time.monotonic() - started
    if shutil.which("bart"):
        started = time.monotonic()
        maps = bart_maps(y)
        images = {weight: bart_wavelets(y, weight, maps) for weight in BART_LAMBDAS}
        best = max(images, key=lambda weight: float(scaled_psnr(images[weight], reference)))
        name = f"BART L1-wavelets, lambda {best}"
        yield name, 0, images[best], (time.monotonic() - started) / len(BART_LAMBDAS)
    for steps, samples in ((recipe.steps, 1), (recipe.steps, recipe.samples), (50, 4)):
        result = reconstruct_slice(
            kspace, mask, replace(recipe, steps=steps, samples=samples), prior, runtime
        )
        name = "recon, one sample" if samples == 1 else f"recon, mean of {samples}"
        yield name, f"{samples} x {result.network_calls}", result.mean.abs(), result.seconds
