"""What a package is made from: the files that git knows, as they are, in a folder of their own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from flchain.base.errors import ConfigError
from flchain_edge.newer_python import tomllib
from tools.images.debs.plan import VERSION_PATTERN
from tools.images.programs import run_tool

NOT_SOURCE = ("tests", ".ci", "docs/decisions")
"""No package holds these; copying them would only take time."""


@dataclass(frozen=True)
class Source:
    """A copy of the checkout with the version that is built."""

    folder: Path
    version: str
    epoch_s: int
    """The commit's time, which every file in a package gets."""
    scripts: dict[str, str]
    """By command: module and function."""


def copy_source(repository: Path, folder: Path, version: str | None) -> Source:
    """Copy the files that git knows into a new folder. Raises ConfigError without git, or for a bad version."""
    if version is not None and not VERSION_PATTERN.fullmatch(version):
        raise ConfigError((f"VERSION={version}: not a version like 0.2.0 or 0.2.0rc1",))
    try:
        listing = subprocess.run(("git", "ls-files", "-z"), cwd=repository, capture_output=True, check=True).stdout
        epoch = os.environ.get("SOURCE_DATE_EPOCH") or run_tool(("git", "log", "-1", "--format=%ct"), cwd=repository)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError((f"{repository}: packages are built in a clone, by git's list of its files",)) from error
    for name in listing.decode().split("\0"):
        if name and not name.startswith(NOT_SOURCE) and (repository / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(repository / name, target)
    path = folder / "pyproject.toml"
    if version is not None:
        path.write_text(re.sub(r'^version = ".*"$', f'version = "{version}"', path.read_text("utf-8"), flags=re.M))
    project = tomllib.loads(path.read_text("utf-8"))["project"]
    return Source(folder, project["version"], int(epoch), dict(project["scripts"]))
