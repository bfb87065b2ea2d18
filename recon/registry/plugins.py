"""Objects of the user's own: Python files imported as plugins, and names of the form ``module:Class``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from ..errors import ConfigError, unknown


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
