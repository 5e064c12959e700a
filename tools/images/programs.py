"""Other people's programs that the builders call: which package has one, and what one said when it failed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from flchain.base.errors import ConfigError, FlchainError

PACKAGES = {
    "apt-get": "apt",
    "bmaptool": "bmap-tools",
    "debugfs": "e2fsprogs",
    "dpkg-deb": "dpkg",
    "mcopy": "mtools",
    "mke2fs": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "mmdebstrap": "mmdebstrap",
    "sfdisk": "fdisk",
    "systemd-nspawn": "systemd-container",
    "unshare": "util-linux",
    "xz": "xz-utils",
}
"""By program: the Debian package that has it."""
SYSTEM_PATHS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where Debian keeps programs that a plain user's PATH does not look for."""
COMPLAINT_LINES = 15


class ToolError(FlchainError):
    """Another program failed; the text ends with what it said."""


def find_program(name: str) -> str | None:
    """Return the path of a program, or None if it is not installed."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), *SYSTEM_PATHS)))


def list_missing(names: Sequence[str]) -> tuple[str, ...]:
    """Return one sentence for each program that is not installed, with the package that has it."""
    return tuple(
        f"{name} is not installed: apt install {PACKAGES.get(name, name)}"
        for name in names
        if find_program(name) is None
    )


def require_programs(*names: str) -> None:
    """Raise ConfigError with every program that is missing."""
    if missing := list_missing(names):
        raise ConfigError(missing)


def run_tool(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None, timeout_s: float = 3600
) -> str:
    """Run a program to its end and return its standard output; `env` is added to the environment.

    Raises ConfigError if it is not installed, and ToolError with its last words if it fails or takes longer than
    `timeout_s`.
    """
    require_programs(command[0])
    program = find_program(command[0]) or command[0]
    environment = {**os.environ, **(env or {})}
    try:
        done = subprocess.run(
            (program, *command[1:]),
            env=environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{command[0]}: no end within {timeout_s:g} s") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-COMPLAINT_LINES:]
        raise ToolError("\n".join((f"{' '.join(command[:3])} ... failed (exit code {done.returncode})", *said)))
    return done.stdout
