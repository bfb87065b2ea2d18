"""JSON that any reader accepts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def json_text(value: Any, indent: int | None = None) -> str:
    """``value`` as JSON: infinities and NaN, which JSON does not have, are null; unknown objects their text."""
    return json.dumps(finite_or_null(value), indent=indent, default=str, allow_nan=False)


def finite_or_null(value: Any) -> Any:
    """``value`` with None for every number that is not finite, at any depth."""
    if isinstance(value, Mapping):
        return {key: finite_or_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
