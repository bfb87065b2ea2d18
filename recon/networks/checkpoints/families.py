"""The table of families of checkpoints, and which of them a file is of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import ConfigError
from ...priors import Prior
from ..weights import sha256
from . import adm, deepinv, diffusers, edm, exported, score_sde
from .building import Choices, mismatch
from .files import EXPORTED, PICKLES, options_beside, read_tensors_of


@dataclass(frozen=True)
class Family:
    """Checkpoints of one project.

    ``said``: what they are, in words. ``markers``: names of tensors that all of them have. ``make(tensors,
    options)``: the prior. ``beside``: names of tensors that may stand outside of the network.
    """

    said: str
    markers: tuple[str, ...]
    make: Callable[[Mapping[str, Tensor], Choices], Prior]
    beside: tuple[str, ...] = ()


FAMILIES = {
    "adm": Family(
        "a U-Net of guided-diffusion (ADM)",
        ("time_embed.0.weight", "input_blocks.0.0.weight", "out.0.weight"),
        adm.make,
    ),
    "edm": Family(
        "a U-Net of EDM (DDPM++, NCSN++ or ADM)", ("map_layer0.weight", "map_layer1.weight"), edm.make, ("u",)
    ),
    "score_sde": Family(
        "a network of score_sde (NCSN++ or DDPM++)", ("all_modules.1.weight",), score_sde.make
    ),
    "drunet": Family(
        "deepinv's DRUNet", ("m_head.weight", "m_tail.weight", "m_down1.0.res.0.weight"), deepinv.make
    ),
}
"""Families of files of tensors, by name."""

RESEMBLES = (
    ("inlet.weight", "weights that recon train wrote", "Copy the card, the .json that was beside them."),
    (
        "first_stage_model.",
        "a latent diffusion model in one file",
        "Convert it to a folder of diffusers, with vae, unet and scheduler.",
    ),
    ("transformer_blocks.0.attn1.", "a network that is conditioned on a text", "Take an unconditional one."),
    (
        "down_blocks.0.",
        "the U-Net of a diffusers folder",
        "Name the folder, which has its configuration and scheduler.",
    ),
    (
        "conv_list.0.weight",
        "a denoiser that takes no noise level (DnCNN)",
        "Take DRUNet, or a diffusion network.",
    ),
)
"""Part of a name -> what a file with it looks like, and what to do with it instead."""


def is_checkpoint(path: Path) -> bool:
    """Whether a path is that of a file or a folder of weights, by its name or its configuration."""
    if path.is_dir():
        return diffusers.is_folder(path)
    return path.suffix.lower() in (".safetensors", *PICKLES, EXPORTED)


def prior_of_checkpoint(path: Path, given: Mapping[str, Any]) -> Prior:
    """The prior of another project's checkpoint: a file of tensors, an exported program, a folder of diffusers.

    The family is recognised by the names of the tensors. ``given``: options by name, which go before those in
    the JSON beside it. Raises `ConfigError` for what is none of these, or is damaged, needs code, or lacks something.
    """
    settings = options_beside(path) | dict(given)
    if path.is_dir():
        return diffusers.load_folder(path, settings)
    if not path.is_file():
        raise ConfigError(f"There is no file {path}.", "It is named as a checkpoint.", "Check its path.")
    if path.suffix.lower() == EXPORTED:
        prior = exported.load_exported(path, settings)
    else:
        tensors = read_tensors_of(path)
        family, tensors = recognised(tensors, path)
        try:
            prior = family.make(tensors, Choices(path, family.said, settings))
        except LookupError as error:
            raise mismatch(path, family.said, f"it lacks {error}") from error
    prior.card["sha256"] = sha256(path)
    return prior


def recognised(tensors: Mapping[str, Tensor], path: Path) -> tuple[Family, dict[str, Tensor]]:
    """The family of some tensors, and the tensors without what stands before all their names."""
    for part, said, do in RESEMBLES:
        if any(part in name for name in tensors):
            raise ConfigError(f"{path} looks like {said}.", f'It has tensors named "{part}".', do)
    found = family_of(tensors)
    if found:
        family, prefix = found
        outer = prefix.removesuffix("model.")
        inside = {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
        return family, inside | {n: tensors[outer + n] for n in family.beside if outer + n in tensors}
    names = sorted(tensors)
    raise ConfigError(
        f"{path} is of no family of checkpoints that is known here.",
        f"Its {len(names)} tensors are {', '.join(names[:3])}, ...; known: "
        + ", ".join(family.said for family in FAMILIES.values())
        + ", a folder of diffusers, a .pt2 of torch.export.",
        "Wrap the network, recon.priors.from_eps and others, and name it module:function; or save it by torch.export.",
    )


def family_of(names: Iterable[str]) -> tuple[Family, str] | None:
    """The family whose markers are among some names, and what stands before them all."""
    names = set(names)
    for family in FAMILIES.values():
        prefix = prefix_of(names, family.markers)
        if prefix is not None:
            return family, prefix
    return None


def prefix_of(names: set[str], markers: tuple[str, ...]) -> str | None:
    """What stands before the markers in some names: averages before others, then the shortest; None without them."""
    prefixes = [name.removesuffix(markers[0]) for name in names if name.endswith(markers[0])]
    whole = [
        prefix
        for prefix in prefixes
        if (not prefix or prefix.endswith(".")) and all(prefix + marker in names for marker in markers)
    ]
    return min(whole, key=lambda prefix: ("ema" not in prefix, len(prefix), prefix), default=None)
