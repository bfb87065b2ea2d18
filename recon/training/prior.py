"""The training of a prior: an EDM denoiser of slices on disk, or of their latents.

Objective (Karras et al. 2022, eq. 8): ``E |F(c_in x; c_noise) - (x0 - c_skip x) / c_out|^2`` with
``x = x0 + sigma eps``; ``sigma`` log-normal, a share of it log-uniform over the whole range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..networks.load import Latents, load_autoencoder
from ..networks.precondition import Preconditioned
from ..networks.unet import UNet
from ..registry.configuration import construct
from .checkpoint import write_weights
from .denoising import Judge, judges
from .loop import silent, train_network
from .sets import is_number
from .settings import Training, with_card
from .start import read_start
from .team import Team, joined


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

    def __post_init__(self):
        super().__post_init__()
        levels = (self.sigma_min, self.sigma_max, self.sigma_data)
        if not all(is_number(value) and value > 0 for value in levels) or self.sigma_min >= self.sigma_max:
            raise ConfigError(
                f"sigma_min, sigma_max and sigma_data are {', '.join(map(repr, levels))}.",
                "They are numbers above 0, the first below the second.",
            )
        for entry in self.sets:
            if entry.sigma_from >= self.sigma_max:
                raise entry.wrong("sigma_from", f"The largest noise level is {self.sigma_max:g}.")

    @property
    def files(self) -> list[Path]:
        """The data, the weights to go on from, and the autoencoder; weights with their card."""
        return [*super().files, *with_card(self.autoencoder)]


def draw_sigma(config: PriorTraining, lowest: Tensor, generator: torch.Generator) -> Tensor:
    """Noise levels of a training step, each of the same distribution above its ``lowest`` (B,)."""
    sigma = draw_levels(config, len(lowest), generator)
    for _ in range(20):
        if (sigma >= lowest).all():
            break
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
    with joined() as team:
        return train_denoiser(config, team, reads, log if team.first else silent)


def train_denoiser(
    config: PriorTraining, team: Team, reads: Sequence[str | Path], log: Callable[[object], object]
) -> Path:
    """The part of `train_prior` that one process of a team does."""
    latents = None if config.autoencoder is None else load_autoencoder(config.autoencoder)
    channels = config.channels if latents is None else latents.channels
    torch.manual_seed(config.seed)
    network = construct(UNet, {**config.network, "channels": channels}, "The network")
    start = None if config.init is None else read_start(config.init, card_of(config, network, latents))
    if start is not None:
        start.fill(network)
    judged = judges(config, None if latents is None else latents.encode) if team.first else []
    network = network.to(team.device).to(memory_format=torch.channels_last)
    latents = None if latents is None else latents.to(team.device)
    model = Preconditioned(network, config.sigma_data, config.sigma_min, config.sigma_max)
    if config.compile:
        network.compile()

    def loss(clean: Tensor, lowest: Tensor, draws: Sequence[torch.Generator]) -> Tensor:
        levels = zip(lowest.split(1), draws, strict=True)
        sigma = torch.cat([draw_sigma(config, low, draw) for low, draw in levels]).to(team.device)
        if latents is not None:
            with torch.no_grad():
                clean = latents.encode(clean)
        noise = torch.stack([torch.randn(clean.shape[1:], generator=draw) for draw in draws])
        return model.loss(clean, sigma, noise.to(team.device))

    def publish(average: Mapping[str, Tensor], step: int, elapsed: float) -> None:
        shadow = UNet(**network.options)
        shadow.load_state_dict({name: value.cpu() for name, value in average.items()})
        inner = None if latents is None else latents.cpu()
        card, tensors = card_of(config, shadow, inner), tensors_of(shadow, inner)
        card |= validation(judged, Preconditioned(shadow.eval(), **levels_of(config)))
        write_weights(config, tensors, card, step, elapsed, start)
        if latents is not None:
            latents.to(team.device)

    return train_network(config, network, loss, publish, team, reads=reads, log=log)


def levels_of(config: PriorTraining) -> dict[str, float]:
    """The scale of the data and the range of the noise levels."""
    return {key: getattr(config, key) for key in ("sigma_data", "sigma_min", "sigma_max")}


def card_of(config: PriorTraining, network: UNet, latents: Latents | None) -> dict[str, Any]:
    """What the card of a prior says of its network."""
    parts: list[nn.Module] = [network] if latents is None else [network, latents.network]
    card = {
        "network": {"kind": "UNet", **network.options},
        "parametrisation": "edm",
        **levels_of(config),
        "complex_images": config.complex_images,
        "parameters": sum(p.numel() for part in parts for p in part.parameters()),
    }
    return card if latents is None else card | {"autoencoder": latents.card}


def tensors_of(network: UNet, latents: Latents | None) -> dict[str, Tensor]:
    """The tensors in the file of a prior."""
    tensors = dict(network.state_dict())
    if latents is not None:
        tensors |= {f"autoencoder.{key}": value for key, value in latents.network.state_dict().items()}
    return tensors


def validation(judged: Sequence[Judge], model: Preconditioned) -> dict[str, Any]:
    """The denoising curve of the first validation set; of several, each set's as well, by its name."""
    curves = {judge.title: judge.curve(model) for judge in judged}
    if not curves:
        return {}
    found: dict[str, Any] = {"validation_psnr_of_denoising": next(iter(curves.values()))}
    return found if len(curves) == 1 else found | {"validation_psnr_of_denoising_by_set": curves}
