"""The command line: ``recon COMMAND``. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..errors import INTERRUPTED
from .arguments import parser
from .reporting import exit_code_of, print_error
from .terminal import CLOSED, OutputClosed, Signals, shown_safely

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0: all done; 1: some failed, or a law is broken; 2: nothing usable; 130: interrupted; 143: terminated
    (SIGTERM); 141: nobody reads the output any more.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    with shown_safely(), Signals() as signals:
        try:
            code = run_command(arguments)
        except KeyboardInterrupt:
            print("\nInterrupted.", file=sys.stderr)
            code = INTERRUPTED
        except OutputClosed:
            return CLOSED
    return signals.terminated if code == INTERRUPTED and signals.terminated else code


def run_command(arguments: list[str]) -> int:
    """Parse the arguments and run the command; an error is reported and becomes an exit code."""
    try:
        args = parser().parse_args(arguments)
        code = args.run(args)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # --help
        return int(stop.code or 0)
    except Exception as error:
        print_error(error, "--debug" in arguments)
        return exit_code_of(error)
