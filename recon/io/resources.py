"""Files that ship with the package: presets and the demo input, in a checkout and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError, unknown

PACKAGE = Path(__file__).resolve().parent.parent
DEMO = "demo_brain.h5"


def shipped_folder(name: str) -> Path:
    """The folder ``configs`` or ``data``: inside the package of a wheel, beside it in a checkout."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name


def presets() -> list[str]:
    """Names of the presets that ship."""
    return sorted(path.stem for path in shipped_folder("configs").glob("*.yaml"))


def preset(name: str) -> Path:
    """The YAML file of a preset, by its name with or without ``.yaml``; raises `ConfigError` for an unknown one."""
    path = shipped_folder("configs") / f"{name.removesuffix('.yaml')}.yaml"
    if path.stem not in presets():
        raise unknown("preset", name, presets())
    return path


def demo_file() -> Path:
    """The synthetic k-space that ``recon demo`` reconstructs; raises `InputError` if it is missing."""
    path = shipped_folder("data") / DEMO
    if not path.is_file():
        raise InputError(
            f"There is no demo input at {path}.",
            "This installation is incomplete.",
            "Install again, or make it: python data/make_demo.py.",
        )
    return path
