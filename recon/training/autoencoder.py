"""The autoencoder of a latent prior, from the slices and with the loop of ``recon train``.

Objective: mean squared error of the reconstruction plus a weak Kullback-Leibler term on the latents
(`Autoencoder.loss`), which keeps them near unit size and the decoder smooth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..networks.autoencoder import Autoencoder
from ..registry.configuration import construct
from .checkpoint import write_weights
from .loop import silent, train_network
from .sets import ImageSet
from .settings import Training
from .slices import slices_of
from .start import read_start
from .team import Team, joined
from .views import as_network_input, plain_views

MOST_SEEN = 512  # training slices, about, whose latents are measured


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
    with joined() as team:
        return train_coder(config, team, reads, log if team.first else silent)


def train_coder(
    config: AutoencoderTraining, team: Team, reads: Sequence[str | Path], log: Callable[[object], object]
) -> Path:
    """The part of `train_autoencoder` that one process of a team does."""
    torch.manual_seed(config.seed)
    model = construct(Autoencoder, {**config.network, "channels": config.channels}, "The network")
    start = None if config.init is None else read_start(config.init, coder_card(config, model))
    if start is not None:
        start.fill(model)
    seen, judged = statistics_images(config) if team.first else ([], [])
    model = model.to(team.device).to(memory_format=torch.channels_last)
    if config.compile:
        model.encoder.compile()
        model.decoder.compile()

    def loss(clean: Tensor, lowest: Tensor, draws: Sequence[torch.Generator]) -> Tensor:
        size = (model.latents, config.crop // model.factor, config.crop // model.factor)
        noise = torch.stack([torch.randn(size, generator=draw) for draw in draws])
        return model.loss(clean, noise.to(team.device), config.kl)

    def publish(average: Mapping[str, Tensor], step: int, elapsed: float) -> None:
        shadow = Autoencoder(**model.options)
        shadow.load_state_dict({name: value.cpu() for name, value in average.items()})
        found = latent_statistics(shadow.eval(), seen, judged, config)
        write_weights(config, shadow.state_dict(), coder_card(config, shadow) | found, step, elapsed, start)
        log(found)

    return train_network(config, model, loss, publish, team, reads=reads, log=log)


def coder_card(config: AutoencoderTraining, model: Autoencoder) -> dict[str, Any]:
    """What the card of an autoencoder says of its network."""
    return {
        "network": {"kind": "Autoencoder", **model.options},
        "parameters": sum(p.numel() for p in model.parameters()),
        "kl": config.kl,
        "complex_images": config.complex_images,
    }


def statistics_images(config: AutoencoderTraining) -> tuple[list[Tensor], list[Tensor]]:
    """Every fourth training slice, or fewer of many, and all validation slices."""

    def load(sets: Sequence[ImageSet]) -> list[Tensor]:
        if not sets:
            return []
        return slices_of(config, sets).images

    images = load(config.sets)
    return images[:: max(4, len(images) // MOST_SEEN)], load(config.validation_sets)


@torch.no_grad()
def latent_statistics(
    model: Autoencoder, seen: Sequence[Tensor], judged: Sequence[Tensor], config: AutoencoderTraining
) -> dict[str, object]:
    """Mean and standard deviation of each latent channel; the round trip's PSNR of whole validation slices."""
    clean = plain_views(seen, config.crop, config.complex_images)[0]
    latents = torch.cat([model.encode(part) for part in clean.split(8)]).movedim(1, 0).flatten(1)
    found: dict[str, object] = {
        "latent_mean": [round(value, 4) for value in latents.mean(1).tolist()],
        "latent_std": [round(value, 4) for value in latents.std(1).tolist()],
    }
    if judged:
        found["validation_psnr_of_round_trip"] = round_trip(model, judged, config.complex_images)
    return found


@torch.no_grad()
def round_trip(model: Autoencoder, images: Sequence[Tensor], complex_images: bool) -> float:
    """PSNR (dB, peak 1) of the magnitude of ``decode(encode(x))``, whole slices (C, H, W), complex ones with smooth random phase.

    What does not fill a whole latent at the end of an axis is left out.
    """
    generator, error = torch.Generator().manual_seed(1), []
    for _, group in groupby(images, key=lambda image: (image.shape, image.dtype)):
        for image in torch.stack(list(group)).split(4):
            height, width = (n - n % model.factor for n in image.shape[-2:])
            clean = as_network_input(image[..., :height, :width], complex_images, generator)
            back = model.decode(model.encode(clean))
            error.append((magnitude(back) - magnitude(clean)).square().flatten())
    return round(-10 * math.log10(torch.cat(error).mean().item()), 2)


def magnitude(channels: Tensor) -> Tensor:
    """Root of the sum of squares of two channels (B, 2, H, W), or the only one: (B, 1, H, W)."""
    return channels.square().sum(1, keepdim=True).sqrt() if channels.shape[1] == 2 else channels
