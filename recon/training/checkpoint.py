"""What a training writes: checkpoints that it goes on from, and weights with their card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialised
from torch import Tensor, nn

from ..errors import InputError
from ..io.whole import write_together, write_whole
from .settings import Training

Average = dict[str, Tensor]
"""The exponential moving average of the parameters, by their names."""


def save_checkpoint(
    path: Path,
    network: nn.Module,
    average: Average,
    optimizer: torch.optim.Optimizer,
    step: int,
    elapsed: float,
) -> None:
    """Everything that `load_checkpoint` needs to go on as if there had been no break; ``elapsed`` in seconds."""
    tensors = {f"network.{name}": p.detach() for name, p in network.named_parameters()}
    tensors |= {f"average.{name}": value for name, value in average.items()}
    for name, p in network.named_parameters():
        tensors |= {f"optimizer.{key}.{name}": value for key, value in optimizer.state[p].items()}
    tensors["step"], tensors["elapsed"] = torch.tensor(step), torch.tensor(elapsed, dtype=torch.float64)
    write_whole(path, write_of(as_bytes({name: t.cpu() for name, t in tensors.items()})))


def load_checkpoint(
    path: Path, network: nn.Module, average: Average, optimizer: torch.optim.Optimizer
) -> tuple[int, float]:
    """Fill network, average and optimizer with a checkpoint; returns its step and the seconds until then.

    Raises `InputError` where it is damaged, or belongs to another network.
    """
    try:
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
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise InputError(
            f"The training cannot go on from {path}.",
            "It is damaged, or was written by a training of another network.",
            "Remove it to start again, or choose another folder with --out.",
        ) from error


def write_weights(
    config: Training, tensors: Mapping[str, Tensor], card: dict[str, Any], step: int, elapsed: float
) -> None:
    """``<name>.safetensors`` in half precision with its card, both whole; the card ends in what all trainings share."""
    weights = as_bytes({name: value.half() for name, value in tensors.items()})
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
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    text = json.dumps(card, indent=1) + "\n"
    target = config.weights
    write_together({target: write_of(weights), target.with_suffix(".json"): write_of(text.encode())})


def as_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as the content of a safetensors file."""
    return serialised({name: t.contiguous().clone() for name, t in tensors.items()})


def write_of(content: bytes) -> Callable[[Any], object]:
    """What writes ``content`` to a file, for `recon.io.whole`."""
    return lambda file: file.write(content)
