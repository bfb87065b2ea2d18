"""Errors of the operators: each says what, why, and what to do; also where a package is missing."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


class OperatorError(ValueError):
    """An input that an operator cannot take: ``what`` happened, ``why``, and what to ``do``."""

    def __init__(self, what: str, why: str = "", do: str = ""):
        self.what, self.why, self.do = what, why, do
        super().__init__("\n".join(line for line in (what, why, do) if line))


class LawBroken(AssertionError):
    """``check`` measured an operator against a law it does not keep: ``law``, ``error``, ``bound``."""

    def __init__(self, law: str, error: float, bound: float, hint: str = ""):
        self.law, self.error, self.bound = law, error, bound
        text = f"{law}: measured error {error:.3g}, allowed {bound:.3g}."
        super().__init__(f"{text} {hint}".strip())


def import_extra(
    package: str,
    extra: str,
    use: str,
    error: Callable[[str, str, str], Exception] = OperatorError,
    parts: tuple[str, ...] = (),
) -> Any:
    """The module ``package``, and its ``parts`` within it, which come with the extra ``extra`` of this project.

    Raises ``error`` with the pip line where one cannot be imported; ``use`` begins that: "NIfTI is written with".
    """
    try:
        module = import_module(package)
        for part in parts:
            import_module(f"{package}.{part}")
    except ImportError as missing:
        raise error(
            f"{use} the package {package}, which is not installed.",
            f"{missing}.",
            f"Install it: pip install 'recon-posterior[{extra}]'",
        ) from missing
    return module
