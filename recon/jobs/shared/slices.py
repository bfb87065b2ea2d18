"""Slices of a planned file read and sent through the network together, as many as memory holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from operators.coils import rss
from operators.fourier import ifft2c

from ...io import (
    center_crop,
    crop_readout,
    read_maps,
)
from ...mri import SliceResult, normalise, reconstruct_slices
from ...registry.recipe import build
from .inputs import PlannedFile
from .settings import Settings


def batched(items: Sequence[int], size: int) -> list[Sequence[int]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def slices_at_once(plan: PlannedFile, settings: Settings, prior: Any) -> int:
    """As the runtime says; by default one on a processor, and what fits half of the free memory of a GPU."""
    if settings.runtime.slices:
        return settings.runtime.slices
    device = settings.runtime.torch_device()
    if device.type != "cuda":
        return 1
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(16, int(free / 2 / memory(plan, settings, prior))))


def reconstruct_some(
    plan: PlannedFile, settings: Settings, prior: Any, indices: Sequence[int], bar: Any
) -> Iterator[tuple[int, Tensor | None, SliceResult]]:
    """Slices read and sent through the network together: (index, reference, result) of each."""
    device, references, slices = settings.runtime.torch_device(), {}, []
    for index in indices:
        piece = plan.file.read_slice(index)
        kspace, mask, maps = piece.kspace, plan.acquisition.mask, piece.maps
        if plan.maps is not None:
            maps = read_maps(plan.maps, plan.file, index)
        references[index] = reference_of(plan, piece.kspace, piece.reference)
        if plan.cropped_readout:
            kspace, mask = crop_readout(kspace, plan.size[0]), mask[: plan.size[0]]
            maps = None if maps is None else center_crop(maps, plan.size)
        slices.append(normalise(kspace.to(device), mask, settings.recipe, index=index, maps=maps))
    for _, group in groupby(slices, key=lambda one: one.A.domain):  # one set of maps, or two
        alike = list(group)

        def watch(step: int, state: Any, residual: float, count: int = len(alike)) -> None:
            bar.set_postfix(residual=f"{residual:.3g}", refresh=False)
            bar.update(count)

        results = reconstruct_slices(alike, settings.recipe, prior, watch)
        for one, result in zip(alike, results, strict=True):
            yield one.index, references[one.index], result


def reference_of(plan: PlannedFile, kspace: Tensor, stored: Tensor | None) -> Tensor | None:
    """The file's own reference, else the root sum of squares of k-space of which samples are left out."""
    if stored is not None or not plan.acquisition.simulated:
        return stored
    return center_crop(rss(ifft2c(kspace)), plan.file.crop)


# --- the plan in words -----------------------------------------------------------------------------------


def describe(plan: PlannedFile, settings: Settings, prior: Any, slices: int | None = None) -> str:
    """What would be done with one file, or with some of its slices, for ``--dry-run``."""
    file, recipe = plan.file, settings.recipe
    maps = "given" if plan.maps or file.maps else "estimated" if file.coils > 1 else "none, one coil"
    sampler, solver = build(recipe, prior)
    calls = (slices or file.slices) * sampler.network_calls(solver, recipe.steps, recipe.sigma_end)
    lines = [
        f"{file.path} -> {plan.target}" + (" (done already)" if plan.done else ""),
        f"  {file.slices} slices, {file.coils} coils, {file.height} x {file.width}, image {file.crop[0]} x {file.crop[1]}",
        f"  mask: {plan.acquisition}; maps: {maps}",
        f"  {0 if plan.done else calls} network calls of {recipe.samples} samples; "
        f"about {memory(plan, settings, prior) / 2**30:.1f} GiB of memory",
    ]
    return "\n".join(lines)


def memory(plan: PlannedFile, settings: Settings, prior: Any) -> float:
    """Bytes at the peak, roughly: coil images of all samples, and the widest features of the network."""
    (height, width), recipe = plan.size, settings.recipe
    card = getattr(prior, "card", None) or {"network": {}}
    network = card.get("autoencoder", card)["network"]  # latents are small beside their image
    patch = network.get("patch", 2 if "autoencoder" in card else 1)
    features = max(network.get("widths", (32,))[0] / patch**2, 8)
    rows = min(settings.runtime.chunk or recipe.samples, recipe.samples)
    pixels = height * width
    coils = 8 * pixels * (plan.file.coils * (4 * recipe.samples + 6) + 10 * recipe.samples)
    return coils + 4 * pixels * rows * (6 * features + 8) + 3e8  # and the libraries themselves
