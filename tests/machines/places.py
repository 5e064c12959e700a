"""Places where a node of a network can run: a Python, its runtime and its numpy, on a processor, with today's code.

The packages are those of requirements/agent.lock, chosen and unpacked by uv for the place, without running any of it.
Another processor's Python runs in a root of its own, under qemu-user, and shares network and folders with this machine.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.machines.chroot import Chroot
from tools.images.emulation import ensure_runnable
from tools.images.programs import run_tool
from tools.images.roots import Root, get_cache, make_root, unpack_root
from tools.images.suites import SUITES

CHECKOUT = Path(__file__).resolve().parents[2]
LOCK = CHECKOUT / "requirements" / "agent.lock"
PLATFORMS = {"amd64": "x86_64-manylinux_2_34", "arm64": "aarch64-manylinux_2_34"}
PACKAGES = ("base-files", "coreutils", "dash", "libc-bin", "libstdc++6", "mount", "python3", "util-linux")
"""Unpacked, not installed: a Python runs, and the programs that enter the root."""
CODE, SITE = "/srv/flchain", "/srv/site"
INSIDE = {"PYTHONPATH": f"{CODE}:{SITE}", "PYTHONPYCACHEPREFIX": "/tmp/pycache", "OPENBLAS_NUM_THREADS": "1"}

Wrap = Callable[[tuple[str, ...]], tuple[str, ...]]


@dataclass(frozen=True)
class Place:
    """`wrap` turns `python3 ARGUMENTS` into the command that runs it there."""

    name: str
    wrap: Wrap
    env: Mapping[str, str]

    def build_command(self, *arguments: str) -> tuple[str, ...]:
        return self.wrap(("python3", *arguments))


def install_site(python: str, architecture: str) -> Path:
    """Return a folder with the agent's packages for a Python and a processor, kept for the next time."""
    key = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    folder = get_cache() / "sites" / f"{python}-{architecture}-{key}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as draft:
            where = ("--python-version", python, "--python-platform", PLATFORMS[architecture])
            how = ("--only-binary", ":all:", "--no-deps", "--require-hashes", "-r", str(LOCK), "--link-mode", "copy")
            run_tool(("uv", "--no-config", "pip", "install", "--quiet", "--target", f"{draft}/site", *where, *how))
            shutil.move(f"{draft}/site", folder)
    return folder


def make_own_place(python: str, version: str, architecture: str) -> Place:
    """Return an interpreter of this machine, `python`, with packages of its own."""
    site = install_site(version, architecture)
    env = {"PYTHONPATH": f"{CHECKOUT}:{site}", "PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1"}
    return Place(f"python {version} {architecture}", lambda words: (python, *words[1:]), env)


def make_root_place(release: str, architecture: str, folder: Path, shared: Path) -> Place:
    """Return a root in `folder` (new) that sees the folder `shared` under its own name."""
    ensure_runnable(architecture, get_cache())
    tarball = make_root(Root(release, architecture, PACKAGES, "extract"))
    root = unpack_root(tarball, folder)
    (root / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    site = install_site(SUITES[release].python, architecture)
    chroot = Chroot(root, ((CHECKOUT, CODE), (site, SITE), (shared, str(shared))))
    return Place(f"{release} {architecture}", lambda words: chroot.build_command(*words, env=INSIDE), {})
