"""Root's look into the agent's folder: names and contents there are the agent's, and believed in nothing."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from flchain.base.errors import FlchainError

REQUEST, TRUST, SPOKEN = "request", "trust.json", "spoken"
COPY_BYTES = 1 << 20


class Refused(FlchainError):
    """What the agent has laid down is not installed; the text is for people."""


class Inbox:
    """The agent's folder, opened once: what its name leads to later does not matter."""

    def __init__(self, folder: Path) -> None:
        """Raise Refused if there is none."""
        try:
            self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise Refused(f"{folder}: {error.strerror}") from error

    def close(self) -> None:
        os.close(self._folder)

    def read(self, name: str, bytes_max: int) -> bytes:
        """Return a short file. Raise Refused for anything but a plain file of at most this size."""
        with self._opened(name) as descriptor:
            data = b""
            while len(data) <= bytes_max and (piece := os.read(descriptor, bytes_max + 1 - len(data))):
                data += piece
        if len(data) > bytes_max:
            raise Refused(f"{name}: longer than {bytes_max} bytes")
        return data

    def copy(self, name: str, target: Path, size_bytes: int, sha256: bytes) -> None:
        """Copy a file of this size and hash to root's folder, on disk when this returns.

        Only the copy is looked at and used: the agent may change its own at any time. Raise Refused, OSError (full).
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        digest, left = hashlib.sha256(), size_bytes + 1
        with self._opened(name) as source, os.fdopen(os.open(target, flags, 0o600), "wb") as out:
            while left and (piece := os.read(source, min(left, COPY_BYTES))):
                digest.update(piece)
                out.write(piece)
                left -= len(piece)
            out.flush()
            os.fsync(out.fileno())
        if left != 1:
            how = "longer" if not left else f"cut off at {size_bytes + 1 - left} bytes, shorter"
            raise Refused(f"the package is {how} than the release says ({size_bytes} bytes)")
        if digest.digest() != sha256:
            raise Refused(f"the package is damaged: its SHA-256 is {digest.hexdigest()}, not {sha256.hex()}")

    def remove(self, name: str) -> None:
        """Remove a name; it may be missing."""
        with contextlib.suppress(FileNotFoundError, IsADirectoryError, PermissionError):
            os.unlink(name, dir_fd=self._folder)

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        # Without waiting: a pipe under this name would hold root for ever.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, dir_fd=self._folder)
        except OSError as error:
            text = "is a link" if error.errno == errno.ELOOP else error.strerror
            raise Refused(f"{name}: {text}") from error
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Refused(f"{name}: is no plain file")
            yield descriptor
        finally:
            os.close(descriptor)
