"""The packages of a release, as files: which version, for which system, with which hash."""

from __future__ import annotations

import hashlib
import io
import lzma
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from flchain.base.errors import ConfigError
from flchain.wire.release import PACKAGE_BYTES_MAX, PACKAGES_MAX, Package
from tools.images.suites import SUITES

AGENT = "flchain-agent"
"""The package that boards install."""
MARKS = {suite.mark: suite.name for suite in SUITES.values()}
"""By the end of a package's version: the release of the system that it is for."""
VERSION = re.compile(r"(?P<version>\d+\.\d+\.\d+)\+(?P<mark>[a-z0-9.]+)")
AR_MAGIC, AR_HEADER_BYTES = b"!<arch>\n", 60
CONTROL_BYTES_MAX = 10_000_000
DPKG_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Deb:
    """A package on this machine."""

    path: Path
    version: str
    package: Package


def read_folder(folder: Path) -> tuple[Deb, ...]:
    """Return the agents' packages in a folder, all of one version, in order of system. Raise ConfigError."""
    files = sorted(folder.glob(f"{AGENT}_*.deb"))
    if not files:
        raise ConfigError((f"{folder}: no {AGENT}_*.deb in it; make some with: make debs",))
    debs, problems = [], []
    for path in files:
        try:
            debs.append(read_deb(path))
        except (OSError, ValueError) as error:
            problems.append(f"{path}: {error}")
    debs.sort(key=lambda deb: (deb.package.suite, deb.package.architecture))
    problems += _find_problems(folder, debs)
    if problems:
        raise ConfigError(tuple(problems))
    return tuple(debs)


def _find_problems(folder: Path, debs: list[Deb]) -> Iterator[str]:
    versions = sorted({deb.version for deb in debs})
    if len(versions) > 1:
        yield f"{folder}: packages of versions {', '.join(versions)}: keep those of one"
    systems = [(deb.package.suite, deb.package.architecture) for deb in debs]
    for suite, architecture in sorted({system for system in systems if systems.count(system) > 1}):
        yield f"{folder}: more than one package for {suite} {architecture}"
    if len(debs) > PACKAGES_MAX:
        yield f"{folder}: {len(debs)} packages, a release names at most {PACKAGES_MAX}"


def read_deb(path: Path) -> Deb:
    """Read one file. Raise OSError, or ValueError for what is not a package of the agent."""
    size = path.stat().st_size
    if not 0 < size <= PACKAGE_BYTES_MAX:
        raise ValueError(f"has {size} bytes; a package has 1 to {PACKAGE_BYTES_MAX}")
    fields = HeaderParser().parsestr(_read_control(path))
    name, version, architecture = (fields.get(key, "") for key in ("Package", "Version", "Architecture"))
    if name != AGENT:
        raise ValueError(f"is a package of {name or 'nothing'}, not of {AGENT}")
    found = VERSION.fullmatch(version)
    if found is None or found["mark"] not in MARKS:
        known = ", ".join(f"0.2.0+{mark}" for mark in MARKS)
        raise ValueError(f"has version {version}; boards take those like {known}")
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    package = Package(MARKS[found["mark"]], architecture, digest.digest(), size)
    return Deb(path, found["version"], package)


def _read_control(path: Path) -> str:
    """Return the control file of a .deb (deb(5)): an ar archive with control.tar in it."""
    with path.open("rb") as stream:
        if stream.read(len(AR_MAGIC)) != AR_MAGIC:
            raise ValueError("is not a Debian package")
        while len(header := stream.read(AR_HEADER_BYTES)) == AR_HEADER_BYTES:
            name, size = header[:16].decode("ascii", "replace").strip().rstrip("/"), int(header[48:58])
            if name.startswith("control.tar"):
                if size > CONTROL_BYTES_MAX:
                    raise ValueError("has a control part that is too large")
                return _unpack_control(path, name, stream.read(size))
            stream.seek(size + size % 2, 1)
    raise ValueError("is not a Debian package: it has no control part")


def _unpack_control(path: Path, name: str, data: bytes) -> str:
    if name.endswith(".zst"):
        return _ask_dpkg(path)
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:*") as archive:
            for member in archive:
                if member.name.lstrip("./") == "control" and member.isfile() and member.size <= CONTROL_BYTES_MAX:
                    content = archive.extractfile(member)
                    return content.read().decode() if content is not None else ""
    except (tarfile.TarError, lzma.LZMAError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"has a damaged control part: {error}") from error
    raise ValueError("is not a Debian package: it has no control file")


def _ask_dpkg(path: Path) -> str:
    """Return the control file of a package whose parts Python's library cannot unpack."""
    program = shutil.which("dpkg-deb")
    if program is None:
        raise ValueError("is packed with zstd: dpkg-deb is needed to read it (apt install dpkg)")
    command = (program, "--field", str(path))
    done = subprocess.run(command, capture_output=True, text=True, timeout=DPKG_TIMEOUT_S, check=False)
    if done.returncode:
        raise ValueError(done.stderr.strip() or "dpkg-deb cannot read it")
    return done.stdout
