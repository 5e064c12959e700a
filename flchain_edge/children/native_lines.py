"""Leave out meaningless lines that a native library writes to stderr in spite of every setting."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def leave_out(*lines: bytes) -> Iterator[None]:
    """Hold back what this process writes to descriptor 2, and write it at the end without `lines`.

    For a short time in which little else happens: what others write meanwhile comes late, or never if the process dies.
    """
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # stderr is closed, or there is no free descriptor: nothing is held back
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
        with contextlib.suppress(OSError):  # the reader has closed the pipe
            os.write(2, rest)

    held.callback(release)
