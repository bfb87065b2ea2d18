"""The JSON card beside weights: what it must say before a network is built from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError

LONGEST_CARD = 2**20  # bytes; a real one has some thousand
MOST_LEVELS, MOST_BLOCKS, MOST_CHANNELS = 16, 64, 2**20  # of any card: its tensors are compared later
AGAIN = "Copy both files again, from one training, or train anew with recon train."


@dataclass(frozen=True)
class Rule:
    """A condition on a value of a card: ``holds(value)``; ``said`` in words."""

    holds: Callable[[Any], bool]
    said: str


def fits_float32(value: Any) -> bool:
    """Whether a value is a number, not a bool, that float32 can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e38 < value < 1e38


def is_count(value: Any, most: int = MOST_CHANNELS) -> bool:
    """Whether a value is a whole number from 1 to ``most``."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def are_counts(value: Any, most: int = MOST_CHANNELS) -> bool:
    """Whether a value is a list of such numbers, one per level."""
    return (
        isinstance(value, list) and 1 <= len(value) <= MOST_LEVELS and all(is_count(n, most) for n in value)
    )


NETWORK = Rule(
    lambda v: isinstance(v, dict) and v.get("kind") in list(NETWORK_SETTINGS),
    "a network of kind UNet or Autoencoder",
)
POSITIVE = Rule(lambda v: fits_float32(v) and v > 0, "a number above 0")
NUMBERS = Rule(lambda v: isinstance(v, list) and all(map(fits_float32, v)), "a list of numbers")
COUNT = Rule(is_count, "a whole number above 0")
BLOCKS = Rule(lambda v: is_count(v, MOST_BLOCKS), f"a whole number from 1 to {MOST_BLOCKS}")
WIDTHS = Rule(are_counts, f"a list of up to {MOST_LEVELS} whole numbers above 0")
EACH_BLOCKS = Rule(lambda v: are_counts(v, MOST_BLOCKS), f"a list of whole numbers from 1 to {MOST_BLOCKS}")
EVEN_COUNT = Rule(lambda v: is_count(v) and v % 2 == 0, "an even number above 0")
NETWORK_SETTINGS = {
    "UNet": {"channels": COUNT, "widths": WIDTHS, "blocks": BLOCKS, "patch": BLOCKS, "embedding": EVEN_COUNT},
    "Autoencoder": {
        "channels": COUNT,
        "latents": COUNT,
        "widths": WIDTHS,
        "encoder_blocks": EACH_BLOCKS,
        "decoder_blocks": EACH_BLOCKS,
    },
}
POSITIVE_NUMBERS = Rule(lambda v: NUMBERS.holds(v) and min(v, default=1) > 0, "a list of numbers above 0")
LATENTS = {"network": NETWORK, "latent_mean": NUMBERS, "latent_std": POSITIVE_NUMBERS}
KEYS: dict[str, dict[str, Rule]] = {
    "UNet": {
        "sigma_data": POSITIVE,
        "sigma_min": POSITIVE,
        "sigma_max": POSITIVE,
        "complex_images": Rule(lambda v: isinstance(v, bool), "true or false"),
    },
    "Autoencoder": LATENTS,
}
"""What the card of each network says in addition."""


def read_card(path: Path) -> dict[str, Any]:
    """The card at ``path``, every value that a network is built from checked; raises `ConfigError`."""
    try:
        if path.stat().st_size > LONGEST_CARD:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        card = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"The card {path} cannot be read.", f"{error.strerror or error}.", "Check who may read it."
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path} is not the card of a network.", f"It is not JSON: {error}.", AGAIN
        ) from error
    if not isinstance(card, dict) or "network" not in card:
        raise ConfigError(
            f"{path} is not the card of a network.",
            'A card is a mapping with "network", "sha256" and others that recon train writes.',
            AGAIN,
        )
    check_keys(card, {"network": NETWORK, "sha256": Rule(lambda v: isinstance(v, str), "a text")}, path)
    kind = card["network"]["kind"]
    check_network(card["network"], path)
    check_keys(card, KEYS[kind], path)
    if kind == "Autoencoder":
        check_latents(card, path)
    else:
        check_prior(card, path)
    return card


def check_keys(values: Mapping[str, Any], rules: Mapping[str, Rule], path: Path) -> None:
    """Raises `ConfigError` for a key that is missing or breaks its rule."""
    for key, rule in rules.items():
        if key not in values:
            raise ConfigError(f'The card {path} has no "{key}".', f"It is {rule.said}.", AGAIN)
        if not rule.holds(values[key]):
            raise wrong_value(path, key, values[key], rule.said)


def wrong_value(path: Path, key: str, value: Any, wanted: str) -> ConfigError:
    """The error for a value that the card may not have."""
    shown = repr(value) if len(repr(value)) < 60 else f"{repr(value)[:60]}..."
    return ConfigError(f'The card {path} says "{key}" is {shown}.', f"It is {wanted}.", AGAIN)


def check_network(network: Mapping[str, Any], path: Path) -> None:
    """Raises `ConfigError` for settings that the network does not take, or not as they are."""
    rules = NETWORK_SETTINGS[network["kind"]]
    for key, value in network.items():
        if key != "kind" and key not in rules:
            raise ConfigError(
                f'The card {path} has a network with "{key}".',
                f"A {network['kind']} takes {', '.join(rules)}.",
                AGAIN,
            )
        if key != "kind" and not rules[key].holds(value):
            raise wrong_value(path, key, value, rules[key].said)
    levels = len(network["widths"]) if "widths" in network else 2
    for key in ("encoder_blocks", "decoder_blocks"):
        if network["kind"] == "Autoencoder" and len(network.get(key, (0, 0))) != levels:
            raise wrong_value(path, key, network.get(key), f"one number for each of the {levels} widths")


def check_latents(card: Mapping[str, Any], path: Path) -> None:
    """Raises `ConfigError` for an autoencoder that says too little of its latents."""
    count = card["network"].get("latents", 4)
    for key in ("latent_mean", "latent_std"):
        if len(card[key]) != count:
            raise wrong_value(
                path, key, card[key], f"one number for each of the {count} channels of the latents"
            )


def check_prior(card: Mapping[str, Any], path: Path) -> None:
    """Raises `ConfigError` for a prior whose parts do not fit each other."""
    if card["sigma_min"] >= card["sigma_max"]:
        raise wrong_value(path, "sigma_min", card["sigma_min"], f'below "sigma_max", {card["sigma_max"]}')
    if card.get("parametrisation", "edm") != "edm":
        raise wrong_value(
            path, "parametrisation", card["parametrisation"], '"edm", the only one that is read'
        )
    channels, wanted = card["network"].get("channels", 2), 2 if card["complex_images"] else None
    if "autoencoder" in card:
        inner = card["autoencoder"]
        if not isinstance(inner, dict):
            raise wrong_value(path, "autoencoder", inner, "a mapping")
        check_keys(inner, LATENTS, path)
        if inner["network"]["kind"] != "Autoencoder":
            raise wrong_value(path, "kind", inner["network"]["kind"], '"Autoencoder" for an autoencoder')
        check_network(inner["network"], path)
        check_latents(inner, path)
        images = inner["network"].get("channels", 2)
        if wanted not in (None, images):
            raise wrong_value(path, "channels", images, "2 for complex images")
        wanted = inner["network"].get("latents", 4)
    if wanted not in (None, channels):
        raise wrong_value(path, "channels", channels, f"{wanted} for what it is a prior of")
