"""Files that appear whole or not at all: written beside their place, flushed to the disk, then renamed."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import OutputError, ReconError

HDF5_ERRORS = (OSError, RuntimeError, ValueError)  # as what h5py raises what the system refused


def write_whole(path: Path, write: Callable[[Any], object]) -> None:
    """`write_together` of one file."""
    write_together({path: write})


def write_together(files: Mapping[Path, Callable[[Any], object]]) -> None:
    """Write several files, each given an open binary file; none takes its place before all are on the disk.

    Each is written under a hidden name of its own in the same folder, so that two processes that write
    the same file never meet, and whoever reads it sees an old or a new one, whole. An error or an
    interruption leaves nothing behind. Permissions follow the umask. Raises `OutputError` where the
    system refuses, or keeps fewer bytes than were written: a full disk is not always reported.
    """
    beside = {path: path.with_name(f".{secrets.token_hex(8)}.part") for path in files}
    try:
        for path, write in files.items():
            with writing(path, (OSError,)):
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(beside[path], "xb") as file:
                    write(file)
                    file.flush()
                    refuse_short(file.tell(), os.fstat(file.fileno()).st_size)
                    os.fsync(file.fileno())
        for path in files:
            with writing(path, (OSError,)):
                os.replace(beside[path], path)
    finally:
        for made in beside.values():
            with suppress(OSError):
                made.unlink()


def refuse_short(written: int, kept: int) -> None:
    """Raise the error that a full disk should have raised."""
    if kept != written:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {kept} of {written} bytes were kept")


def reserve(path: Path, size: int) -> None:
    """Make the new file ``path`` and take ``size`` bytes of the disk for it; raises `OSError` where they are not to be had.

    For files that HDF5 writes: where a disk or a quota is full in the midst of its work, it may crash.
    """
    with open(path, "xb") as file:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):  # not on every file system
                path.unlink()
                raise


@contextmanager
def writing(path: Path, kinds: tuple[type[Exception], ...] = HDF5_ERRORS) -> Iterator[None]:
    """Turn what a full disk or a lost folder makes the system raise into an `OutputError` about ``path``.

    ``kinds`` are the errors that it may come as.
    """
    try:
        yield
    except ReconError:
        raise
    except kinds as error:
        system = re.search(r"error message = '([^']+)'", str(error))
        reason = getattr(error, "strerror", None) or (
            system[1] if system else (str(error).splitlines() or [type(error).__name__])[0]
        )
        raise OutputError(
            f"{path} cannot be written.",
            f"{reason}.",
            "Free space or choose another folder with --out, then run the same command again.",
        ) from error
