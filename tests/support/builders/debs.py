"""Debian packages by hand: an ar archive with a control file and nothing to install."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path


def build_ar(members: dict[str, bytes]) -> bytes:
    """An ar archive (deb(5))."""
    out = b"!<arch>\n"
    for name, data in members.items():
        head = f"{name:<16}{0:<12}{0:<6}{0:<6}{0o100644:<8o}{len(data):<10}`\n".encode()
        out += head + data + b"\n" * (len(data) % 2)
    return out


def build_tar(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    """A tar archive, packed as `mode` says."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def write_deb(
    folder: Path, version: str, *, mark: str = "deb12", architecture: str = "arm64", name: str = "flchain-agent"
) -> Path:
    """A package of this name and version."""
    control = f"Package: {name}\nVersion: {version}+{mark}\nArchitecture: {architecture}\nDescription: agent\n more\n"
    data = build_tar({"./opt/flchain-agent/version": version.encode() * 50_000})
    members = {"debian-binary": b"2.0\n", "control.tar.gz": build_tar({"./control": control.encode()})}
    path = folder / f"{name}_{version}+{mark}_{architecture}.deb"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(build_ar({**members, "data.tar.gz": data}))
    return path
