"""Settings: read from YAML and from the command line, and given to constructors by keyword."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, cast

from ..errors import ConfigError, ReconError, nearest, unknown
from ..io.images import PICTURES, read_array
from .plain_yaml import MOST_CHARACTERS, MOST_LEVELS, read_plain
from .schema import refuse_misfits


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, {} of an empty one; raises `ConfigError` for everything else."""
    path = Path(path)
    try:
        with open(path, encoding="utf-8") as file:
            found = read_plain(file.read(MOST_CHARACTERS + 1))
    except OSError as error:
        raise ConfigError(
            f"The configuration {path} cannot be read.",
            f"{error.strerror or error}.",
            "Check the path, or name a preset.",
        ) from error
    except ValueError as error:  # of the text, or of its encoding
        raise ConfigError(
            f"{path} cannot be read as a configuration.", f"{error}.", "Write one `key: value` per line."
        ) from error
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ConfigError(
            f"{path} holds no settings.",
            "A configuration is a mapping of names to values.",
            "Write one `key: value` per line.",
        )
    return found


def read_config(name: str | Path) -> dict[str, Any]:
    """A configuration by the path of its YAML file, or by the name of a preset that ships."""
    return read_yaml(config_file(name))


def config_file(name: str | Path) -> Path:
    """The YAML file ``name``, or that of the preset ``name``; raises `ConfigError` for an unknown one."""
    if Path(name).exists() or Path(name).suffix in (".yaml", ".yml"):
        return Path(name)
    from ..io.resources import preset, presets

    if str(name) not in presets():
        raise unknown("preset", str(name), presets())
    return Path(preset(str(name)))


def construct(target: Callable[..., Any], options: Mapping[str, Any], what: str = "") -> Any:
    """``target(**options)``; a key that it does not take is refused with the nearest names, as is a missing one.

    So is a value of another type than the one that ``target`` is annotated with (`schema.refuse_misfits`).
    Lists become tuples where the field of a dataclass is a tuple. Raises `ConfigError`.
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
    kinds = {f.name: str(f.type) for f in fields(cast(Any, target))} if is_dataclass(target) else {}
    settled = {
        key: tuple(value) if isinstance(value, list) and "tuple" in kinds.get(key, "") else value
        for key, value in options.items()
    }
    try:
        made = target(**settled)  # pyright: ignore[reportCallIssue]
    except (TypeError, AttributeError) as error:
        refuse_misfits(cast(Any, target), options, what)
        raise ConfigError(
            f"{what} cannot be made from {options_in_words(options)}.",
            f"{type(error).__name__}: {error}.",
            f"Check the type of each value; that of a file ends in {', '.join(ARRAYS)}.",
        ) from error
    refuse_misfits(cast(Any, target), options, what)  # after its own words for what it does not take
    return made


def options_in_words(options: Mapping[str, Any]) -> str:
    """Options in words; of a tensor its shape."""
    words = {
        key: f"array {tuple(value.shape)}" if hasattr(value, "shape") else repr(value)
        for key, value in options.items()
    }
    return ", ".join(f"{key}={word[:60]}" for key, word in words.items()) or "no options"


def refuse_unknown(options: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raise `ConfigError` for the first of ``options`` that ``what`` does not know, with the nearest names."""
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
    """``["k=v", "a.b=2"]`` -> ``{"k": "v", "a": {"b": 2}}``.

    Values are YAML; a name that ends as an array or a picture (`ARRAYS`) stands for the tensor in that
    file. Raises `ConfigError`.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigError(
                f'"{pair}" is not a setting.', "A setting is key=value.", f"Write {pair or 'key'}=VALUE."
            )
        *outer, last = key.split(".", MOST_LEVELS)
        inner: Any = options
        for name in outer:
            inner = inner.setdefault(name, {}) if isinstance(inner, dict) else None
        if not isinstance(inner, dict) or last in inner or "." in last:
            raise ConfigError(
                f'"{key}" cannot be set.', "It is given twice, or inside a value.", "Give it once."
            )
        inner[last] = option_value(pair, value)
    return options


def parse_solver(text: str) -> tuple[str, dict[str, Any]]:
    """``"ddim,eta=1"`` -> ``("ddim", {"eta": 1})``; raises `ConfigError`."""
    name, *options = text.split(",")
    return name, parse_options(options)


ARRAYS = (".npy", *PICTURES)


def files_of_options(pairs: Iterable[str]) -> list[str]:
    """The files that `parse_options` reads arrays from."""
    values = (pair.partition("=")[2] for pair in pairs)
    return [value for value in values if value.lower().endswith(ARRAYS)]


def option_value(pair: str, value: str) -> Any:
    """What the text ``value`` of the setting ``pair`` stands for; raises `ConfigError`."""
    try:
        if value.lower().endswith(ARRAYS):
            return read_array(value)
        return read_plain(value)
    except ReconError as error:
        raise ConfigError(f"{pair}: {error.what}", error.why, error.do) from error
    except ValueError as error:
        raise ConfigError(
            f'"{pair}" cannot be read.', f"Its value is not YAML: {error}.", "Quote it."
        ) from error
