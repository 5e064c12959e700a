"""Make a package again from what is installed: the way back, where nobody has kept the package that was installed.

As dpkg-repack does it, without a copy of the files beside them: they are streamed into the archive (deb(5)).
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path
from typing import IO

MAGIC = b"!<arch>\n"
HEADER_BYTES = 60
COMPRESSION = 1
"""Of gzip: a small board should be done in seconds, and the disk has room."""
LEFT_OUT = ("Status", "Conffiles", "Config-Version")
"""Fields of dpkg's status that a package does not have."""
NO_CONTROL = (".list", ".conffiles-obsolete")


def repack(package: str, status: str, target: Path, root: Path = Path("/")) -> None:
    """Write the installed package to `target`; `status` is its part of dpkg's status. Raise OSError."""
    info = root / "var/lib/dpkg/info"
    names = [name for name in (info / f"{package}.list").read_text().splitlines() if name not in ("/.", "")]
    with target.open("wb") as out:
        out.write(MAGIC)
        _write_member(out, "debian-binary", b"2.0\n")
        _write_member(out, "control.tar.gz", _build_control(package, build_control_file(status), info))
        _stream_data(out, names, root)
        out.flush()
        os.fsync(out.fileno())


def build_control_file(status: str) -> str:
    """Return the control file from a part of dpkg's status."""
    lines, is_left_out = [], False
    for line in status.strip().splitlines():
        if not line.startswith((" ", "\t")):
            is_left_out = line.partition(":")[0] in LEFT_OUT
        if not is_left_out:
            lines.append(line)
    return "\n".join(lines) + "\n"


def _build_control(package: str, control: str, info: Path) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz", compresslevel=COMPRESSION, format=tarfile.GNU_FORMAT) as archive:
        _add_bytes(archive, "./control", control.encode(), 0o644)
        for path in sorted(info.glob(f"{package}.*")):
            if path.suffix not in NO_CONTROL:
                _add_bytes(archive, f"./{path.suffix[1:]}", path.read_bytes(), path.stat().st_mode & 0o777)
    return made.getvalue()


def _add_bytes(archive: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), mode
    archive.addfile(member, io.BytesIO(data))


def _stream_data(out: IO[bytes], names: list[str], root: Path) -> None:
    start = out.tell()
    out.write(bytes(HEADER_BYTES))
    with (
        gzip.GzipFile(fileobj=out, mode="wb", compresslevel=COMPRESSION, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as archive,
    ):
        for name in names:
            path = root / name.lstrip("/")
            if os.path.lexists(path):  # a settings file that was removed stays removed
                archive.add(path, f".{name}", recursive=False)
    end = out.tell()
    out.write(b"\n" * ((end - start) % 2))
    out.seek(start)
    out.write(_build_header("data.tar.gz", end - start - HEADER_BYTES))
    out.seek(0, os.SEEK_END)


def _write_member(out: IO[bytes], name: str, data: bytes) -> None:
    out.write(_build_header(name, len(data)) + data + b"\n" * (len(data) % 2))


def _build_header(name: str, size: int) -> bytes:
    return f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{size:<10}`\n".encode()
