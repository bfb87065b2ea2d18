"""Tensors in files that come from anywhere, by name: safetensors, and pickles of tensors alone. No code is ever run."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ...errors import ConfigError
from ..card import AGAIN, LONGEST_CARD
from ..weights import damaged

PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle")
EXPORTED = ".pt2"
EXPORT = "In its own project: safetensors.torch.save_file(network.state_dict(), 'network.safetensors'); then load that file."
EMA = ("ema_model", "model_ema", "params_ema", "ema_state_dict", "ema")
NESTED = ("state_dict", "model_state_dict", "model", "net", "network", "unet", "params", "module", "weights")


def read_tensors_of(path: Path) -> dict[str, Tensor]:
    """The tensors of a network in a file, by name: the averaged ones (EMA) where it has both.

    A training's file holds them below ``model``, ``state_dict`` or the like, and averages as such a mapping, or
    as a list ``shadow_params`` in the order of the network's parameters. Raises `ConfigError` for a file
    that is damaged, that needs code (a pickle of objects, TorchScript), or without a network's tensors.
    """
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is not a dict)
        except Exception as error:  # of safetensors, of the system, of torch
            raise damaged(path, error) from error
    return network_tensors(unpickled(path), path)


def unpickled(path: Path) -> Any:
    """What a file of `torch.save` holds, if it is made of tensors and plain values; raises `ConfigError`."""
    if is_script(path):
        raise ConfigError(
            f"{path} is a TorchScript program.",
            "It is code, which is run when it is opened.",
            "Save its network with torch.export.save(torch.export.export(network, ...), 'network.pt2'), or its state_dict as safetensors.",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the pickle's age; what cannot be read is said below
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read.", f"{error.strerror or error}.", "Check who may read it."
        ) from error
    except Exception as error:  # of the reader, whatever the bytes make it raise
        names = code_needed(path)
        if names or begins_as_pickle(path):
            raise ConfigError(
                f"{path} needs code to be opened{': ' + ', '.join(names[:3]) if names else ''}.",
                "It is a pickle of objects and not of tensors alone, and opening it would run what it names.",
                EXPORT,
            ) from error
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:120]
        raise ConfigError(
            f"{path} cannot be read as a PyTorch checkpoint.",
            f"It is damaged, cut short or of another kind: {reason}.",
            "Copy it again from where it comes.",
        ) from error


def is_script(path: Path) -> bool:
    """Whether a file is an archive of TorchScript."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def begins_as_pickle(path: Path) -> bool:
    """Whether a file's first byte is a pickle's."""
    with open(path, "rb") as file:
        return file.read(1) == b"\x80"


def code_needed(path: Path) -> list[str]:
    """The functions and classes that a pickle names and that are not of tensors."""
    try:
        return list(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # not an archive, or damaged
        return []


def network_tensors(loaded: Any, path: Path) -> dict[str, Tensor]:
    """The mapping of a network's tensors in what was loaded; raises `ConfigError` where there is none."""
    if isinstance(loaded, Mapping):
        averages = loaded.get("ema")
        plain = next(mappings(loaded, NESTED), None)
        if isinstance(averages, Mapping) and isinstance(averages.get("shadow_params"), list) and plain:
            return with_averages(plain, averages["shadow_params"], path)
        for found in (*mappings(loaded, EMA), plain, tensors_in(loaded)):
            if found:
                return found
    raise ConfigError(
        f"{path} holds no network's weights.",
        f"It is a {type(loaded).__name__}"
        + (f" of {', '.join(map(str, list(loaded)[:5]))}" if isinstance(loaded, Mapping) and loaded else "")
        + "; weights are tensors by name, alone or below one of "
        + f"{', '.join((*EMA, *NESTED)[:8])}.",
        EXPORT,
    )


def mappings(loaded: Mapping[Any, Any], names: tuple[str, ...]) -> Iterator[dict[str, Tensor]]:
    """The tensors below each of ``names`` that has some."""
    for name in names:
        inner = loaded.get(name)
        if isinstance(inner, Mapping) and (found := tensors_in(inner)):
            yield found


def tensors_in(values: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors of a mapping whose names are texts."""
    return {k: v for k, v in values.items() if isinstance(k, str) and isinstance(v, Tensor)}


NOT_TRAINED = ("sigmas", ".W", ".freqs", ".resample_filter", "num_batches_tracked")


def with_averages(tensors: dict[str, Tensor], averages: list[Any], path: Path) -> dict[str, Tensor]:
    """``tensors`` with the trained ones replaced by ``averages``, a list in their order."""
    trained = [name for name in tensors if not name.endswith(NOT_TRAINED) or is_pixel_linear(name)]
    shapes = [tuple(tensors[name].shape) for name in trained]
    if shapes != [tuple(getattr(value, "shape", ())) for value in averages]:
        raise ConfigError(
            f"{path} has {len(averages)} averaged parameters, its network {len(trained)}.",
            "The list has no names: order and shapes have to be those of the network's parameters.",
            EXPORT,
        )
    return tensors | dict(zip(trained, averages, strict=True))


def is_pixel_linear(name: str) -> bool:
    """Whether a tensor is that of a layer named NIN, which is trained, though it is named W as fixed ones are."""
    return name.rpartition(".")[0].rpartition(".")[2].startswith("NIN_")


def options_beside(path: Path) -> dict[str, Any]:
    """The options in ``<name>.json`` beside a checkpoint, {} without one; raises `ConfigError`."""
    beside = path / "recon.json" if path.is_dir() else path.with_suffix(".json")
    if not beside.is_file():
        return {}
    try:
        if beside.stat().st_size > LONGEST_CARD:
            raise ValueError("it is too long")
        found = json.loads(beside.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it is not a mapping")
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{beside} cannot be read.", f"It is to hold options of {path.name} as JSON: {error}.", AGAIN
        ) from error
    return found
