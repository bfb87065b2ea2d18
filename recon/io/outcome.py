"""What becomes of a job's inputs: results, and failures that say what to do."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from operators.errors import OperatorError

from ..errors import INTERRUPTED, OutputError, ReconError


@dataclass(frozen=True)
class Failure:
    """An input that could not be done, and why."""

    path: Path
    error: Exception


@dataclass
class Outcome:
    """What became of the inputs: result files (``fresh`` ones made now), and failures, of which ``fail`` is told."""

    done: list[Path] = field(default_factory=list)
    fresh: list[Path] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    interrupted: bool = False
    fail: Callable[[Failure], object] = lambda failure: None

    def failed(self, path: Path, error: Exception) -> None:
        """Keep the failure of the input at ``path``, its error as one that says what to do, and tell of it."""
        self.failures.append(Failure(path, explained(error, path)))
        self.fail(self.failures[-1])

    @property
    def exit_code(self) -> int:
        """0: all done; 1: some failed; 2: nothing usable; 130: interrupted."""
        if self.interrupted:
            return INTERRUPTED
        if not self.failures:
            return 0
        return 1 if self.done else 2


def explained(error: Exception, path: Path | None = None) -> Exception:
    """``error`` as one that says what to do, and names the input at ``path`` that it is about."""
    if isinstance(error, ReconError | OperatorError):
        if path is None or str(path) in error.what or str(path.name) in error.what:
            return error
        return chained(type(error)(f"{path}: {error.what}", error.why, error.do), error)
    named = "" if path is None else f"{path}: "
    if is_out_of_memory(error):
        return chained(out_of_memory(f"{named}there is not enough memory."), error)
    if isinstance(error, OSError):
        what = f"{named}a file or folder cannot be read or written."
        why = f"{error.strerror or error}" + (f": {error.filename}." if error.filename else ".")
        return chained(OutputError(what, why, REMEDIES.get(error.errno or 0, CHECK_ALL)), error)
    return chained(
        ReconError(
            f"{path or 'recon'} failed: {type(error).__name__}: {error}",
            "This is a fault of the program or of a plugin" + (", not of the file." if path else "."),
            "Run again with --debug to see where.",
        ),
        error,
    )


FREE_SPACE = "Free space, or choose another folder with --out."
CHECK_ACCESS = "Check who may read and write it."
CHECK_ALL = "Check the path, the disk, and who may read and write there."
REMEDIES = {
    errno.ENOSPC: FREE_SPACE,
    getattr(errno, "EDQUOT", errno.ENOSPC): FREE_SPACE,
    errno.EACCES: CHECK_ACCESS,
    errno.EPERM: CHECK_ACCESS,
    errno.EROFS: "Choose another folder with --out.",
    errno.EISDIR: "Name a file in it.",
    errno.ENOENT: "Check the path for a typing error.",
}
"""What to do about an error of the system."""


def chained(error: Exception, cause: Exception) -> Exception:
    """``error`` as if raised from ``cause``, whose traceback --debug shows."""
    error.__cause__ = cause
    return error


def is_out_of_memory(error: BaseException) -> bool:
    """torch says it in its own error on a GPU, and in a plain RuntimeError on a processor."""
    said = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(s in said for s in ("can't allocate memory", "out of memory"))
    )


def out_of_memory(what: str) -> ReconError:
    """The error for a network that does not fit, with the settings that need less."""
    return ReconError(
        what,
        "All samples of a slice go through the network together.",
        "Use --chunk 1, then fewer --samples, or --device cpu.",
    )
