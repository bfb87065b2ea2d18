"""The training loop behind ``recon train``: an EDM denoiser from slices on disk, resumable at any step.

Objective (Karras et al. 2022, eq. 8): ``E |F(c_in x; c_noise) - (x0 - c_skip x) / c_out|^2`` with
``x = x0 + sigma eps``; ``sigma`` log-normal, a share of it log-uniform over the whole range.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .augment import random_crops, with_random_phase
from .errors import ConfigError
from .networks.precondition import EDM
from .networks.unet import UNet
from .optim import Muon

CURVE_SIGMAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass(frozen=True)
class TrainConfig:
    """What a training run is: every key of the YAML file, with its default.

    ``data`` and ``validation``: .npz files with ``images`` (N, H, W), relative to ``data_root``.
    ``length``: ``{"minutes": m}`` or ``{"steps": n}``; the learning rate falls to zero over it.
    ``complex_images``: train on (real, imaginary) channels with smooth random phase.
    """

    name: str
    data: tuple[str, ...]
    length: dict[str, float]
    validation: tuple[str, ...] = ()
    data_root: str = "."
    out: str = "out/train"
    complex_images: bool = True
    citation: tuple[str, ...] = ()
    percentile: float = 99.5
    network: dict = field(default_factory=dict)
    sigma_data: float = 0.25
    sigma_min: float = 0.002
    sigma_max: float = 10.0
    sigma_log_mean: float = -2.0
    sigma_log_std: float = 1.4
    sigma_uniform_share: float = 0.1
    augment: dict = field(default_factory=dict)
    batch: int = 8
    crop: int = 128
    lr: float = 0.015
    lr_vectors: float = 1e-3
    warmup_steps: int = 30
    decay_from: float = 0.4
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    checkpoint_minutes: float = 2.0

    def __post_init__(self):
        if set(self.length) not in ({"minutes"}, {"steps"}):
            raise ConfigError(
                f"length is {self.length}.",
                "A run is as long as a number of minutes or a number of steps.",
                "Write length: {minutes: 120} or length: {steps: 10000}.",
            )


def load_images(root: Path, names: tuple[str, ...], percentile: float) -> Tensor:
    """Magnitude slices (N, H, W) float32, each scaled so that its percentile is 1."""
    stacks = []
    for name in names:
        path = root / name
        if not path.is_file():
            raise ConfigError(
                f"The training set {path} is not there.",
                do="Set data_root in the config, or --data-root, to the folder that holds it.",
            )
        with np.load(path, allow_pickle=False) as archive:
            if "images" not in archive:
                raise ConfigError(f"{path} has no array `images`; it has {', '.join(archive)}.")
            images = torch.from_numpy(archive["images"].astype(np.float32))
        top = torch.quantile(images.flatten(1), percentile / 100, dim=1)
        stacks.append(images[top > 0] / top[top > 0, None, None])
    return torch.cat(stacks)


def as_channels(image: Tensor) -> Tensor:
    """(B, 1, H, W) complex -> (B, 2, H, W); real images as they are."""
    return torch.view_as_real(image)[:, 0].movedim(-1, 1) if image.is_complex() else image


def views(images: Tensor, config: TrainConfig, generator: torch.Generator) -> Tensor:
    """One augmented crop of each image, as network channels."""
    crops = random_crops(images, config.crop, generator, **config.augment)
    return as_channels(with_random_phase(crops, generator) if config.complex_images else crops)


def draw_sigma(config: TrainConfig, count: int, generator: torch.Generator) -> Tensor:
    log_sigma = config.sigma_log_mean + config.sigma_log_std * torch.randn(count, generator=generator)
    low, high = math.log(config.sigma_min), math.log(config.sigma_max)
    uniform = low + (high - low) * torch.rand(count, generator=generator)
    share = torch.rand(count, generator=generator) < config.sigma_uniform_share
    return torch.where(share, uniform, log_sigma).clamp(low, high).exp()


def train(config: TrainConfig, *, log=print) -> Path:
    """Run, or go on with, a training; returns the folder with ``<name>.safetensors`` and its card.

    Everything is kept in ``out/checkpoint.safetensors``, written whole every few minutes; starting
    again goes on from it, with the same draws a run without a break would have made.
    """
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    root = Path(os.path.expandvars(config.data_root))
    images = load_images(root, config.data, config.percentile).to(device)
    channels = 2 if config.complex_images else 1
    torch.manual_seed(config.seed)
    network = UNet(channels=channels, **config.network).to(device).to(memory_format=torch.channels_last)
    model = EDM(network, config.sigma_data, config.sigma_min, config.sigma_max)
    average = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = Muon(network.parameters(), lr=config.lr, lr_vectors=config.lr_vectors)
    checkpoint = out / "checkpoint.safetensors"
    step, elapsed = restore(checkpoint, network, average, optimizer) if checkpoint.is_file() else (0, 0.0)
    if step:
        log(f"going on from step {step} ({elapsed / 60:.1f} minutes) of {checkpoint}")
    network.train()
    saved = started = time.monotonic()
    before, recent = elapsed, []

    def progress() -> float:
        if "steps" in config.length:
            return step / config.length["steps"]
        return elapsed / (60 * config.length["minutes"])

    while progress() < 1:
        fall = min(1.0, (1 - progress()) / (1 - config.decay_from))
        rate = min(1.0, (step + 1) / config.warmup_steps) * fall
        for group in optimizer.param_groups:
            group["lr"], group["lr_vectors"] = config.lr * rate, config.lr_vectors * rate
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        index = torch.randint(len(images), (config.batch,), generator=generator)
        clean = views(images[index.to(device)].cpu(), config, generator).to(device)
        sigma = draw_sigma(config, config.batch, generator).to(device)
        noise = torch.randn(clean.shape, generator=generator).to(device)
        optimizer.zero_grad(set_to_none=True)
        loss = model.loss(clean, sigma, noise).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip)
        optimizer.step()
        decay = min(config.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, p in network.named_parameters():
                average[name].lerp_(p, 1 - decay)
        step += 1
        elapsed = before + time.monotonic() - started
        recent.append(loss.item())
        if time.monotonic() - saved > 60 * config.checkpoint_minutes or progress() >= 1:
            saved = time.monotonic()
            save(checkpoint, network, average, optimizer, step, elapsed)
            publish(config, out, network, average, step, elapsed)
            log(f"step {step}  {elapsed / 60:.1f} min  loss {sum(recent) / len(recent):.4f}  lr x{rate:.2f}")
            recent.clear()
    return out


def publish(config, out: Path, network: UNet, average: dict, step: int, elapsed: float) -> None:
    """Write the averaged weights and the card, each file whole."""
    shadow = UNet(**network.options)
    shadow.load_state_dict({name: value.cpu() for name, value in average.items()})
    model = EDM(shadow.eval(), config.sigma_data, config.sigma_min, config.sigma_max)
    curve = {}
    if config.validation:
        root = Path(os.path.expandvars(config.data_root))
        curve = denoising_curve(model, load_images(root, config.validation, config.percentile), config)
    target = out / f"{config.name}.safetensors"
    write_tensors(target, {name: value.half() for name, value in shadow.state_dict().items()})
    card = {
        "name": config.name,
        "network": {"kind": "UNet", **network.options},
        "parameters": sum(p.numel() for p in shadow.parameters()),
        "parametrisation": "edm",
        "sigma_data": config.sigma_data,
        "sigma_min": config.sigma_min,
        "sigma_max": config.sigma_max,
        "complex_images": config.complex_images,
        "normalisation": f"magnitude scaled so that its {config.percentile} percentile is 1",
        "data": list(config.data),
        "citation": list(config.citation),
        "steps": step,
        "minutes": round(elapsed / 60, 1),
        "crops_seen": step * config.batch,
        "validation_psnr_of_denoising": curve,
        "sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
    }
    part = out / f"{config.name}.json.part"
    part.write_text(json.dumps(card, indent=1) + "\n")
    os.replace(part, out / f"{config.name}.json")


@torch.no_grad()
def denoising_curve(model: EDM, images: Tensor, config: TrainConfig) -> dict[str, float]:
    """PSNR (dB, peak 1) of ``D(x0 + sigma eps)`` for each sigma, on central crops with a fixed seed."""
    generator = torch.Generator().manual_seed(1)
    plain = dict(resample=0.0, blur=0.0, gamma=0.0, scale=0.0, shading=0.0)
    crops = random_crops(images, config.crop, generator, **plain)
    clean = as_channels(with_random_phase(crops, generator) if config.complex_images else crops)
    noise = torch.randn(clean.shape, generator=generator)
    curve = {}
    for sigma in CURVE_SIGMAS:
        error = [
            (model(c + sigma * n, sigma) - c).square()
            for c, n in zip(clean.split(4), noise.split(4), strict=True)
        ]
        curve[str(sigma)] = round(-10 * math.log10(torch.cat(error).mean().item()), 2)
    return curve


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    part = path.with_name(path.name + ".part")
    save_file({name: t.contiguous().clone() for name, t in tensors.items()}, part)
    os.replace(part, path)


def save(path: Path, network, average, optimizer, step: int, elapsed: float) -> None:
    tensors = {f"network.{name}": p.detach() for name, p in network.named_parameters()}
    tensors |= {f"average.{name}": value for name, value in average.items()}
    for name, p in network.named_parameters():
        tensors |= {f"optimizer.{key}.{name}": value for key, value in optimizer.state[p].items()}
    tensors["step"], tensors["elapsed"] = torch.tensor(step), torch.tensor(elapsed, dtype=torch.float64)
    write_tensors(path, {name: t.cpu() for name, t in tensors.items()})


def restore(path: Path, network, average, optimizer) -> tuple[int, float]:
    tensors = load_file(path)
    with torch.no_grad():
        for name, p in network.named_parameters():
            p.copy_(tensors[f"network.{name}"])
            average[name].copy_(tensors[f"average.{name}"])
            for key in ("step", "first", "second"):
                value = tensors.get(f"optimizer.{key}.{name}")
                if value is not None:
                    optimizer.state[p][key] = value.to(p.device) if key != "step" else value
    return int(tensors["step"]), float(tensors["elapsed"])
