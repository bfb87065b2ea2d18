"""Weights on disk: a safetensors file, and the JSON card beside it that says what network they are for.

Both come from anywhere, so everything is checked before it is used: the card by its keys and their
types, the names and shapes in the file's header by those of the card's network, and only then are numbers
read. No pickle is ever opened.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import ConfigError
from .autoencoder import Autoencoder
from .unet import UNet

NETWORKS: dict[str, type[nn.Module]] = {"UNet": UNet, "Autoencoder": Autoencoder}
AUTOENCODER = "autoencoder."  # before the names of an autoencoder's tensors, in the file of a latent prior
FLOATS = ("F16", "BF16", "F32", "F64")
LONGEST_CARD = 2**20  # bytes; a real one has some thousand
MOST_LEVELS, MOST_BLOCKS, MOST_CHANNELS = (
    16,
    64,
    2**20,
)  # what a card may ask for before its tensors are compared
AGAIN = "Copy both files again, from one training, or train anew with recon train."


@dataclass(frozen=True)
class Rule:
    """What a card's value has to be: ``holds(value)``, in words ``said``."""

    holds: Callable[[Any], bool]
    said: str


def is_number(value: Any) -> bool:
    """A number that float32 holds, and not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e38 < value < 1e38


def is_count(value: Any, most: int = MOST_CHANNELS) -> bool:
    """A whole number from 1 to ``most``."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def are_counts(value: Any, most: int = MOST_CHANNELS) -> bool:
    """A list of such, one a level."""
    return (
        isinstance(value, list) and 1 <= len(value) <= MOST_LEVELS and all(is_count(n, most) for n in value)
    )


NETWORK = Rule(
    lambda v: isinstance(v, dict) and v.get("kind") in list(NETWORKS),
    f"a network of kind {' or '.join(NETWORKS)}",
)
POSITIVE = Rule(lambda v: is_number(v) and v > 0, "a number above 0")
NUMBERS = Rule(lambda v: isinstance(v, list) and all(map(is_number, v)), "a list of numbers")
COUNT = Rule(is_count, "a whole number above 0")
BLOCKS = Rule(lambda v: is_count(v, MOST_BLOCKS), f"a whole number from 1 to {MOST_BLOCKS}")
WIDTHS = Rule(are_counts, f"a list of up to {MOST_LEVELS} whole numbers above 0")
EACH_BLOCKS = Rule(lambda v: are_counts(v, MOST_BLOCKS), f"a list of whole numbers from 1 to {MOST_BLOCKS}")
EVEN = Rule(lambda v: is_count(v) and v % 2 == 0, "an even number above 0")
SETTINGS = {
    "UNet": {"channels": COUNT, "widths": WIDTHS, "blocks": BLOCKS, "patch": BLOCKS, "embedding": EVEN},
    "Autoencoder": {
        "channels": COUNT,
        "latents": COUNT,
        "widths": WIDTHS,
        "encoder_blocks": EACH_BLOCKS,
        "decoder_blocks": EACH_BLOCKS,
    },
}
LATENTS = {"network": NETWORK, "latent_mean": NUMBERS, "latent_std": Rule(lambda v: NUMBERS.holds(v) and min(v, default=1) > 0, "a list of numbers above 0")}  # fmt: skip
KEYS: dict[str, dict[str, Rule]] = {
    "UNet": {
        "sigma_data": POSITIVE,
        "sigma_min": POSITIVE,
        "sigma_max": POSITIVE,
        "complex_images": Rule(lambda v: isinstance(v, bool), "true or false"),
    },
    "Autoencoder": LATENTS,
}
"""What a card of each network says besides."""


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
    rules = SETTINGS[network["kind"]]
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


def read_tensors(card: Mapping[str, Any], card_path: Path, verify: bool = True) -> dict[str, Tensor]:
    """The tensors beside a card that was checked, by name, as they are stored.

    Nothing is loaded before the header's names, shapes and dtypes are those of the card's network, so a
    card that asks for more than the file holds costs no memory. With ``verify`` the file's sha256 is
    the card's. Raises `ConfigError` for a file that is missing, damaged, of another kind or another
    network's, and for NaN or infinite weights.
    """
    path = card_path.with_suffix(".safetensors")
    if not path.is_file():
        raise ConfigError(
            f"There are no weights at {path}.", "The card has no weights beside it.", "Copy both files there."
        )
    try:
        with safe_open(path, "pt") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it is not a dict)
            found = {name: (tuple(part.get_shape()), str(part.get_dtype())) for name, part in parts.items()}
        compare(found, wanted_shapes(card), path)
        if verify and sha256(path) != card["sha256"]:
            raise ConfigError(
                f"{path} is not the file its card describes.",
                "The sha256 differs: it was changed, or cut short.",
                AGAIN,
            )
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in found}
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise damaged(path, error) from error
    bad = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise ConfigError(
            f"{path} holds NaN or infinite weights.",
            f"{bad[0]}{f' and {len(bad) - 1} more tensors' if len(bad) > 1 else ''}: its training diverged.",
            "Take an earlier checkpoint, or train anew with a smaller lr.",
        )
    return tensors


def damaged(path: Path, error: Exception) -> ConfigError:
    """The error for a file that is not safetensors; what looks like a pickle is named as one."""
    try:
        with open(path, "rb") as file:
            head = file.read(2)
    except OSError:
        head = b""
    if head in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return pickled(path)
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return ConfigError(
        f"{path} cannot be read as safetensors.",
        f"It is damaged, cut short or of another kind: {reason}.",
        AGAIN,
    )


def pickled(path: Path) -> ConfigError:
    """The error for a checkpoint of PyTorch, which is a pickle."""
    return ConfigError(
        f"{path} is a PyTorch checkpoint.",
        "It is a pickle, which can run code when it is opened; priors are safetensors with a JSON card beside them.",
        "Wrap your network instead, prior=recon.priors.from_eps(network, ...), and name it module:function.",
    )


def wanted_shapes(card: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a card's network, of a latent prior with its autoencoder's; no memory is taken."""
    parts = {"": card["network"]}
    if "autoencoder" in card:
        parts[AUTOENCODER] = card["autoencoder"]["network"]
    with WithoutMemory():
        return {
            prefix + name: tuple(tensor.shape)
            for prefix, settings in parts.items()
            for name, tensor in make_network(settings).state_dict().items()
        }


class WithoutMemory(TorchFunctionMode):
    """Parameters, which are made by `torch.empty`, have a shape alone, and nothing is written into them.

    Only that: `torch.device("meta")` for everything imports two seconds' worth of symbolic mathematics.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if args and name.endswith("_") and not name.endswith("__"):
            return args[0]
        return func(*args, **kwargs | {"device": "meta"}) if func is torch.empty else func(*args, **kwargs)


def make_network(settings: Mapping[str, Any]) -> Any:
    """The network of a card, its weights not yet loaded."""
    return NETWORKS[settings["kind"]](**{key: value for key, value in settings.items() if key != "kind"})


def compare(
    found: Mapping[str, tuple[tuple[int, ...], str]], wanted: Mapping[str, tuple[int, ...]], path: Path
) -> None:
    """Raises `ConfigError` if a file's tensors are not those of the network that its card describes."""

    def some(names: Iterable[str]) -> str:
        first, *more = sorted(names)
        return first[:60] + (f" and {len(more)} more" if more else "")

    shapes = [name for name in wanted if name in found and found[name][0] != wanted[name]]
    kinds = [name for name in wanted if name in found and found[name][1] not in FLOATS]
    if missing := wanted.keys() - found.keys():
        why = f"It has no tensor {some(missing)}."
    elif extra := found.keys() - wanted.keys():
        why = f"It has a tensor {some(extra)} that this network does not."
    elif shapes:
        why = f"{shapes[0]} has the shape {found[shapes[0]][0]}, that of the network is {wanted[shapes[0]]}."
    elif kinds:
        why = f"{kinds[0]} holds {found[kinds[0]][1]}; weights are {', '.join(FLOATS)}."
    else:
        return
    raise ConfigError(f"{path} does not hold the network that its card describes.", why, AGAIN)


def sha256(path: Path) -> str:
    """The digest of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
