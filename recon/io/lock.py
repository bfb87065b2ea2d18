"""One writer of a result at a time, also among processes.

A lock is held by the operating system for the process that took it, so it ends with that process,
however it ends. The empty file that it is taken on (hidden, beside the result) is removed on release;
one that a killed run left blocks nobody. On network file systems without ``flock`` a lock holds among
the processes of one machine at most: `ResultWriter` also checks that it renames its own file.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import OutputError
from .targets import fitting

PATIENCE = 1.0  # seconds: longer than `refuse_busy` holds a lock to try it


class WriteLock:
    """The right to write the result ``path``, from its making to `release`.

    Raises `OutputError` where another run has it, `OSError` where the folder takes no files.
    """

    def __init__(self, path: Path, patience: float = PATIENCE):
        self._lock = FileLock(lock_file(path))
        try:
            self._lock.acquire(timeout=patience)
        except Timeout:
            raise busy(path) from None

    def release(self) -> None:
        """Give the right back; a second call does nothing."""
        if self._lock.is_locked:
            with suppress(OSError):  # while the lock is held: whoever waits for this file then makes another
                Path(self._lock.lock_file).unlink()
            self._lock.release()


def refuse_busy(path: Path) -> None:
    """Raise `OutputError` where another run is writing the result ``path``; leaves nothing behind."""
    if lock_file(path).exists():
        with suppress(OSError):  # not for us to take: the writer will say why
            WriteLock(path, patience=0).release()


def lock_file(path: Path) -> Path:
    """The empty file that stands for the right to write ``path``."""
    return fitting(path.parent, f".{path.name}", ".lock")


def busy(path: Path) -> OutputError:
    """The error of a second run."""
    return OutputError(
        f"{path} is taken: another run is writing it.",
        "One run at a time writes a result.",
        "Wait until that run has ended, or use another --out.",
    )
