"""What a training writes: checkpoints that it goes on from, and weights with their card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialised
from torch import Tensor, nn

from ..errors import InputError
from ..io.whole import write_together, write_whole
from .muon import Muon
from .settings import Training
from .start import Start

Average = dict[str, Tensor]
"""The exponential moving average of the parameters, by their names."""


@dataclass
class Progress:
    """A training as far as it is: network, average, optimiser, scaler of the loss, steps, and seconds."""

    network: nn.Module
    average: Average
    optimizer: Muon
    scaler: torch.amp.GradScaler
    step: int = 0
    elapsed: float = 0.0

    @classmethod
    def of(cls, network: nn.Module, config: Training) -> Progress:
        """The start of a training of ``network``."""
        average = {name: p.detach().clone() for name, p in network.named_parameters()}
        optimizer = Muon(network.parameters(), lr=config.lr, lr_vectors=config.lr_vectors)
        device = next(network.parameters()).device
        return cls(
            network, average, optimizer, torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        )


def save_checkpoint(path: Path, run: Progress) -> None:
    """Everything that `load_checkpoint` needs to go on as if there had been no break."""
    tensors = {f"network.{name}": p.detach() for name, p in run.network.named_parameters()}
    tensors |= {f"average.{name}": value for name, value in run.average.items()}
    for name, p in run.network.named_parameters():
        tensors |= {f"optimizer.{key}.{name}": value for key, value in run.optimizer.state[p].items()}
    tensors |= {f"scaler.{key}": torch.tensor(value) for key, value in run.scaler.state_dict().items()}
    tensors["step"] = torch.tensor(run.step)
    tensors["elapsed"] = torch.tensor(run.elapsed, dtype=torch.float64)
    write_whole(path, write_of(as_bytes({name: t.cpu() for name, t in tensors.items()})))


def load_checkpoint(path: Path, run: Progress) -> None:
    """Make a training what it was when a checkpoint was written.

    Raises `InputError` where it is damaged, or belongs to another network.
    """
    try:
        tensors = load_file(path)
        with torch.no_grad():
            for name, p in run.network.named_parameters():
                p.copy_(tensors[f"network.{name}"])
                run.average[name].copy_(tensors[f"average.{name}"])
                for key in ("step", "first", "second"):
                    value = tensors.get(f"optimizer.{key}.{name}")
                    if value is not None:
                        run.optimizer.state[p][key] = value.to(p.device) if key != "step" else value
        scaler = {key[7:]: value.item() for key, value in tensors.items() if key.startswith("scaler.")}
        if scaler and run.scaler.is_enabled():
            run.scaler.load_state_dict(scaler)
        run.step, run.elapsed = int(tensors["step"]), float(tensors["elapsed"])
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise InputError(
            f"The training cannot go on from {path}.",
            "It is damaged, or was written by a training of another network.",
            "Remove it to start again, or choose another folder with --out.",
        ) from error


def write_weights(
    config: Training,
    tensors: Mapping[str, Tensor],
    card: dict[str, Any],
    step: int,
    elapsed: float,
    start: Start | None = None,
) -> None:
    """``<name>.safetensors`` in half precision with its card, both whole; the card ends in what all trainings share.

    Of weights that went on from others the card says from which; its own steps, minutes and crops are the run's.
    """
    weights = as_bytes({name: value.half() for name, value in tensors.items()})
    curve = {key: value for key, value in card.items() if key.startswith("validation")}
    card = {
        "name": config.name,
        **{key: value for key, value in card.items() if key not in curve},
        "complex_images": config.complex_images,
        "normalisation": normalisation(config),
        "data": list(config.data),
        "citation": list(config.citation),
        "steps": step,
        "minutes": round(elapsed / 60, 1),
        "crops_seen": step * config.batch,
        **({} if start is None else {"init": start.record}),
        **curve,
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    text = json.dumps(card, indent=1) + "\n"
    target = config.weights
    write_together({target: write_of(weights), target.with_suffix(".json"): write_of(text.encode())})


def normalisation(config: Training) -> str:
    """The scale of the images, in words."""
    if any(each.hounsfield is not None for each in config.sets):
        return "attenuation over that of water, 1 + HU / 1000; air is 0"
    if config.percentile is None:
        return "values as they are; those of pictures from 0 to 1"
    return f"magnitude scaled so that its {config.percentile} percentile is 1"


def as_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as the content of a safetensors file."""
    return serialised({name: t.contiguous().clone() for name, t in tensors.items()})


def write_of(content: bytes) -> Callable[[Any], object]:
    """What writes ``content`` to a file, for `recon.io.whole`."""
    return lambda file: file.write(content)
