"""What is built: packages as `firmware_config/debian/packages.toml` describes them, for a suite and architecture."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from flchain.base.errors import ConfigError
from flchain_edge.newer_python import tomllib
from tools.images.suites import MACHINES, Suite

DATA = Path("firmware_config") / "debian"
VERSION_PATTERN = re.compile(r"(\d+(?:\.\d+){1,3})((?:a|b|rc)\d+)?")


class Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One package: its environment, its commands, its service."""

    summary: str
    description: list[str]
    rooms: list[str]
    """Packages of this repository that it holds."""
    commands: list[str]
    """Of pyproject.toml's scripts."""
    locks: list[str]
    """Below requirements/."""
    user: str
    """Who its service runs as."""
    units: list[str]
    """What is enabled at installation; conditions in the units say what has to be configured first."""
    folders: list[str]
    """What it writes while it runs, in its user's name: a purge removes them, except what `kept` names."""
    own_installers: list[str] = []
    """What installs this package's next version: enabled as `units` are, and never stopped by the upgrade it carries
    out."""
    recommends: list[str] = []
    kept: list[str] = []
    """Below the first folder: what a purge moves to /var/backups, since nobody can make it again."""


@dataclass(frozen=True)
class Package:
    """One .deb to build."""

    name: str
    content: Content
    version: str
    """As in pyproject.toml."""
    suite: Suite
    architecture: str

    @property
    def debian_version(self) -> str:
        """Return the version as dpkg orders it: a release candidate before its release, a newer suite last."""
        match = VERSION_PATTERN.fullmatch(self.version)
        assert match is not None, self.version
        return f"{match[1]}{f'~{match[2]}' if match[2] else ''}+{self.suite.mark}"

    @property
    def file_name(self) -> str:
        """Return the name of its file."""
        return f"{self.name}_{self.debian_version}_{self.architecture}.deb"

    @property
    def prefix(self) -> str:
        """Return the folder of its environment."""
        return f"/opt/{self.name}"

    @property
    def platform(self) -> str:
        """Return the platform whose wheels it takes, as uv names it."""
        return f"{MACHINES[self.architecture]}-manylinux_{self.suite.glibc}"


def read_contents(source: Path) -> dict[str, Content]:
    """Return every package that a checkout describes, by name. Raises ConfigError."""
    path = source / DATA / "packages.toml"
    raw: Mapping[str, Any] = tomllib.loads(path.read_text("utf-8"))
    try:
        return msgspec.convert(raw, dict[str, Content])
    except msgspec.ValidationError as error:
        raise ConfigError((f"{path}: {error}",)) from error


def list_installed(source: Path, name: str) -> list[tuple[Path, str]]:
    """Return the files beside the environment: each with its path in the package, without the leading slash.

    Lines of `<package>.install` are a pattern below the checkout, and a folder (it ends with a slash) or the file's new
    name. Raises ConfigError for a pattern that finds nothing.
    """
    path = source / DATA / f"{name}.install"
    installed, problems = [], []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        pattern, target = line.split()
        found = sorted(source.glob(pattern))
        if not found:
            problems.append(f"{path}: line {number}: {pattern}: no such file")
        installed += [(file, f"{target}{file.name}" if target.endswith("/") else target) for file in found]
    if problems:
        raise ConfigError(tuple(problems))
    return installed
