"""Priors from disk: safetensors beside a JSON card; by the name they ship under, or by path."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from ..errors import ConfigError, unknown
from ..priors import Prior, as_complex
from .precondition import EDM
from .unet import UNet

WEIGHTS = resources.files("recon") / "weights"


def shipped() -> list[str]:
    """Names of the priors inside the package."""
    return sorted(entry.name[: -len(".json")] for entry in WEIGHTS.iterdir() if entry.name.endswith(".json"))


def load_prior(name: str | Path, *, verify: bool = True) -> Prior:
    """A denoiser by the name it ships under ("brain-mri"), or by the path of its .safetensors or card.

    The card (JSON) says how to build the network and what it was trained on; it becomes
    ``prior.card``. Raises `ConfigError` for an unknown name, a missing card, or weights whose sha256
    is not the card's.
    """
    card_path = find_card(name)
    card = json.loads(card_path.read_text())
    weights = card_path.with_suffix(".safetensors")
    if not weights.is_file():
        raise ConfigError(f"{weights} is not there.", "The card has no weights beside it.")
    if verify and hashlib.sha256(weights.read_bytes()).hexdigest() != card["sha256"]:
        raise ConfigError(
            f"{weights} is not the file its card describes.",
            "The sha256 differs: it was changed, or cut short.",
            "Copy both files again, or train anew with recon train.",
        )
    return build_prior(card, load_file(weights))


def build_prior(card: dict[str, Any], tensors: dict) -> Prior:
    options = {key: value for key, value in card["network"].items() if key != "kind"}
    network = UNet(**options)
    network.load_state_dict({key: value.float() for key, value in tensors.items()})
    model = EDM(
        network.eval().requires_grad_(False), card["sigma_data"], card["sigma_min"], card["sigma_max"]
    )
    plain = Prior(model, of=model, data_var=card["sigma_data"] ** 2, card=card)
    prior = as_complex(plain) if card["complex_images"] else plain
    prior.module = model
    return prior


def find_card(name: str | Path) -> Path:
    path = Path(name)
    if path.suffix in (".json", ".safetensors"):
        card = path.with_suffix(".json")
        if not card.is_file():
            raise ConfigError(
                f"There is no prior at {path}.",
                f"A prior is {path.stem}.safetensors with its card {path.stem}.json beside it.",
                "recon train writes both.",
            )
        return card
    if str(name) not in shipped():
        raise unknown("prior", str(name), shipped())
    return Path(str(WEIGHTS / f"{name}.json"))


PRIORS = {name: partial(load_prior, name) for name in shipped()}
"""Constructors of the priors that ship with the package."""
