"""Functions in processes of their own that begin as copies of this one, so that nothing is imported again."""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import torch


class Forked:
    """``function(*arguments)`` in another process, with pipes for its input and output.

    What it returns, if it is a number, is the exit code; 1 where it raises, which its errors show.
    """

    def __init__(self, function: Callable[..., Any], *arguments: object):
        read, write, errors = os.pipe(), os.pipe(), os.pipe()
        self.returncode: int | None = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # xdist's thread, which only waits
            self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                for new, old in ((read[0], 0), (write[1], 1), (errors[1], 2)):
                    os.dup2(new, old)
                for end in (*read, *write, *errors):
                    os.close(end)
                sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                torch.set_num_threads(1)  # threads are not copied
                found = function(*arguments)
                code = found if isinstance(found, int) else 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        for end in (read[0], write[1], errors[1]):
            os.close(end)
        self.stdin, self.stdout = os.fdopen(read[1], "w"), os.fdopen(write[0])
        self._errors = os.fdopen(errors[0])

    def poll(self, wait: int = os.WNOHANG) -> int | None:
        """The exit code, None while the process runs; of one that a signal ended, less than 0."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, wait)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def finish(self, said: str = "") -> tuple[str, str]:
        """Give it a last input, wait, and return what is left of its output, and its errors (a page or so)."""
        self.stdin.write(said)
        self.stdin.close()
        with self.stdout, self._errors:
            found = self.stdout.read(), self._errors.read()
        self.poll(0)
        return found

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)
        self.finish()
