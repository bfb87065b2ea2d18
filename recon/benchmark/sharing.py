"""A folder shared by processes: locks that die with their process, claimed work, and files that grow by whole lines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import OutputError
from ..io.lock import lock_file
from ..io.whole import writing


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of ``path`` alone, waiting for the process that has it; raises `OutputError`.

    The lock is a hidden file beside ``path``, which stays. It is released when its process dies.
    """
    lock = FileLock(lock_file(path))
    with writing(path, (OSError,)):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def claimed(folder: Path, key: str) -> Iterator[bool]:
    """Whether the piece of work ``key`` is ours while inside; False where another live process is doing it.

    Between a look at what is done and the claim another process may have finished the work: look again inside.
    """
    path = lock_file(folder / key)
    lock = FileLock(path)
    with writing(folder, (OSError,)), suppress(Timeout):
        lock.acquire(timeout=0)
    try:
        yield lock.is_locked
    finally:
        if lock.is_locked:
            with suppress(OSError):  # while it is locked: whoever comes next makes another
                path.unlink()
            lock.release()


def append_line(path: Path, line: str, head: str = "") -> None:
    """Add ``line`` to a text file, below ``head`` where the file is new: the whole line, or the file as it was.

    A last line without its end, left by a process that was killed, is cut off first. The bytes are on disk
    when this returns. Raises `OutputError` where they cannot be written.
    """
    with locked(path), writing(path, (OSError,)), open(path, "a+b", buffering=0) as file:
        size = cut_torn_line(file)
        text = line if size or not head else f"{head}\n{line}"
        try:
            write_all(file, f"{text}\n".encode())
        except BaseException:
            file.truncate(size)
            raise


def cut_torn_line(file: FileIO) -> int:
    """Cut off what follows the last line end; the size that is left."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 1, 0))
    if file.read(1) in (b"", b"\n"):
        return size
    file.seek(0)
    size = file.read().rfind(b"\n") + 1
    file.truncate(size)
    return size


def write_all(file: FileIO, data: bytes) -> None:
    """Write every byte: one call may write fewer, as on a disk that is nearly full."""
    while data:
        count = file.write(data)
        if not count:
            raise OSError("no byte was written")
        data = data[count:]
    os.fsync(file.fileno())


def whole_lines(path: Path) -> list[str]:
    """The lines of a text file; none where there is no file, and a last line that was cut short is left out.

    Raises `OutputError` where the file cannot be read.
    """
    try:
        data = path.read_bytes()
        return data[: data.rfind(b"\n") + 1].decode().split("\n")[:-1]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(
            f"{path} cannot be read.",
            f"{getattr(error, 'strerror', None) or error}.",
            "Choose another --out.",
        ) from error
