"""How much memory a slice needs, and how many slices therefore go through the network together."""

from __future__ import annotations

from typing import Any

import torch

from ...priors import about
from .settings import Settings

LIBRARIES = 3e8  # bytes that torch and the others take before any work
MOST = 16  # slices together: more gain no speed


def slices_at_once(size: tuple[int, int], coils: int, settings: Settings, prior: Any) -> int:
    """As the runtime says; by default one on a processor, and what fits half of the free memory of a GPU.

    ``size`` (H, W) is that of the image that is sampled.
    """
    if settings.runtime.slices:
        return settings.runtime.slices
    device = settings.runtime.torch_device()
    if device.type != "cuda":
        return 1
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(MOST, int(free / 2 / memory(size, coils, settings, prior))))


def memory(size: tuple[int, int], coils: int, settings: Settings, prior: Any) -> float:
    """Bytes at the peak for one slice, roughly: coil images of all samples, and the network's widest features."""
    pixels, samples = size[0] * size[1], settings.recipe.samples
    card = about(prior).card or {"network": {}}
    network = card.get("autoencoder", card)["network"]  # latents are small beside their image
    patch = network.get("patch", 2 if "autoencoder" in card else 1)
    features = max(network.get("widths", (32,))[0] / patch**2, 8)
    rows = min(settings.runtime.chunk or samples, samples)
    images = 8 * pixels * (coils * (4 * samples + 6) + 10 * samples)
    return images + 4 * pixels * rows * (6 * features + 8) + LIBRARIES
