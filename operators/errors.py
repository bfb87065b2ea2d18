"""Errors of the operators: each says what, why, and what to do."""

from __future__ import annotations


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
