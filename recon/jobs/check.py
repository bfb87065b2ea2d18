"""The job behind ``recon check``: an operator of the user's own, measured against the laws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from operators import check

from ..registry.operators import build_operator


def check_operator(name: str, options: Mapping[str, Any]) -> str:
    """The error of each law that the operator ``name``, built from ``options``, keeps.

    Raises `operators.LawBroken` with the first that it breaks, `ConfigError` where it cannot be built.
    """
    operator = build_operator(name, options)
    report = check(operator)
    kind = "linear" if operator.linear else "nonlinear"
    images, data = ("complex" if c else "real" for c in (operator.complex_domain, operator.complex_codomain))
    width = max(map(len, report))
    lines = [
        f"{operator!r}: {kind}, {operator.dtype}",
        f"  {images} {operator.domain} -> {data} {operator.codomain}",
        *(f"  {law.ljust(width)}  {error:.1e}" for law, error in report.items()),
        "All laws hold.",
    ]
    return "\n".join(lines)
