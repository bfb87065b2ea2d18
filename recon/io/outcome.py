"""What becomes of a job's inputs: results, and failures that say what to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from operators.errors import OperatorError

from ..errors import OutputError, ReconError

INTERRUPTED = 130  # the shell's exit code for Ctrl-C


@dataclass(frozen=True)
class Failure:
    """An input that could not be done, and why."""

    path: Path
    error: Exception


@dataclass
class Outcome:
    """What became of the inputs: result files (``fresh`` ones made now), and failures."""

    done: list[Path] = field(default_factory=list)
    fresh: list[Path] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """0: all done; 1: some failed; 2: nothing usable; 130: interrupted."""
        if self.interrupted:
            return INTERRUPTED
        if not self.failures:
            return 0
        return 1 if self.done else 2


def explained(error: Exception, path: Path) -> Exception:
    """``error`` as one that names the file and what to do."""
    if isinstance(error, ReconError | OperatorError):
        if str(path) in error.what or str(path.name) in error.what:
            return error
        return chained(type(error)(f"{path}: {error.what}", error.why, error.do), error)
    if is_out_of_memory(error):
        return chained(out_of_memory(f"{path}: there is not enough memory."), error)
    if isinstance(error, OSError):
        what = f"{path}: a file cannot be read or written."
        why = f"{error.strerror or error}" + (f" ({error.filename})." if error.filename else ".")
        return chained(OutputError(what, why, "Free space, or choose another folder with --out."), error)
    return chained(
        ReconError(
            f"{path} failed: {type(error).__name__}: {error}",
            "This is a fault of the program or of a plugin, not of the file.",
            "Run again with --debug to see where.",
        ),
        error,
    )


def chained(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def is_out_of_memory(error: BaseException) -> bool:
    """torch says it in its own error on a GPU, and in a plain RuntimeError on a processor."""
    said = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(s in said for s in ("can't allocate memory", "out of memory"))
    )


def out_of_memory(what: str) -> ReconError:
    return ReconError(
        what,
        "All samples of a slice go through the network together.",
        "Use --chunk 1, then fewer --samples, or --device cpu.",
    )
