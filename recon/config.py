"""From names and YAML to objects: constructors called by keyword. The only file that maps names to objects."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from .errors import ConfigError, nearest, unknown

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
    from .resources import preset, presets

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


# --- objects of the user's own ---------------------------------------------------------------------------


def load_plugin(path: str | Path) -> str:
    """Import a Python file as a module of its stem's name, and return that name."""
    path = Path(path)
    name = path.stem
    if path.suffix != ".py" or not path.is_file():
        raise ConfigError(
            f"The plugin {path} is not there."
            if path.suffix == ".py"
            else f"The plugin {path} is no .py file.",
            "A plugin is a Python file.",
            "Check the path, or name a module that is installed: mylab.optics:Convolve.",
        )
    there = sys.modules.get(name)
    if there is not None and getattr(there, "__file__", None) != str(path.resolve()):
        raise ConfigError(
            f"The plugin {path} has the name of a module that is already imported.",
            f"{name} is {getattr(there, '__file__', 'a part of Python')}.",
            f"Rename the file, for example my_{name}.py.",
        )
    if there is None:
        spec = importlib.util.spec_from_file_location(name, path.resolve())
        assert spec is not None and spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            raise ConfigError(
                f"The plugin {path} failed when it was imported.",
                f"{type(error).__name__}: {error}",
                "Correct it.",
            ) from error
    return name


def find_object(name: str) -> Any:
    """The object at ``module:Class`` (or a dotted ``module.Class``); raises `ConfigError`."""
    module_name, _, attribute = name.partition(":") if ":" in name else name.rpartition(".")
    if not module_name or not attribute:
        raise ConfigError(f'"{name}" is no object.', "An object of your own is module:Class.", "Name both.")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"The module {module_name} cannot be imported.",
            f"{error}.",
            "Give its file with --plugin, or install it.",
        ) from error
    except Exception as error:
        raise ConfigError(
            f"The module {module_name} failed when it was imported.",
            f"{type(error).__name__}: {error}",
            "Correct it.",
        ) from error
    try:
        found: Any = module
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError:
        names = [n for n in vars(module) if not n.startswith("_")]
        raise unknown(f"object in {module_name}", attribute, names) from None
    return found


def admit(name: str, registry: dict[str, Any], kind: str) -> Any:
    """``registry[name]``; a ``module:Class`` is imported, and stands in the registry from then on."""
    if name not in registry:
        if ":" not in name:
            raise unknown(kind, name, registry)
        registry[name] = find_object(name)
    return registry[name]


def make_recipe(settings: Mapping[str, Any]) -> Any:
    """`recon.mri.Recipe` from settings by keyword, its solver, sampler and their options checked."""
    from .mri import Recipe
    from .posteriors import POSTERIORS
    from .solvers import SOLVERS

    for key, registry, kind in (("sampler", POSTERIORS, "sampler"), ("solver", SOLVERS, "solver")):
        if key in settings:
            admit(str(settings[key]), registry, kind)
    for key in ("steps", "samples", "sets", "seed"):
        value = settings.get(key, 1)
        if (not isinstance(value, int) or isinstance(value, bool)) and not (key == "sets" and value is None):
            raise ConfigError(f"{key} is {value!r}.", "It is a whole number.")
    if settings.get("steps") == 1 and "solver" not in settings:
        settings = {**settings, "solver": "sde-dpm++1"}  # the default's own first step
    solver, options = settings.get("solver", Recipe.solver), settings.get("solver_options")
    construct(SOLVERS[solver], options if isinstance(options, dict) else {}, f"The solver {solver}")
    recipe = construct(Recipe, settings, "A recipe")
    known, _, anything = parameters(POSTERIORS[recipe.sampler])
    if not anything:
        options = [key for key in known if key not in ("prior", "problem")]
        refuse_unknown(recipe.sampler_options, options, f"The sampler {recipe.sampler}")
    return recipe


def make_prior(name: str) -> Any:
    """A denoiser: by the name it ships under, the path of its weights, or ``module:factory`` (called bare)."""
    from .networks.load import load_prior, shipped

    path = Path(name)
    if ":" in name and path.suffix not in (".json", ".safetensors"):
        return construct(find_object(name), {}, f"The prior {name}")
    if path.suffix not in (".json", ".safetensors") and name not in shipped():
        raise ConfigError(
            f'There is no prior named "{name}".',
            f"Known: {', '.join(shipped()) or 'none'}.",
            nearest(name, shipped()) + " A prior of your own is named by the path of its .safetensors.",
        )
    return load_prior(name)
