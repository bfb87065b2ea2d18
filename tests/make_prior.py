"""Tiny priors for the tests: a network with random weights and its card, as `recon train` writes them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from recon.networks.unet import UNet


def make_prior(folder: Path, name: str = "tiny", complex_images: bool = True, channels: int = 1) -> Path:
    """``folder/name.safetensors`` with its card beside it."""
    torch.manual_seed(0)
    network = UNet(channels=2 if complex_images else channels, widths=(4, 8), blocks=1, patch=2, embedding=8)
    path = Path(folder) / f"{name}.safetensors"
    save_file({key: value.half().contiguous() for key, value in network.state_dict().items()}, path)
    card = {
        "name": name,
        "network": {"kind": "UNet", **network.options},
        "parameters": sum(p.numel() for p in network.parameters()),
        "sigma_data": 0.3,
        "sigma_min": 0.002,
        "sigma_max": 10.0,
        "complex_images": complex_images,
        "data": [],
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    path.with_suffix(".json").write_text(json.dumps(card))
    return path
