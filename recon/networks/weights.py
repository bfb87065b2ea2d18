"""Weights on disk: a safetensors file, read only if it holds the network that its card describes.

Files come from anywhere. Names, shapes and dtypes in the file's header are compared with those of the card's
network before any number is read, so that nothing large is allocated for what cannot be used. No pickle is ever opened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import ConfigError
from .autoencoder import Autoencoder
from .card import AGAIN
from .unet import UNet

NETWORKS: dict[str, type[nn.Module]] = {"UNet": UNet, "Autoencoder": Autoencoder}
AUTOENCODER = "autoencoder."  # before the names of an autoencoder's tensors, in the file of a latent prior
FLOATS = ("F16", "BF16", "F32", "F64")


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
        check_tensors(found, wanted_shapes(card), path)
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
        return checkpoint_error(path)
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return ConfigError(
        f"{path} cannot be read as safetensors.",
        f"It is damaged, cut short or of another kind: {reason}.",
        AGAIN,
    )


def checkpoint_error(path: Path) -> ConfigError:
    """The error for a checkpoint of PyTorch, which is a pickle."""
    return ConfigError(
        f"{path} is a PyTorch checkpoint.",
        "It is a pickle, which can run code when it is opened; what is wanted are safetensors with a JSON card beside them.",
        "Copy those; a prior of another project keeps its suffix (.pt, .pth, .ckpt, .bin), and no card is beside it.",
    )


def wanted_shapes(card: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that a card asks for, an autoencoder's included; takes no memory."""
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
        if name.endswith("_") and not name.endswith("__") and (args or "tensor" in kwargs):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs | {"device": "meta"}) if func is torch.empty else func(*args, **kwargs)


def make_network(settings: Mapping[str, Any]) -> Any:
    """The network of a card, its weights not yet loaded."""
    return NETWORKS[settings["kind"]](**{key: value for key, value in settings.items() if key != "kind"})


def check_tensors(
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
