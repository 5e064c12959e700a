"""Debian roots: a release for an architecture with some packages, made once by mmdebstrap and kept as a tarball.

`python -m tools.images.roots bookworm arm64 --include python3,systemd-sysv` prints the tarball's path.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flchain.base.errors import ConfigError
from tools.images.emulation import ensure_runnable
from tools.images.mirror import list_lines, read_mirror
from tools.images.programs import run_tool
from tools.images.suites import MACHINES, SUITES

CACHE_VARIABLE = "FLCHAIN_ROOTS"
CACHE_DEFAULT = Path("build") / "roots"
RELEASES = tuple(suite.name for suite in SUITES.values() if suite.is_debian)
VARIANTS = ("minbase", "apt", "important", "extract")
"""In `extract` the packages are unpacked only: no program of the root runs while it is made."""
MAKE_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class Root:
    """What a root holds: `packages` and all that they depend on, beside the release's essential ones."""

    release: str
    architecture: str
    packages: tuple[str, ...] = ()
    variant: str = "minbase"

    @property
    def name(self) -> str:
        """Return a name that another choice of packages does not share."""
        chosen = " ".join((self.variant, *sorted(self.packages)))
        return f"{self.release}-{self.architecture}-{hashlib.sha256(chosen.encode()).hexdigest()[:8]}"


def get_cache() -> Path:
    """Return the folder of the tarballs: what FLCHAIN_ROOTS names, otherwise build/roots below the current folder."""
    return Path(os.environ.get(CACHE_VARIABLE) or CACHE_DEFAULT).resolve()


def make_root(root: Root, cache: Path | None = None) -> Path:
    """Return the tarball of a root; the first time it is made, which takes from one minute to ten.

    Two processes that want the same root make it once. Raises ConfigError for an unknown release or a missing tool, and
    ToolError with mmdebstrap's own words.
    """
    cache = get_cache() if cache is None else cache
    _check(root)
    tarball = cache / f"{root.name}.tar"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{root.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tarball.exists():
            _run_mmdebstrap(root, tarball, cache)
    return tarball


def _check(root: Root) -> None:
    problems = []
    if root.release not in RELEASES:
        problems.append(f"release {root.release!r}: unknown; known are {', '.join(RELEASES)}")
    if root.architecture not in MACHINES:
        problems.append(f"architecture {root.architecture!r}: unknown; known are {', '.join(MACHINES)}")
    if root.variant not in VARIANTS:
        problems.append(f"variant {root.variant!r}: unknown; known are {', '.join(VARIANTS)}")
    if problems:
        raise ConfigError(tuple(problems))


def _run_mmdebstrap(root: Root, tarball: Path, cache: Path) -> None:
    ensure_runnable(root.architecture, cache)
    unfinished = tarball.with_suffix(".part.tar")
    include = (f"--include={','.join(root.packages)}",) if root.packages else ()
    command = (
        "mmdebstrap", "--quiet", "--skip=check/qemu", f"--architectures={root.architecture}",
        f"--variant={root.variant}", *include, root.release, str(unfinished),
        *list_lines(read_mirror(), root.release),
    )  # fmt: skip
    try:
        # A root that is unpacked into a chroot or a container needs no ramdisk; under emulation one takes minutes.
        run_tool(command, env={"INITRD": "No"}, timeout_s=MAKE_TIMEOUT_S)
        unfinished.rename(tarball)
    finally:
        unfinished.unlink(missing_ok=True)


def unpack_root(tarball: Path, folder: Path) -> Path:
    """Unpack a root into a new folder, with its owners where this is root; the folder."""
    folder.mkdir(parents=True)
    # Device nodes are made by whoever runs something in it; a container would refuse them.
    run_tool(("tar", "-xf", str(tarball), "-C", str(folder), "--numeric-owner", "--exclude=./dev/*"))
    return folder


def main(argv: Sequence[str] | None = None) -> int:
    """Make a root and print the path of its tarball."""
    parser = argparse.ArgumentParser(prog="python -m tools.images.roots", description=__doc__.split("\n")[0])
    parser.add_argument("release", choices=RELEASES)
    parser.add_argument("architecture", choices=MACHINES)
    parser.add_argument("--include", default="", metavar="PACKAGES", help="more packages, with commas between them")
    parser.add_argument("--variant", choices=VARIANTS, default="minbase", help="default: %(default)s")
    parser.add_argument("--unpack", type=Path, metavar="DIR", help="also unpack it into this new folder")
    arguments = parser.parse_args(argv)
    packages = tuple(filter(None, arguments.include.split(",")))
    tarball = make_root(Root(arguments.release, arguments.architecture, packages, arguments.variant))
    if arguments.unpack is not None:
        unpack_root(tarball, arguments.unpack)
    print(tarball)
    return 0


if __name__ == "__main__":
    sys.exit(main())
