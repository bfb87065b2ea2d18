"""The autoencoder of a latent prior, from the slices and with the loop of ``recon train``.

Objective: mean squared error of the reconstruction plus a weak Kullback-Leibler term on the latents
(`Autoencoder.loss`), which keeps them near unit size and the decoder smooth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..networks.autoencoder import Autoencoder
from .augment import with_random_phase
from .checkpoint import write_weights
from .loop import train_network
from .settings import Training
from .views import as_channels, plain_views


@dataclass(frozen=True)
class AutoencoderTraining(Training):
    """`Training`, and ``kl``, the weight of the Kullback-Leibler term; ``network`` holds the options of `Autoencoder`."""

    kl: float = 1e-6


def train_autoencoder(
    config: AutoencoderTraining,
    *,
    reads: Sequence[str | Path] = (),
    log: Callable[[object], object] = print,
) -> Path:
    """Train, or go on; returns the folder with ``<name>.safetensors`` and its card. See `loop.train_network`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(config.seed)
    model = Autoencoder(channels=config.channels, **config.network)
    model = model.to(device).to(memory_format=torch.channels_last)

    def loss(clean: Tensor, generator: torch.Generator) -> Tensor:
        size = config.crop // model.factor
        noise = torch.randn(len(clean), model.latents, size, size, generator=generator)
        return model.loss(clean, noise.to(device), config.kl)

    def publish(average, step: int, elapsed: float) -> None:
        shadow = Autoencoder(**model.options)
        shadow.load_state_dict({name: value.cpu() for name, value in average.items()})
        card = {
            "network": {"kind": "Autoencoder", **shadow.options},
            "parameters": sum(p.numel() for p in shadow.parameters()),
            "kl": config.kl,
            **latent_statistics(shadow.eval(), config),
        }
        write_weights(config, shadow.state_dict(), card, step, elapsed)
        log({key: value for key, value in card.items() if key.startswith(("latent", "validation"))})

    return train_network(config, model, loss, publish, reads=reads, log=log)


@torch.no_grad()
def latent_statistics(model: Autoencoder, config: AutoencoderTraining) -> dict[str, object]:
    """Mean and standard deviation of each latent channel; the round trip's PSNR of whole validation slices."""
    clean = plain_views(load_images(config.root, config.data, config.percentile)[::4], config)[0]
    latents = torch.cat([model.encode(part) for part in clean.split(8)]).movedim(1, 0).flatten(1)
    found: dict[str, object] = {
        "latent_mean": [round(value, 4) for value in latents.mean(1).tolist()],
        "latent_std": [round(value, 4) for value in latents.std(1).tolist()],
    }
    if config.validation:
        images = load_images(config.root, config.validation, config.percentile)
        found["validation_psnr_of_round_trip"] = round_trip(model, images, config.complex_images)
    return found


@torch.no_grad()
def round_trip(model: Autoencoder, images: Tensor, complex_images: bool) -> float:
    """PSNR (dB, peak 1) of the magnitude of ``decode(encode(x))``, whole slices (N, H, W) with smooth random phase."""
    generator, error = torch.Generator().manual_seed(1), []
    for image in images[:, None].split(4):
        clean = as_channels(with_random_phase(image, generator)) if complex_images else image
        back = model.decode(model.encode(clean))
        magnitude = back.square().sum(1, keepdim=True).sqrt() if complex_images else back
        error.append((magnitude - image).square())
    return round(-10 * math.log10(torch.cat(error).mean().item()), 2)
