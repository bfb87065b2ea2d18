"""Errors on the command line: what happened, why, and what to do, a line each; and the exit codes they give."""

from __future__ import annotations

import sys
import traceback

from ..errors import ReconError


def print_error(error: Exception, debug: bool) -> None:
    """What, why and what to do on standard error; with ``debug`` the traceback too."""
    error = understood(error)
    if debug:
        traceback.print_exception(error)
    fields = [getattr(error, name, "") for name in ("what", "why", "do")]
    lines = [" ".join(line.split()) for line in fields if line] or [str(error)]
    print("recon: " + "\n  ".join(lines), file=sys.stderr)


def understood(error: Exception) -> Exception:
    """``error`` as one that says what to do."""
    if isinstance(error, ReconError) or hasattr(error, "what") or broken_law(error):
        return error
    from ..io.outcome import explained

    return explained(error)


def broken_law(error: Exception) -> bool:
    """Whether `operators.check` found an operator that is not what it says, known without importing torch."""
    return type(error).__name__ == "LawBroken"


def exit_code_of(error: Exception) -> int:
    """1 for an operator that breaks a law, which was measured; 2 for whatever could not be done at all."""
    return 1 if broken_law(error) else 2
