"""`make test` of this checkout under the Python of another Debian release, as a plain user in a root of its own.

`python -m tests.machines.whole_suite trixie` (make test-python313). Wheels are kept beside the roots (FLCHAIN_ROOTS).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from flchain.base.errors import FlchainError
from tests.machines.chroot import Chroot, prepare
from tools.images.emulation import get_architecture
from tools.images.programs import list_missing, run_tool
from tools.images.roots import RELEASES, Root, get_cache, make_root, unpack_root

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "ca-certificates", "git", "gpsd", "gpsd-clients", "iproute2", "make", "mosquitto", "nftables", "procps",
    "python3-venv", "systemd",
)  # fmt: skip
"""What CONTRIBUTING asks for, and the programs without which some tests are left out."""
NEED_ROOT = (
    "tests/edge/agent/test_cpu.py", "tests/edge/tools/test_broker_files.py",
    "tests/system/test_operating.py", "tests/system/test_slow_device.py",
)  # fmt: skip
"""Files with tests that make mounts, groups, firewalls or name spaces, and that a plain user leaves out."""
GROUPS = Path("/sys/fs/cgroup")
PROGRAMS = ("git", "mmdebstrap", "tar", "unshare")
USER, USER_ID = "tester", 1000
HOME = f"/srv/{USER}"
INSIDE = f"{HOME}/flchain"
WHEELS = "/var/cache/wheels"
EXIT_UNAVAILABLE = 69
GIT = ("git", "-c", "safe.directory=*")
"""CI runs this as root in a checkout that another user owns."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; the exit code is that of `make`, 69 where no root can be made."""
    parser = argparse.ArgumentParser(prog="python -m tests.machines.whole_suite", description=__doc__.split("\n")[0])
    parser.add_argument("release", choices=RELEASES)
    parser.add_argument("targets", nargs="*", default=["test"], help="targets of make and its variables; default: test")
    arguments = parser.parse_args(argv)
    missing = list_missing(PROGRAMS)
    if os.geteuid() != 0:
        missing = ("needs root (mmdebstrap, chroot): sudo make ...", *missing)
    if missing:
        print("".join(f"error: {text}\n" for text in missing), end="", file=sys.stderr)
        return EXIT_UNAVAILABLE
    try:
        with make_machine(arguments.release) as machine:
            code = run_make(machine, arguments.targets)
            return code or (run_as_root(machine) if "test" in arguments.targets else 0)
    except FlchainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


@contextlib.contextmanager
def make_machine(release: str) -> Iterator[Chroot]:
    """Yield a fresh root with a plain user who has a clone of this checkout; it is gone afterwards."""
    cache = get_cache()
    tarball = make_root(Root(release, get_architecture(), PACKAGES), cache)
    wheels = cache / "wheels"
    wheels.mkdir(exist_ok=True)
    os.chown(wheels, USER_ID, USER_ID)
    with tempfile.TemporaryDirectory(prefix="suite-", dir=cache, ignore_cleanup_errors=True) as folder:
        root = prepare(unpack_root(tarball, Path(folder) / "root"), release)
        machine = Chroot(root.folder, ((wheels, WHEELS),))
        machine.run("useradd", "--uid", str(USER_ID), "--create-home", "--home-dir", HOME, USER)
        machine.run("mkdir", "-p", "/run/systemd")  # which every booted machine has
        copy_checkout(machine.folder / INSIDE.lstrip("/"))
        machine.run("chown", "-R", f"{USER}:{USER}", INSIDE)
        yield machine


def copy_checkout(target: Path) -> None:
    """Clone this checkout, with what is changed and not committed yet."""
    run_tool((*GIT, "clone", "--quiet", "--no-hardlinks", str(CHECKOUT), str(target)))
    for name in list_files("--modified", "--others", "--exclude-standard"):
        if (CHECKOUT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, target / name)
    for name in list_files("--deleted"):
        (target / name).unlink(missing_ok=True)


def list_files(*which: str) -> list[str]:
    """Return names of files of this checkout as git lists them."""
    return list(filter(None, run_tool((*GIT, "-C", str(CHECKOUT), "ls-files", "-z", *which)).split("\0")))


def run_make(machine: Chroot, targets: Sequence[str]) -> int:
    """Run make inside, its output as it comes; its exit code."""
    env = {"HOME": HOME, "PIP_CACHE_DIR": WHEELS} | {name: os.environ[name] for name in ("CI",) if name in os.environ}
    command = machine.build_command("make", "-C", INSIDE, *targets, env=env, user=USER)
    return subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode


def run_as_root(machine: Chroot) -> int:
    """Run the files that a plain user could not run whole; the exit code of pytest."""
    print("once more as root, what needs root:", flush=True)
    machine = replace(machine, shared=((GROUPS, str(GROUPS)),))
    words = ("python", "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "-p", "no:cacheprovider", *NEED_ROOT)
    command = machine.build_command("sh", "-c", f"cd {INSIDE} && exec .venv/bin/{' '.join(words)}")
    return subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
