"""From names and YAML to objects: constructors called by keyword. The only file that maps names to objects."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError, nearest, unknown

NUMBER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; raises `ConfigError` where there is none, or it is no mapping."""
    path = Path(path)
    try:
        found = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"The configuration {path} cannot be read.",
            f"{error.strerror or error}.",
            "Check the path, or name a preset.",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is not YAML.",
            " ".join(str(error).split()),
            "Write one `key: value` a line.",
        ) from error
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ConfigError(
            f"{path} holds no settings.", "A configuration is a mapping.", "Write one `key: value` a line."
        )
    return numbers(found)


def numbers(value: Any) -> Any:
    """YAML 1.1 reads ``1e-3`` as text; here it is a number, at any depth."""
    if isinstance(value, dict):
        return {key: numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [numbers(item) for item in value]
    if isinstance(value, str) and NUMBER.fullmatch(value):
        return float(value)
    return value


def read_config(name: str | Path) -> dict[str, Any]:
    """A configuration by the path of its YAML file, or by the name of a preset that ships."""
    if Path(name).exists() or Path(name).suffix in (".yaml", ".yml"):
        return read_yaml(name)
    from ..io.resources import preset, presets

    if str(name) not in presets():
        raise unknown("preset", str(name), presets())
    return read_yaml(preset(str(name)))


def construct(target: Callable[..., Any], options: Mapping[str, Any], what: str = "") -> Any:
    """``target(**options)``: keys that it does not take, or misses, are refused with the nearest names.

    Lists become tuples where the field of a dataclass is one. Raises `ConfigError`.
    """
    what = what or getattr(target, "__name__", str(target))
    known, required, anything = parameters(target)
    refuse_unknown(options, known, what) if not anything else None
    missing = [name for name in required if name not in options]
    if missing:
        raise ConfigError(
            f"{what} needs {', '.join(missing)}.",
            f"It takes {', '.join(known)}.",
            f"Give {missing[0]}=...",
        )
    kinds = {f.name: str(f.type) for f in fields(target)} if is_dataclass(target) else {}
    settled = {
        key: tuple(value) if isinstance(value, list) and "tuple" in kinds.get(key, "") else value
        for key, value in options.items()
    }
    try:
        return target(**settled)  # pyright: ignore[reportCallIssue]
    except (TypeError, AttributeError) as error:
        raise ConfigError(
            f"{what} cannot be made from {dict(options)}.",
            f"{type(error).__name__}: {error}.",
            "Check the type of each value.",
        ) from error


def refuse_unknown(options: Iterable[str], known: Iterable[str], what: str) -> None:
    known = list(known)
    for key in options:
        if key not in known:
            raise ConfigError(
                f'{what} has no setting "{key}".',
                f"It takes {', '.join(known) or 'none'}.",
                nearest(key, known),
            )


def parameters(target: Callable[..., Any]) -> tuple[list[str], list[str], bool]:
    """Names that a callable takes by keyword, those it needs, and whether it takes any name."""
    found = inspect.signature(target).parameters.values()
    named = [p for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    required = [p.name for p in named if p.default is p.empty]
    return [p.name for p in named], required, any(p.kind is p.VAR_KEYWORD for p in found)


def parse_options(pairs: Iterable[str]) -> dict[str, Any]:
    """``["k=v", "a.b=2"]`` -> ``{"k": "v", "a": {"b": 2}}``; values are YAML, and ``x.npy`` the tensor in it."""
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigError(
                f'"{pair}" is no setting.', "A setting is key=value.", f"Write {pair or 'key'}=VALUE."
            )
        place = options
        *outer, last = key.split(".")
        for name in outer:
            place = place.setdefault(name, {})
        try:
            place[last] = numbers(yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise ConfigError(f'"{pair}" cannot be read.', "Its value is no YAML.", "Quote it.") from error
        if value.endswith(".npy"):
            place[last] = read_tensor(value)
    return options


def read_tensor(path: str | Path) -> Any:
    """The array in a .npy file as a tensor; raises `ConfigError` where there is none."""
    import numpy as np
    import torch

    try:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"No tensor can be read from {path}.",
            f"{getattr(error, 'strerror', None) or error}.",
            "Save one with np.save.",
        ) from error
