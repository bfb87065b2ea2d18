"""Objects of the user's own: Python files imported as plugins, and names of the form ``module:Class``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import ConfigError, unknown

PLUGINS: dict[str, ModuleType] = {}
"""What `load_plugin` imported: a bare name that is not the project's own is looked up in these, newest first."""


def load_plugin(path: str | Path) -> str:
    """Import a Python file as a module of its stem's name, and return that name; raises `ConfigError`."""
    path = Path(path)
    name = path.stem
    if path.suffix != ".py":
        raise ConfigError(f"The plugin {path} is not a .py file.", "A plugin is a Python file.", INSTALLED)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ConfigError(f"The plugin {path} {what}.", "A plugin is a Python file.", INSTALLED)
    imported = sys.modules.get(name)
    if imported is not None and getattr(imported, "__file__", None) != str(path.resolve()):
        raise ConfigError(
            f"The plugin {path} has the name of a module that is already imported.",
            f"{name} is {getattr(imported, '__file__', 'a part of Python')}.",
            f"Rename the file, for example my_{name}.py.",
        )
    if imported is None:
        spec = importlib.util.spec_from_file_location(name, path.resolve())
        assert spec is not None and spec.loader is not None
        imported = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(imported)
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            raise failed_import(f"The plugin {path}", error) from error
    PLUGINS.pop(name, None)
    PLUGINS[name] = imported
    return name


INSTALLED = "Check the path, or name a module that is installed: mylab.optics:Convolve."


def is_own(name: str) -> bool:
    """Whether `find_object` looks for ``name``: ``module:Class``, or a bare name that a plugin has."""
    return ":" in name or any(hasattr(plugin, name) for plugin in PLUGINS.values())


def find_object(name: str) -> Any:
    """The object at ``module:Class``, or of a bare name in a plugin; raises `ConfigError`.

    A module is looked for where Python looks, then in the current folder; without a plugin ``module.Class`` will do.
    """
    if ":" in name:
        module_name, _, attribute = name.partition(":")
    elif holders := [plugin for plugin in PLUGINS if hasattr(PLUGINS[plugin], name)] or list(PLUGINS):
        module_name, attribute = holders[-1], name
    else:
        module_name, _, attribute = name.rpartition(".")
    if not module_name or not attribute:
        raise ConfigError(
            f'"{name}" does not say where the object is.',
            "An object of your own is module:Class, or a bare Class of the file that --plugin names.",
            "Name the module too, or give --plugin FILE.py.",
        )
    found: Any = PLUGINS.get(module_name) or import_own(module_name)
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError:
        names = [n for n in vars(sys.modules[module_name]) if not n.startswith("_")]
        raise unknown(f"object in {module_name}", attribute, names) from None
    return found


def import_own(name: str) -> ModuleType:
    """The module ``name``; the current folder joins the import path, at its end, where the module needs it.

    At the end, so that no file in the folder stands in for a module that is installed. Raises `ConfigError`.
    """
    try:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name.partition(".")[0] or str(Path.cwd()) in sys.path:
                raise
            sys.path.append(str(Path.cwd()))
            importlib.invalidate_caches()
            return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"The module {name} cannot be imported.",
            f"{error}.",
            "Give its file with --plugin, or run in the folder that it is in.",
        ) from error
    except (Exception, SystemExit) as error:
        raise failed_import(f"The module {name}", error) from error


def failed_import(what: str, error: BaseException) -> ConfigError:
    """The error for a module of the user's own that raises when it is imported."""
    return ConfigError(
        f"{what} failed when it was imported.", f"{type(error).__name__}: {error}", "Correct it."
    )
