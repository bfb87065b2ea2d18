"""Going on from published weights: a training whose network starts as the one of a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import ConfigError
from ..networks.card import read_card
from ..networks.load import find_card
from ..networks.weights import AUTOENCODER, make_network, read_tensors

TAKEN_FROM_CARD = ("complex_images", "sigma_data", "sigma_min", "sigma_max")


@dataclass(frozen=True)
class Start:
    """Published weights: their name, card, and the network's tensors."""

    name: str
    card: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def record(self) -> dict[str, Any]:
        """What the card of the new weights says of these."""
        said = ("name", "sha256", "steps", "minutes", "crops_seen", "data", "init")
        return {key: self.card[key] for key in said if key in self.card}

    def fill(self, network: nn.Module) -> None:
        """Give the network these weights."""
        network.load_state_dict({name: value.float() for name, value in self.tensors.items()})


def with_settings_of_start(settings: Mapping[str, Any], known: Sequence[str], kind: str) -> dict[str, Any]:
    """Settings whose ``init`` says what they do not: the network, the kind of images and the noise levels.

    ``known`` are the settings that the training has, ``kind`` that of its network. Raises `ConfigError` for a card
    that cannot be read, or is of another kind.
    """
    settings = dict(settings)
    if settings.get("init") is None:
        return settings
    card = read_card(find_card(settings["init"]))
    refuse_kind(settings["init"], card, kind)
    taken = {key: card[key] for key in TAKEN_FROM_CARD if key in card and key in known}
    if not settings.get("network"):
        network = make_network(card["network"]).options
        settings["network"] = {key: value for key, value in network.items() if key != "channels"}
    return taken | settings


def refuse_kind(name: str | Path, card: Mapping[str, Any], kind: str) -> None:
    """Raises `ConfigError` for the card of another kind of network."""
    other = card["network"]["kind"]
    if other != kind:
        raise ConfigError(
            f"The training cannot go on from {name}.",
            f"It is a network of kind {other}, and this training is one of kind {kind}.",
            f"Name weights of that kind, or set kind: {'autoencoder' if other == 'Autoencoder' else 'prior'}.",
        )


def read_start(name: str | Path, card: Mapping[str, Any]) -> Start:
    """The weights to go on from, which fit ``card``, that of the network to be trained without its training.

    Raises `ConfigError` for weights of another kind, network, kind of images or scale of the data, for a denoiser of
    another autoencoder's latents, and as `load_prior` does for files that cannot be used.
    """
    path = find_card(name)
    theirs = read_card(path)
    refuse_kind(name, theirs, card["network"]["kind"])
    inner = [found.get("autoencoder", {}).get("sha256") for found in (card, theirs)]
    if inner[0] != inner[1]:
        kinds = ["latents of an autoencoder" if digest else "images" for digest in inner]
        raise ConfigError(
            f"The training cannot go on from {name}.",
            f"It is a prior of {kinds[1]}{' of its own' if all(inner) else ''}, and this training is one of {kinds[0]}.",
            "Name weights that were trained with the same autoencoder, or with none where there is none.",
        )
    for key, value in what_fits(theirs).items():
        mine = what_fits(card).get(key)
        if mine != value:
            raise ConfigError(
                f"The training cannot go on from {name}.",
                f"Its card says {key} is {value}, and this training {mine}.",
                "Leave it out of the configuration, and it is taken from the card.",
            )
    tensors = read_tensors(theirs, path)
    return Start(str(name), theirs, {key: t for key, t in tensors.items() if not key.startswith(AUTOENCODER)})


def what_fits(card: Mapping[str, Any]) -> dict[str, Any]:
    """What two cards have in common whose weights can take each other's place."""
    said = {key: card[key] for key in ("complex_images", "sigma_data") if key in card}
    return said | make_network(card["network"]).options
