"""The packages of releases that a registrar keeps for its members: files by their SHA-256, whole or absent."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO

from flchain.base.errors import FlchainError

PACKAGES_FOLDER = "packages"
PACKAGES_MAX = 64
"""Packages kept at once: several releases for each system that a network's boards run."""


class PackageRefused(FlchainError):
    """A package that cannot be kept; the text says why and what to do."""


class PackageStore:
    """One folder of packages."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / PACKAGES_FOLDER

    def find(self, sha256: str) -> Path | None:
        """Return the path of a package, given 64 hexadecimal digits; None if it is not here."""
        path = self._folder / sha256
        return path if path.is_file() else None

    def list_names(self) -> list[str]:
        """Return the hashes of all packages that are whole."""
        if not self._folder.is_dir():
            return []
        return sorted(path.name for path in self._folder.iterdir() if not path.name.startswith("."))

    async def keep(self, sha256: str, chunks: AsyncIterator[bytes]) -> None:
        """Keep what comes under its hash: on disk and whole when this returns, otherwise nothing of it.

        Raise PackageRefused (another hash, too many packages), OSError (no room).
        """
        if len(self.list_names()) >= PACKAGES_MAX:
            raise PackageRefused(
                f"the registrar holds {PACKAGES_MAX} packages: remove those of old releases from {self._folder}"
            )
        self._folder.mkdir(mode=0o700, exist_ok=True)
        with self._begin() as (part, stream):
            found = hashlib.sha256()
            async for chunk in chunks:
                found.update(chunk)
                stream.write(chunk)
            if found.hexdigest() != sha256:
                raise PackageRefused("the package arrived damaged: its SHA-256 is another one; send it again")
            stream.flush()
            os.fsync(stream.fileno())
            part.replace(self._folder / sha256)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @contextlib.contextmanager
    def _begin(self) -> Iterator[tuple[Path, BinaryIO]]:
        part = self._folder / f".part-{secrets.token_hex(8)}"
        try:
            with open(part, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as stream:
                yield part, stream
        finally:
            part.unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove what uploads that were cut off by a crash have left."""
        if self._folder.is_dir():
            for path in self._folder.glob(".part-*"):
                path.unlink(missing_ok=True)
