"""``recon bench denoising``: how much noise priors take away, level by level, on sets that none of them was trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..io.reports import number_text, unique
from ..priors import about
from ..registry.configuration import read_config
from ..registry.objects import make_prior
from ..runtime.runtime import Runtime
from ..training import make_training
from ..training.denoising import CURVE_SIGMAS, judges
from ..training.views import as_channels
from .scans.real import Say, shared_folder

DENOISING_CONFIG = "brain-mri"


@dataclass(frozen=True)
class DenoisingCurve:
    """PSNR (dB) of one prior on one set, by noise level as text."""

    prior: str
    title: str
    psnr: dict[str, float]


def compare_denoising(
    names: Sequence[str],
    config: str | None = None,
    data: str | Path | None = None,
    sigmas: Sequence[float] = (),
    say: Say = print,
) -> list[DenoisingCurve]:
    """The curve of each prior on each validation set of a training's configuration, as its card has it.

    ``config`` is a preset or a YAML file, by default that of the shipped `brain-mri`; its sets lie below
    ``data``. The views of the slices and their noise are always the same (`training.views.plain_views`). Says a table
    per set; below each prior but the first, its gain over the first. Levels that a prior is not meant for stay
    empty. Raises `ConfigError` for a prior of latents, whose noise levels are others, and as `load_sets` does.
    """
    settings = {key: value for key, value in read_config(config or DENOISING_CONFIG).items() if key != "init"}
    training = make_training(settings | {"data_root": str(shared_folder(data))})
    if not training.validation:
        raise ConfigError(
            f"{config or DENOISING_CONFIG} names no validation sets.",
            "The priors are compared on these.",
            "Write validation: [FILE.npz].",
        )
    priors = {name: usable(make_prior(name), name) for name in unique(names)}
    judged = {
        kind: judges(training, complex_images=kind) for kind in {is_complex_prior(p) for p in priors.values()}
    }
    levels = tuple(sigmas) or CURVE_SIGMAS
    found = []
    for place in range(len(training.validation)):
        curves = []
        for name, prior in priors.items():
            judge, (low, high) = judged[is_complex_prior(prior)][place], about(prior).allowed
            fit = [sigma for sigma in levels if low <= sigma <= high]
            curves.append(DenoisingCurve(name, judge.title, judge.curve(on_channels(prior), fit)))
            if name == next(iter(priors)):
                count, _, height, width = judge.clean.shape
                say(f"{judge.title}: {count} crops of {height} x {width}, PSNR in dB")
                say(line("sigma", map("{:g}".format, levels)))
            say(line(name, (number_text(curves[-1].psnr.get(str(s))) for s in levels)))
            if len(curves) > 1:
                say(line("  gain", (gain(curves[0].psnr, curves[-1].psnr, str(s)) for s in levels)))
        found += curves
    return found


def usable(prior: Any, name: str) -> Any:
    """The prior on its device; raises `ConfigError` for one of latents."""
    if about(prior).space.latent:
        raise ConfigError(
            f"{name} is a prior of latents.",
            "Its noise levels are those of latents, and cannot be compared with levels of images.",
            "Name priors of images.",
        )
    return Runtime().prepare(prior)


def is_complex_prior(prior: Any) -> bool:
    """Whether a prior is one of complex images."""
    return about(prior).complex_images


def on_channels(prior: Any) -> Callable[[Tensor, float], Tensor]:
    """The prior as a denoiser of real channels (B, C, H, W)."""
    device = Runtime().torch_device()

    def denoise(x: Tensor, sigma: float) -> Tensor:
        image = (
            torch.view_as_complex(x.movedim(1, -1).contiguous())[:, None] if is_complex_prior(prior) else x
        )
        return as_channels(prior(image.to(device), sigma)).cpu()

    return denoise


def gain(first: dict[str, float], other: dict[str, float], sigma: str) -> str:
    """By how much the other is above the first, in dB."""
    return (
        number_text(other[sigma] - first[sigma], "+.2f")
        if sigma in first and sigma in other
        else number_text(None)
    )


def line(name: str, values: Any) -> str:
    """A row of a table."""
    return f"{name:<32}" + "".join(f"{value:>8}" for value in values)
