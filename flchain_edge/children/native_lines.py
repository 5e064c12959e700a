"""Lines that a native library writes to stderr by itself, past every setting: those that say nothing are left out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def leave_out(*lines: bytes) -> Iterator[None]:
    """Hold back what this process writes to descriptor 2, and write it at the end without `lines`.

    For a moment in which little else happens: what others write meanwhile comes late, and never if the process dies.
    """
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # stderr is closed, or no descriptor is left: nothing is held back
            _hold(held, lines)
        yield


def _hold(held: contextlib.ExitStack, lines: tuple[bytes, ...]) -> None:
    stderr, store = os.dup(2), os.memfd_create("stderr")
    os.dup2(store, 2)

    def release() -> None:
        os.dup2(stderr, 2)
        text = os.pread(store, os.fstat(store).st_size, 0)
        os.close(stderr)
        os.close(store)
        rest = b"".join(line for line in text.splitlines(keepends=True) if line.strip() not in lines)
        with contextlib.suppress(OSError):  # a closed pipe is its reader's wish
            os.write(2, rest)

    held.callback(release)
