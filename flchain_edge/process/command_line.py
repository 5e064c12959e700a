"""What all our command lines share: how help is laid out, and how a command leaves the terminal, whatever ends it."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import math
import os
import sys
import textwrap
from collections.abc import Callable
from typing import Any

from flchain.base.errors import ConfigError, FlchainError, TryAgain

EXIT_FAULT, EXIT_IO, EXIT_TRY_AGAIN, EXIT_CONFIG = 1, 74, 75, 78
"""As in sysexits.h. The systemd units restart after the first three, never after a configuration error."""
EXIT_INTERRUPTED = 130
"""As in a shell: 128 and the number of SIGINT."""
EXIT_UNREAD = 141
"""The exit code that a shell reports for a program whose reader went away."""

DISK_FAULTS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
"""Any command that writes may meet these errors, and a traceback would help no one."""


class HelpFormatter(argparse.HelpFormatter):
    """Lay out help so that no name is broken, and lines that begin with spaces (examples) stay as they are."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return wrap_words(" ".join(text.split()), width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = []
        for line in text.splitlines():
            lines += [line] if line.startswith(" ") or not line else wrap_words(line, width)
        return "\n".join(f"{indent}{line}" for line in lines)


def wrap_words(text: str, width: int) -> list[str]:
    """Return the text in lines of at most this width, broken between words alone: a name is there to be copied."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


class CommandParser(argparse.ArgumentParser):
    """A parser with our layout of help; so are those of its commands."""

    def __init__(self, *arguments: object, **options: object) -> None:
        options.setdefault("formatter_class", HelpFormatter)
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self.register("type", int, read_whole_number)
        self.register("type", float, read_number)


def read_whole_number(text: str, low: int | None = None, high: int | None = None) -> int:
    """Return the number. Raise ArgumentTypeError in words; argparse's own would name our function."""
    try:
        number = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a whole number, is {text!r}") from error
    if (low is not None and number < low) or (high is not None and number > high):
        bounds = f"{low}..{high}" if high is not None else f"at least {low}"
        raise argparse.ArgumentTypeError(f"must be {bounds}, is {text}")
    return number


def read_number(text: str) -> float:
    """Return the number, which is finite. Raise ArgumentTypeError in words."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"must be a number, is {text!r}")
    return number


def add_command(commands: Any, name: str, text: str, **options: Any) -> argparse.ArgumentParser:
    """Return the parser of a new command; the list of commands and its own help say the same."""
    description = f"{text[0].upper()}{text[1:]}."
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=description, **options)
    return parser


def run_program(act: Callable[[], int], name: str = "output") -> int:
    """Return the exit code of a command line's work.

    A reader that goes away (`| head`), Ctrl-C, a full disk, and a file that cannot be read or written end it in at most
    one line, which has the file, or otherwise the `name` of what was being done. argparse's SystemExit passes through.
    """
    tolerate_terminal()
    try:
        try:
            return act()
        finally:
            flush_output()
    except BrokenPipeError:
        drop_output()
        return EXIT_UNREAD
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except OSError as error:
        if error.filename is None and error.errno not in DISK_FAULTS:
            raise
        drop_output()
        # Of two files the second is the one that was written: it is the disk's fault that counts.
        where = (error.filename2 if error.errno in DISK_FAULTS else None) or error.filename or name
        print(f"error: {where}: {error.strerror}", file=sys.stderr)
        return EXIT_IO if error.errno in DISK_FAULTS else EXIT_CONFIG


def choose_exit_code(error: FlchainError) -> int:
    """Return how a command ends that has told its operator this."""
    from flchain_edge.storage.sqlite import StoreFull  # the help of a command needs no database

    cause = error.__cause__
    if isinstance(error, StoreFull) or (isinstance(cause, OSError) and cause.errno in DISK_FAULTS):
        return EXIT_IO
    if isinstance(error, TryAgain):
        return EXIT_TRY_AGAIN
    return EXIT_CONFIG if isinstance(error, ConfigError) else EXIT_FAULT


def tolerate_terminal() -> None:
    """Let stdout print `?` for a character that the terminal's encoding lacks: a path or a bar must end no command."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")


def flush_output() -> None:
    """Write what is left for stdout now: at its own end Python answers a reader that went away with a traceback."""
    if sys.stdout is not None:
        sys.stdout.flush()


def drop_output() -> None:
    """Lead stdout and stderr to nowhere where they cannot be written any more: Python flushes both at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
