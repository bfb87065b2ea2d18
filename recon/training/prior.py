"""The training of a prior: an EDM denoiser of slices on disk, or of their latents.

Objective (Karras et al. 2022, eq. 8): ``E |F(c_in x; c_noise) - (x0 - c_skip x) / c_out|^2`` with
``x = x0 + sigma eps``; ``sigma`` log-normal, a share of it log-uniform over the whole range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..networks.load import Latents, load_autoencoder
from ..networks.precondition import Preconditioned
from ..networks.unet import UNet
from .checkpoint import write_weights
from .loop import train_network
from .settings import Training
from .sets import load_sets
from .views import plain_views

CURVE_SIGMAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass(frozen=True)
class PriorTraining(Training):
    """`Training`, and what is told a denoiser: its noise levels, and the autoencoder if it is one of latents.

    ``autoencoder``: weights that `recon.training.autoencoder` wrote; the denoiser is then one of latents of unit
    variance, in which all sigmas are, and the two together become a latent prior.
    """

    autoencoder: str | None = None
    sigma_data: float = 0.25
    sigma_min: float = 0.002
    sigma_max: float = 10.0
    sigma_log_mean: float = -2.0
    sigma_log_std: float = 1.4
    sigma_uniform_share: float = 0.1

    @property
    def files(self) -> list[Path]:
        """The data, and the autoencoder with its card."""
        inner = [] if self.autoencoder is None else [Path(self.autoencoder)]
        return [
            *super().files,
            *(path.with_suffix(end) for path in inner for end in (".json", ".safetensors")),
        ]


def draw_sigma(config: PriorTraining, lowest: Tensor, generator: torch.Generator) -> Tensor:
    """Noise levels of a training step, each of the same distribution above its ``lowest`` (B,)."""
    sigma = draw_levels(config, len(lowest), generator)
    for _ in range(20):
        sigma = torch.where(sigma < lowest, draw_levels(config, len(lowest), generator), sigma)
    return torch.maximum(sigma, lowest)


def draw_levels(config: PriorTraining, count: int, generator: torch.Generator) -> Tensor:
    """Noise levels (count,): log-normal, a share of them log-uniform over the whole range."""
    log_sigma = config.sigma_log_mean + config.sigma_log_std * torch.randn(count, generator=generator)
    low, high = math.log(config.sigma_min), math.log(config.sigma_max)
    uniform = low + (high - low) * torch.rand(count, generator=generator)
    share = torch.rand(count, generator=generator) < config.sigma_uniform_share
    return torch.where(share, uniform, log_sigma).clamp(low, high).exp()


def train_prior(
    config: PriorTraining,
    *,
    reads: Sequence[str | Path] = (),
    log: Callable[[object], object] = print,
) -> Path:
    """Train, or go on; returns the folder with ``<name>.safetensors`` and its card. See `loop.train_network`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    latents = None if config.autoencoder is None else load_autoencoder(config.autoencoder).to(device)
    channels = config.channels if latents is None else latents.channels
    torch.manual_seed(config.seed)
    network = UNet(channels=channels, **config.network).to(device).to(memory_format=torch.channels_last)
    model = Preconditioned(network, config.sigma_data, config.sigma_min, config.sigma_max)
    inner = torch.compile(network) if config.compile else network
    trained = Preconditioned(inner, config.sigma_data, config.sigma_min, config.sigma_max)

    def loss(clean: Tensor, lowest: Tensor, generator: torch.Generator) -> Tensor:
        sigma = draw_sigma(config, lowest, generator).to(device)
        if latents is not None:
            with torch.no_grad():
                clean = latents.encode(clean)
        noise = torch.randn(clean.shape, generator=generator).to(device)
        return trained.loss(clean, sigma, noise)

    def publish(average, step: int, elapsed: float) -> None:
        shadow = UNet(**network.options)
        shadow.load_state_dict({name: value.cpu() for name, value in average.items()})
        shadow_model = Preconditioned(shadow.eval(), config.sigma_data, config.sigma_min, config.sigma_max)
        tensors, parts = dict(shadow.state_dict()), [*shadow.parameters()]
        card = {
            "network": {"kind": "UNet", **shadow.options},
            "parametrisation": "edm",
            "sigma_data": config.sigma_data,
            "sigma_min": config.sigma_min,
            "sigma_max": config.sigma_max,
        }
        if latents is not None:
            card["autoencoder"] = latents.card
            tensors |= {f"autoencoder.{key}": value for key, value in latents.network.state_dict().items()}
            parts += latents.network.parameters()
        card["parameters"] = sum(p.numel() for p in parts)
        if config.validation:
            card["validation_psnr_of_denoising"] = denoising_curve(shadow_model, latents, config)
        write_weights(config, tensors, card, step, elapsed)

    return train_network(config, network, loss, publish, reads=reads, log=log)


@torch.no_grad()
def denoising_curve(
    model: Preconditioned, latents: Latents | None, config: PriorTraining
) -> dict[str, float]:
    """PSNR (dB, peak 1) of ``D(x0 + sigma eps)`` for each sigma, on crops that are always the same."""
    slices = load_sets(config.root, config.validation_sets, config.percentile)
    clean, generator = plain_views(slices.images, config)
    if latents is not None:
        clean = latents.encode(clean)
    noise = torch.randn(clean.shape, generator=generator)
    curve = {}
    for sigma in CURVE_SIGMAS:
        error = [
            (model(c + sigma * n, sigma) - c).square()
            for c, n in zip(clean.split(4), noise.split(4), strict=True)
        ]
        curve[str(sigma)] = round(-10 * math.log10(torch.cat(error).mean().item()), 2)
    return curve
