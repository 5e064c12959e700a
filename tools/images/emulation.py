"""Programs of another architecture run here through qemu-user, which the kernel starts by itself (binfmt_misc).

qemu-user 7.2, which is Debian 12's, crashes when the newer TFLite runtime loads a model; 10 does not.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import subprocess
import tempfile
from pathlib import Path

from flchain.base.errors import ConfigError
from tools.images.mirror import list_lines, read_mirror
from tools.images.programs import ToolError, run_tool
from tools.images.suites import MACHINES

BINFMT = Path("/proc/sys/fs/binfmt_misc")
QEMU_VERSION_MIN = 10
QEMU_RELEASE = "trixie"
"""The Debian release whose static qemu-user is fetched where this machine's is too old."""
OUR_HANDLER = "flchain-aarch64"
"""Handlers of the machine are left alone: the one that was registered last goes first."""
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# The first 20 bytes of an ELF file for AArch64, and which of their bits count.
_MAGIC = "7f454c460201010000000000000000000200b700"
_MASK = "ffffffffffffff00fffffffffffffffffeffffff"


def get_architecture() -> str:
    """Return Debian's name of this machine's architecture. Raises ConfigError for one that nothing is built on."""
    machine = platform.machine()
    if machine not in MACHINES.values():
        raise ConfigError((f"{machine}: packages and images are built on {' or '.join(MACHINES.values())} only",))
    return next(name for name, kernels in MACHINES.items() if kernels == machine)


def ensure_runnable(architecture: str, cache: Path) -> None:
    """Make programs of `architecture` run here, with an emulator that is kept in `cache` if one must be fetched.

    Raises ConfigError where that needs root, or is not possible at all.
    """
    if architecture == get_architecture():
        return
    if architecture != "arm64":
        raise ConfigError((f"{architecture}: there is no emulation of it here",))
    _mount_binfmt()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "qemu.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_registered():
            _register(_fetch_qemu(cache))


def is_registered() -> bool:
    """Whether the kernel starts a new enough emulator for AArch64, also inside a root that does not hold it."""
    handlers = [path for path in BINFMT.glob("*") if path.name not in ("register", "status")]
    return any(_is_good(path.read_text()) for path in handlers)


def _is_good(handler: str) -> bool:
    """Flag F: the kernel has opened the emulator already, so that its path need not exist inside a root."""
    fields = dict(line.split(" ", 1) for line in handler.splitlines() if " " in line)
    is_ours = handler.startswith("enabled") and fields.get("magic") == _MAGIC and "F" in fields.get("flags:", "")
    return is_ours and read_qemu_version(Path(fields["interpreter"])) >= QEMU_VERSION_MIN


def read_qemu_version(program: Path) -> int:
    """Return the major version of an emulator, 0 if it does not say."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return 0
    found = re.search(r"version (\d+)\.", done.stdout)
    return int(found[1]) if found else 0


def _mount_binfmt() -> None:
    if (BINFMT / "register").exists():
        return
    if os.geteuid() != 0:
        raise ConfigError((f"{BINFMT}: not mounted; run once as root: mount -t binfmt_misc binfmt_misc {BINFMT}",))
    run_tool(("mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)))


def _fetch_qemu(cache: Path) -> Path:
    """Return the path of the newer static emulator, fetched by apt into `cache` the first time."""
    program = cache / "qemu-user" / "usr" / "bin" / "qemu-aarch64"
    if program.exists():
        return program
    with tempfile.TemporaryDirectory(dir=cache) as name:
        folder = Path(name)
        sources = folder / "sources.list"
        lines = (
            line.replace("deb ", f"deb [signed-by={KEYRING}] ", 1) for line in list_lines(read_mirror(), QEMU_RELEASE)
        )
        sources.write_text("".join(f"{line}\n" for line in lines))
        (folder / "lists" / "partial").mkdir(parents=True)
        apt = (
            "apt-get", "-qq", "-o", f"Dir::Etc::SourceList={sources}", "-o", "Dir::Etc::SourceParts=/dev/null",
            "-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}", "-o", "APT::Sandbox::User=root",
            "-o", f"APT::Architecture={get_architecture()}",
        )  # fmt: skip
        run_tool((*apt, "update"))
        run_tool((*apt, "download", "qemu-user"), cwd=folder)
        run_tool(("dpkg-deb", "-x", str(next(folder.glob("qemu-user_*.deb"))), str(cache / "qemu-user")))
    if (version := read_qemu_version(program)) < QEMU_VERSION_MIN:
        raise ToolError(f"{program}: version {version or 'unknown'}, but {QEMU_VERSION_MIN} or newer is needed")
    return program


def _register(program: Path) -> None:
    if os.geteuid() != 0:
        raise ConfigError((f"no qemu-user {QEMU_VERSION_MIN} or newer is registered for arm64; run this once as root",))
    if (BINFMT / OUR_HANDLER).exists():
        (BINFMT / OUR_HANDLER).write_text("-1")
    magic, mask = (bytes.fromhex(text) for text in (_MAGIC, _MASK))
    escaped = ["".join(f"\\x{byte:02x}" for byte in part) for part in (magic, mask)]
    (BINFMT / "register").write_text(f":{OUR_HANDLER}:M::{escaped[0]}:{escaped[1]}:{program.resolve()}:FPC")
