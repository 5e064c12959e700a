"""Fetch a release's package from the registrar, on from where an earlier attempt ended."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flchain.base.crypto import Identity
from flchain.base.errors import TryAgain
from flchain.wire.release import Package
from flchain_edge.keys.private_files import sync_folder
from flchain_edge.settings.node import NodeSettings

Fetch = Callable[[Package, Path], None]
"""Brings a package into a folder. Blocks; raises ConfigError, TryAgain, DamagedPackage, OSError."""


class DamagedPackage(TryAgain):
    """All bytes are here, and they are not those of the release."""


def name_package(package: Package) -> str:
    """Return the package's file, once it is whole and checked."""
    return f"{package.sha256.hex()}.deb"


@dataclass(frozen=True)
class RegistrarFetcher:
    """Fetches from the registrar where this board has enrolled."""

    settings: NodeSettings
    identity: Identity

    def __call__(self, package: Package, folder: Path) -> None:
        """See `Fetch`."""
        # a running agent needs these only for an update
        from flchain_edge.enrolment.client import RegistrarClient
        from flchain_edge.enrolment.messages import build_package_request

        where, ca = self.settings.enrolment.endpoint, self.settings.mqtt.tls_ca
        if where is None or ca is None:
            raise TryAgain("[enrolment]: names no registrar to fetch packages from")
        client = RegistrarClient(where.host, where.port, ca.read_text())
        fingerprint = bytes.fromhex(self.settings.enrolment.fingerprint)

        def resume(offset: int, part: Path) -> None:
            request = build_package_request(self.identity, fingerprint, package.sha256.hex(), offset)
            with part.open("ab") as sink:
                client.fetch_package(request, sink, package.size_bytes - offset)
                sink.flush()
                os.fsync(sink.fileno())

        finish(package, folder, resume)


def finish(package: Package, folder: Path, resume: Callable[[int, Path], None]) -> None:
    """Append what is missing of a package, check all of it, and give it its name."""
    part, whole = folder / f"{package.sha256.hex()}.part", folder / name_package(package)
    offset = part.stat().st_size if part.is_file() else 0
    if offset > package.size_bytes:
        part.unlink()
        offset = 0
    if offset < package.size_bytes:
        resume(offset, part)
    with part.open("rb") as stream:
        digest = hashlib.sha256()
        while piece := stream.read(1 << 20):
            digest.update(piece)
    if digest.digest() != package.sha256:
        part.unlink()
        raise DamagedPackage("the package arrived damaged")
    os.replace(part, whole)
    sync_folder(folder)
