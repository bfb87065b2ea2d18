"""What the command line and its terminal owe one another: printable text, closed pipes, signals.

Names of files and what is in them come from anywhere. Whatever is printed, by whomever, goes through
`Printable`: it shows control characters instead of sending them to the terminal.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

TERMINATED = 143  # exit codes as a shell gives them: 128 + the number of the signal
CLOSED = 141

# C0 and C1 controls, bytes that are no text, line separators, and what reverses the direction of writing
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class OutputClosed(BaseException):
    """Nobody reads the output any more. Not an `Exception`: no file of a job has failed by it."""


def printable(text: str) -> str:
    r"""``text`` with control characters as ``\x1b`` and the like; newlines and tabs are kept."""
    return UNPRINTABLE.sub(lambda found: visible(found[0]), text)


def visible(character: str) -> str:
    r"""``\x1b`` or ``\u202e``; for a byte of a file name that is not text, that byte."""
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


class Printable:
    r"""A text stream that prints nothing but text; everything else about it is the stream's own.

    A leading ``\r`` passes, with which a progress bar begins anew. Raises `OutputClosed` where the other
    end of a pipe is closed, and leaves nothing in the buffer that the interpreter would fail on at its end.
    """

    def __init__(self, stream: Any):
        self.stream = stream

    def write(self, text: str) -> int:
        """Write ``text``, made printable and fit for the stream's encoding; returns its length."""
        start = "\r" if text.startswith("\r") else ""
        shown = start + printable(text[len(start) :])
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        with closing_is_told(self.stream):
            self.stream.write(shown.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        with closing_is_told(self.stream):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def closing_is_told(stream: Any) -> Iterator[None]:
    """Raise `OutputClosed` for a broken pipe; after any error what is still buffered goes nowhere."""
    try:
        yield
    except OSError as error:
        with suppress(Exception):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        if isinstance(error, BrokenPipeError):
            raise OutputClosed from None
        raise


@contextmanager
def shown_safely() -> Iterator[None]:
    """Standard output and error are `Printable` inside, and as before after it; closed ones lead nowhere."""
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w") as nowhere:
        sys.stdout, sys.stderr = (Printable(stream or nowhere) for stream in before)
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before


class Signals:
    """Inside, SIGTERM raises what SIGINT raises, `KeyboardInterrupt`; ``terminated`` is 143 from then on, else 0.

    In the main thread only, which alone may set handlers; a program that ignores SIGTERM goes on to do so.
    """

    def __init__(self):
        self.terminated = 0
        self.before: Any = None

    def __enter__(self) -> Signals:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGTERM) != signal.SIG_IGN:
            self.before = signal.signal(signal.SIGTERM, self.interrupt)
        return self

    def __exit__(self, *error: object) -> None:
        if self.before is not None:
            signal.signal(signal.SIGTERM, self.before)

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """The handler."""
        self.terminated = TERMINATED
        raise KeyboardInterrupt
