"""Settings against types: what does not fit is refused, each with its place in the file, before anything is made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import cache, partial
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from torch import Tensor

from ..errors import ConfigError, nearest
from .plain_yaml import line_at

Made = TypeVar("Made")
Keys = tuple[str | int, ...]
SCHEMA = ConfigDict(extra="forbid", allow_inf_nan=False)
"""Of a schema: every name is known, every number finite."""
STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)
"""Of one value: a number is no text and no truth value."""
OF_FILES = (str, int, float, bool, list, tuple, dict, Tensor, NoneType)
"""What a file of settings or a command line can hold."""
WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    NoneType: "null",
    Tensor: "an array",
    tuple: "a list",
    list: "a list",
    dict: "a mapping",
}


@dataclass(frozen=True)
class Origin:
    """Where settings were read: the path of a YAML file, None of settings made in Python."""

    path: Path | None = None

    def place(self, keys: Keys) -> str:
        """``grid.yaml, line 7: methods.dds.calls[0]``."""
        name = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")
        if self.path is None:
            return name or "The configuration"
        line = line_at(self.path.read_text(encoding="utf-8"), keys)
        return f"{self.path}, line {line}" + (f": {name}" if name else "")

    @contextmanager
    def placed(self, *keys: str | int) -> Iterator[None]:
        """Say in a `ConfigError` raised inside that it is about the settings at ``keys``."""
        try:
            yield
        except ConfigError as error:
            raise ConfigError(f"{self.place(keys)}: {error.what}", error.why, error.do) from error


def made_of(kind: type[Made], settings: Mapping[str, Any], origin: Origin) -> Made:
    """The pydantic dataclass ``kind`` made of ``settings``.

    Raises `ConfigError` for the first setting that does not fit, and names the places of all others.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(settings))
    except ValidationError as error:
        faults: dict[Keys, Any] = {}
        for fault in sorted(error.errors(), key=lambda fault: fault["type"].endswith("_type")):
            faults.setdefault(followed(settings, fault), fault)  # of a union, the member that nearly fits
    deepest = [keys for keys in faults if not any(other != keys == other[: len(keys)] for other in faults)]
    keys = deepest[0] if deepest else next(iter(faults))
    rest = [
        origin.place(other) for other in faults if other[: len(keys)] != keys and keys[: len(other)] != other
    ]
    what, why, do = explained_fault(kind, faults[keys], keys, settings)
    short = [place.removeprefix(f"{origin.path}, ") for place in rest[:5]]
    more = f"Also wrong: {'; '.join(short)}." if rest else ""
    raise ConfigError(f"{origin.place(keys)}{what}", why, " ".join(filter(None, (do, more))))


def followed(settings: Any, fault: Mapping[str, Any]) -> Keys:
    """The keys that lead to what pydantic found wrong, without its own names for the members of a union."""
    keys: list[str | int] = []
    for key in fault["loc"]:
        if (isinstance(settings, Mapping) and key in settings) or (
            isinstance(settings, list | tuple) and isinstance(key, int)
        ):
            settings = settings[key]
        else:
            continue
        keys.append(key)
    return tuple(keys)


def explained_fault(kind: Any, fault: Mapping[str, Any], keys: Keys, settings: Any) -> tuple[str, str, str]:
    """What goes after the place, why, and what to do."""
    own = fault.get("ctx", {}).get("error")
    if isinstance(own, ConfigError):
        return f": {own.what}", own.why, own.do
    if fault["type"] in ("unexpected_keyword_argument", "missing"):
        known = [field.name for field in fields(kind_at(kind, fault["loc"][:-1]))]
        takes = f"Here may stand {', '.join(known)}."
        if fault["type"] == "missing":
            return f" needs {fault['loc'][-1]}.", takes, f"Write {fault['loc'][-1]}: VALUE."
        return " is not a setting.", takes, nearest(str(keys[-1]), known)
    return f" is {fault['input']!r:.60}." if keys else " cannot be used.", in_our_words(fault["msg"]), ""


def in_our_words(message: str) -> str:
    """A message of pydantic as a sentence about a setting."""
    for theirs, ours in (
        ("Input should", "It should"),
        ("Value should", "It should"),
        (" after validation, not 0", ""),
        ("greater than or equal to", "at least"),
        ("less than or equal to", "at most"),
        ("a valid string", "text"),
        ("valid integer", "whole number"),
        ("valid number", "number"),
        ("valid dictionary", "mapping"),
        ("dictionary or an instance of", "mapping, of"),
        ("valid tuple", "list"),
    ):
        message = message.replace(theirs, ours)
    return f"{message}."


def kind_at(kind: Any, loc: Sequence[str | int]) -> Any:
    """The dataclass that stands at ``loc`` in the dataclass ``kind``."""
    for key in loc:
        kind = get_type_hints(kind)[str(key)] if is_dataclass(kind) else get_args(kind)[-1]
    return kind


# --- keyword arguments -------------------------------------------------------------------------------------


def refuse_misfits(target: Callable[..., Any], options: Mapping[str, Any], what: str) -> None:
    """Raise `ConfigError` for a plain value that is not of the type ``target`` is annotated with.

    Only of what this project defines: annotations of others need not be meant for values of a file.
    """
    while isinstance(target, partial):
        target = target.func
    if str(getattr(target, "__module__", "")).partition(".")[0] not in ("recon", "operators"):
        return
    hints = annotations_of(target)
    for key, value in options.items():
        if key in hints and isinstance(value, OF_FILES) and (wrong := misfit(value, hints[key])):
            shown = (
                f"an array of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)[:60]
            )
            raise ConfigError(f"{what} was given {shown} as {key}.", wrong, f"Correct {key}.")


@cache
def annotations_of(target: Callable[..., Any]) -> dict[str, Any]:
    """The types of the keyword arguments of a class or function; none where they are not to be had at run time."""
    try:
        return get_type_hints(target.__init__ if isinstance(target, type) else target, include_extras=True)
    except (NameError, TypeError):
        return {}


def misfit(value: Any, hint: Any) -> str:
    """Why a plain value is not of a type; nothing where it is, or where the type cannot be checked."""
    value = tuple(value) if isinstance(value, list) and "tuple" in str(hint) else value
    try:
        TypeAdapter(hint, config=STRICT).validate_python(value)
    except (PydanticSchemaGenerationError, PydanticUserError):
        return ""
    except ValidationError as error:
        annotated = get_origin(hint) is Annotated
        return in_our_words(error.errors()[0]["msg"]) if annotated else f"It is {type_in_words(hint)}."
    return ""


def type_in_words(hint: Any) -> str:
    """``float | None`` -> "a number or null"; types that no file can hold are left out."""
    origin, inside = get_origin(hint), get_args(hint)
    if hint in WORDS:
        return WORDS[hint]
    if origin in (tuple, list, Sequence):
        return f"a list of {type_in_words(inside[0]).removeprefix('a ')}s" if inside else "a list"
    if origin is dict:
        return WORDS[dict]
    words = dict.fromkeys(
        type_in_words(each) for each in inside if each in WORDS or get_origin(each) in WORDS
    )
    return " or ".join(words) or str(hint)
