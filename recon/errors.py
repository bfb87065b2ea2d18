"""Errors that a user can act on: each says what happened, why, and what to do.

ReconError
├── InputError    a file or array that cannot be used
├── ConfigError   a setting, name or combination that cannot be used
├── OutputError   a result that cannot be written, or would be overwritten
└── SamplingError a run that diverged
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

INTERRUPTED = 130
"""The exit code that shells give to a program ended by Ctrl-C."""


class ReconError(ValueError):
    """One line each: ``what`` happened, ``why``, and what to ``do``; empty lines are left out."""

    def __init__(self, what: str, why: str = "", do: str = ""):
        self.what, self.why, self.do = what, why, do
        super().__init__("\n".join(line for line in (what, why, do) if line))

    def __reduce__(self) -> tuple:
        return type(self), (self.what, self.why, self.do)  # from one process to another, line by line


class InputError(ReconError):
    """A file or array that cannot be used."""


class ConfigError(ReconError):
    """A setting, a name or a combination that cannot be used."""


class OutputError(ReconError):
    """A result that cannot be written, or an older one that would be overwritten."""


class SamplingError(ReconError):
    """A run that diverged: sampler, step, sigma, and the knob to turn."""


def nearest(name: str, names: Iterable[str]) -> str:
    """``Did you mean "ddim"?`` for an unknown name, else the list of known names."""
    known = sorted(map(str, names))
    close = get_close_matches(str(name).lower(), known, n=3, cutoff=0.6)
    if close:
        return "Did you mean " + " or ".join(f'"{c}"' for c in close) + "?"
    return f"Known names: {', '.join(known)}." if known else "No names are known here."


def unknown(kind: str, name: str, names: Iterable[str]) -> ConfigError:
    """The error for a name that is not that of a ``kind`` (solver, sampler, mask, ...), with the nearest known ones."""
    names = sorted(map(str, names))
    return ConfigError(
        f'There is no {kind} named "{name}".', f"Known: {', '.join(names) or 'none'}.", nearest(name, names)
    )
