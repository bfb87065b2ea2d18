"""What every training here has in common: slices from disk, the loop with its checkpoints, the card."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import ConfigError
from .augment import random_crops, with_random_phase
from .muon import Muon

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Training:
    """Keys that every training has, with their defaults.

    ``data`` and ``validation``: .npz files with ``images`` (N, H, W), relative to ``data_root``.
    ``length``: ``{"minutes": m}`` or ``{"steps": n}``; the learning rate falls to zero over it.
    ``complex_images``: train on (real, imaginary) channels with smooth random phase.
    ``precision`` of the matrix work: "float32" or "bf16"; the weights stay in float32.
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
    precision: str = "float32"
    checkpoint_minutes: float = 2.0

    def __post_init__(self):
        if set(self.length) not in ({"minutes"}, {"steps"}):
            raise ConfigError(
                f"length is {self.length}.",
                "A run is as long as a number of minutes or a number of steps.",
                "Write length: {minutes: 120} or length: {steps: 10000}.",
            )
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision is {self.precision!r}.", f"It is one of {', '.join(PRECISIONS)}.")

    @property
    def channels(self) -> int:
        return 2 if self.complex_images else 1

    @property
    def root(self) -> Path:
        return Path(os.path.expandvars(self.data_root))


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


def views(images: Tensor, config: Training, generator: torch.Generator) -> Tensor:
    """One augmented crop of each image, as network channels."""
    crops = random_crops(images, config.crop, generator, **config.augment)
    return as_channels(with_random_phase(crops, generator) if config.complex_images else crops)


def plain_views(images: Tensor, config: Training) -> tuple[Tensor, torch.Generator]:
    """One crop of each image, not augmented but for its phase, always the same; and the generator, used so far."""
    generator = torch.Generator().manual_seed(1)
    none = dict(resample=0.0, blur=0.0, gamma=0.0, scale=0.0, shading=0.0)
    crops = random_crops(images, config.crop, generator, **none)
    return as_channels(with_random_phase(crops, generator) if config.complex_images else crops), generator


Loss = Callable[[Tensor, torch.Generator], Tensor]
"""Of crops (B, C, crop, crop) and the generator of this step's draws: (B,)."""
Publish = Callable[[Mapping[str, Tensor], int, float], None]
"""Given the averaged weights, the steps, and the seconds so far: write weights and card."""


def fit(config: Training, network: nn.Module, loss: Loss, publish: Publish, *, log=print) -> Path:
    """Run, or go on with, a training; returns its folder.

    Everything is kept in ``out/checkpoint.safetensors``, written whole every few minutes; starting
    again goes on from it, with the same draws a run without a break would have made.
    """
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    device = next(network.parameters()).device
    images = load_images(config.root, config.data, config.percentile).to(device)
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
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, PRECISIONS[config.precision], config.precision != "float32"):
            value = loss(clean, generator).mean()
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip)
        optimizer.step()
        decay = min(config.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, p in network.named_parameters():
                average[name].lerp_(p, 1 - decay)
        step += 1
        elapsed = before + time.monotonic() - started
        recent.append(value.item())
        if time.monotonic() - saved > 60 * config.checkpoint_minutes or progress() >= 1:
            saved = time.monotonic()
            save(checkpoint, network, average, optimizer, step, elapsed)
            publish(average, step, elapsed)
            log(f"step {step}  {elapsed / 60:.1f} min  loss {sum(recent) / len(recent):.4g}  lr x{rate:.2f}")
            recent.clear()
    return out


def write_prior(
    config: Training, tensors: Mapping[str, Tensor], card: dict[str, Any], step: int, elapsed: float
):
    """``<name>.safetensors`` in half precision and its card, each file whole; the card ends in what all share."""
    target = Path(config.out) / f"{config.name}.safetensors"
    write_tensors(target, {name: value.half() for name, value in tensors.items()})
    curve = {key: value for key, value in card.items() if key.startswith("validation")}
    card = {
        "name": config.name,
        **{key: value for key, value in card.items() if key not in curve},
        "complex_images": config.complex_images,
        "normalisation": f"magnitude scaled so that its {config.percentile} percentile is 1",
        "data": list(config.data),
        "citation": list(config.citation),
        "steps": step,
        "minutes": round(elapsed / 60, 1),
        "crops_seen": step * config.batch,
        **curve,
        "sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
    }
    part = target.with_name(f"{config.name}.json.part")
    part.write_text(json.dumps(card, indent=1) + "\n")
    os.replace(part, target.with_suffix(".json"))


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
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
