"""The geometry block of a file: a mapping of names to lengths, as people write it, to a `Beam`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError, nearest
from .sinogram import KINDS, Beam

PART_NAMES = {
    "kind": ("geometry", "beam", "kind", "type"),
    "pitch": ("pitch", "pixelsizepost", "detectorpitch", "detectorpixelsize", "pixelsize"),
    "axis": ("axis", "rotationcenter", "rotationcentre", "rotationaxis", "center", "centre"),
    "source": ("source", "distancesourceorigin", "sourceaxis", "sourceorigin", "dso", "sod"),
    "detector": ("detector", "distancesourcedetector", "sourcedetector", "dsd", "sdd"),
    "pixel": ("pixel", "effectivepixelsizepost", "effectivepixelsize"),
    "size": ("size",),
    "detectors": ("detectors", "numdetectors"),
    "water": ("water", "muwater"),
    "unit": ("unit", "units"),
}
"""What each part of a `Beam` may be called, in small letters, without underscores and the unit at its end."""
UNITS = ("mm", "cm", "um", "m", "px")
LENGTHS = ("pitch", "source", "detector", "pixel")
NEEDED_LENGTHS = ("pitch", "source", "detector")
LARGEST = 2**16  # bytes of a sidecar


def parsed_block(text: str | bytes, where: str) -> dict[str, Any]:
    """The mapping in a text of JSON or plain YAML; raises `InputError` where it holds none."""
    import yaml

    text = text.decode(errors="replace") if isinstance(text, bytes) else text
    try:
        found = json.loads(text) if text.lstrip().startswith("{") else yaml.safe_load(text[:LARGEST])
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = (str(error).splitlines() or ["it is empty"])[0]
        raise InputError(
            f"The geometry in {where} cannot be read.",
            f"It is neither JSON nor YAML: {reason}.",
            'Write {"geometry": "parallel", "axis": 295.0}, for example.',
        ) from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise InputError(
            f"The geometry in {where} is not a mapping.",
            f"It is {type(found).__name__}.",
            'Write {"geometry": "parallel", "axis": 295.0}, for example.',
        )
    return found


def read_sidecar(path: Path) -> dict[str, Any]:
    """`parsed_block` of a file."""
    try:
        if path.stat().st_size > 64 * LARGEST:  # angles are listed in it
            raise InputError(f"{path} is too long for a geometry.", "It is read as text.", "Name another.")
        return parsed_block(path.read_bytes(), str(path))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read.", f"{error.strerror or error}.", "Check the path."
        ) from error


def beam_of(block: Mapping[str, Any], where: str, detectors: int) -> tuple[Beam, float | None, list[str]]:
    """The `Beam` of a geometry block, the attenuation of water if it says, and sentences on what was not understood.

    Names as in `PART_NAMES`; a unit may stand at the end of a name (``source_mm``) or under ``unit``, one for all lengths. Raises
    `InputError` for lengths in two units, values that are no numbers, and a number of detectors other than ``detectors``.
    """
    found: dict[str, Any] = {}
    units: dict[str, str] = {}
    unknown = []
    for key, value in block.items():
        name, unit = plain_name(key)
        part = next((part for part, names in PART_NAMES.items() if name in names), None)
        if part is None:
            unknown += (
                [key] if isinstance(value, int | float) else []
            )  # words describe, numbers were to do something
            continue
        found[part] = value
        if part in LENGTHS and unit:
            units[part] = unit
    numbers = {
        part: number(value, part, where) for part, value in found.items() if part not in ("kind", "unit")
    }
    kind = beam_kind(str(found.get("kind", "parallel")), where)
    unit = str(found.get("unit") or next(iter(units.values()), "detector"))
    other = {part: given for part, given in units.items() if given != unit}
    if other:
        raise InputError(
            f"The geometry in {where} gives lengths in {unit} and in {', '.join(other.values())}.",
            "All lengths are in one unit.",
            "Convert them.",
        )
    if kind == "parallel" and "pitch" not in numbers and unit == "px":
        unit = "detector"
    if numbers.get("detectors", detectors) != detectors:
        raise InputError(
            f"{where}: the sinogram has {detectors} detectors, the geometry says {numbers['detectors']:g}.",
            "The detectors are the last axis: (slices, angles, detectors).",
            "Transpose the sinogram, or correct the geometry.",
        )
    missing = [part for part in NEEDED_LENGTHS if part not in numbers]
    if kind != "parallel" and missing:
        raise InputError(
            f"The geometry in {where} has no {' and no '.join(missing)}.",
            f"A {kind} beam needs {', '.join(NEEDED_LENGTHS)}: distance of detectors, source to axis, source to detector.",
            f"Add them. {nearest(unknown[0], NEEDED_LENGTHS) if unknown else ''}".strip(),
        )
    lengths = {part: numbers[part] for part in LENGTHS if part in numbers}
    if kind == "parallel":
        lengths.pop("source", None)
        lengths.pop("detector", None)
    size = int(numbers["size"]) if "size" in numbers else None
    beam = Beam(kind, axis=numbers.get("axis"), unit=unit, size=size, **lengths)
    said = [f"the geometry's {', '.join(unknown)} {'is' if len(unknown) == 1 else 'are'} not used"]
    return beam, numbers.get("water"), said if unknown else []


def plain_name(key: str) -> tuple[str, str]:
    """A name in small letters without underscores, and the unit that stood at its end, "" for none."""
    words = re.split(r"[_\s-]+", key.strip().lower())
    unit = words.pop() if len(words) > 1 and words[-1] in UNITS else ""
    return "".join(words), unit


def beam_kind(text: str, where: str) -> str:
    """parallel, fan or cone, from a description that begins with it; raises `InputError`."""
    said = text.lower()
    kinds = [kind for kind in KINDS if re.search(rf"\b{kind}", said)]
    if len(kinds) != 1:
        raise InputError(
            f'The geometry in {where} is "{text[:60]}".',
            f"It is one of {', '.join(KINDS)}.",
            'Write "geometry": "fan", for example.',
        )
    if kinds[0] != "parallel" and re.search(r"curved|arc\b|equiangular", said):
        raise InputError(
            f'The geometry in {where} is "{text[:60]}".',
            "Rays of a curved detector are not spaced as those of a flat one.",
            "Rebin it to a flat detector, or to parallel rays.",
        )
    return kinds[0]


def number(value: Any, part: str, where: str) -> float:
    """A value as a number; raises `InputError`."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(
            f"The geometry in {where} says {part} is {value!r}.", "It is a number.", "Correct it."
        ) from None
