"""`make test-cgroup2`: shares of the CPU under cgroup version 2, in a virtual machine with Debian's own kernel.

Kernel, Python and shell come from Debian packages of the release that this machine runs (`apt-get download`); nothing
is installed. The machine's only file system is an initial ramdisk with them and this repository's code. Its init does
what systemd does for a unit with Delegate=yes, and keeps the cores busy with processes of the lowest weight.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
UNNEEDED = frozenset({"media-types", "mime-support", "tzdata"})
"""The standard library recommends them in the disguise of a dependency; nothing that runs here reads them."""
CODE = (
    "agent",
    "flchain/__init__.py",
    "flchain/base/errors.py",
    "tools/__init__.py",
    "tools/bench",
    "tests/vm/guest.py",
)
CORES = 2
BOOT_TIMEOUT_S = 300.0
INIT = """#!/bin/sh
export PATH=/bin:/usr/bin PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo '+cpu +memory' > /sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/shares.service /sys/fs/cgroup/memory.service /sys/fs/cgroup/other.slice
echo 1 > /sys/fs/cgroup/other.slice/cpu.weight
for core in {cores}; do sh -c 'echo $$ > /sys/fs/cgroup/other.slice/cgroup.procs; while :; do :; done' & done
cd /flchain
sh -c 'echo $$ > /sys/fs/cgroup/shares.service/cgroup.procs; exec {python} -m tools.bench.agent.cpu_shares cgroup2
{seconds} 0' echo "shares: status $?"
sh -c 'echo $$ > /sys/fs/cgroup/memory.service/cgroup.procs; exec {python} tests/vm/guest.py'
echo "memory: status $?"
poweroff -f
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Build, boot, read what it says on its serial line."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="for each split (default %(default)s)")
    parser.add_argument("--kvm", action="store_true", help="faster where it works; else all is emulated")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kernel = build_root(folder)
        ramdisk = pack(folder, arguments.seconds)
        said = boot(kernel, ramdisk, arguments.seconds, arguments.kvm)
    print(said)
    results = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    statuses = dict(re.findall(r"^(shares|memory): status (\d+)", said, re.MULTILINE))
    worst = max((result["gap_points"] for result in results), default=None)
    print(f"{len(results)} splits, largest gap {worst} points; {statuses}")
    return int(statuses != {"shares": "0", "memory": "0"})


def build_root(folder: Path) -> Path:
    """Unpack the packages below `root`; the kernel's path."""
    if missing := [tool for tool in ("qemu-system-x86_64", "apt-get", "dpkg-deb", "cpio") if not shutil.which(tool)]:
        raise SystemExit(f"error: {', '.join(missing)}: not installed (Debian: qemu-system-x86, cpio)")
    (kernel_package,) = list_dependencies("linux-image-cloud-amd64")
    debs = folder / "debs"
    debs.mkdir()
    run("apt-get", "download", *list_packages(), kernel_package, cwd=debs)
    for deb in debs.iterdir():
        run("dpkg-deb", "-x", str(deb), str(folder / ("kernel" if deb.name.startswith("linux-") else "root")))
    for name in ("bin", "sbin", "lib", "lib64"):
        # since Debian 13 packages hold only what these links lead to, and base-files makes them
        if not (folder / "root" / name).exists():
            (folder / "root" / name).symlink_to(f"usr/{name}")
    return next((folder / "kernel" / "boot").glob("vmlinuz-*"))


def find_python() -> str:
    """The release's Python, such as python3.13."""
    return next(name.removesuffix("-minimal") for name in list_dependencies("python3-minimal") if "python" in name)


def list_packages() -> list[str]:
    """Python, a shell, and the libraries of both, by the names that the release has for them."""
    python = find_python()
    own = ["busybox-static", f"{python}-minimal", f"lib{python}-minimal", f"lib{python}-stdlib"]
    libraries = {library for name in own for library in list_dependencies(name)} - UNNEEDED
    return sorted({*own, *libraries})


def list_dependencies(package: str) -> list[str]:
    """What a package cannot do without. A name that is only provided by others is left out."""
    listed = run("apt-cache", "depends", "--important", package)
    return re.findall(r"^ +(?:Pre)?Depends: ([^<>\s]+)$", listed, re.MULTILINE)


def pack(folder: Path, seconds: float) -> Path:
    """The initial ramdisk."""
    root = folder / "root"
    for name in ("proc", "sys", "dev", "tmp"):
        (root / name).mkdir(exist_ok=True)
    for applet in ("sh", "mount", "mkdir", "poweroff", "echo"):
        if not (root / "bin" / applet).exists():
            (root / "bin" / applet).symlink_to("busybox")
    for part in CODE:
        source, target = REPOSITORY / part, root / "flchain" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    init = root / "init"
    init.write_text(INIT.format(python=find_python(), seconds=seconds, cores=" ".join(map(str, range(CORES)))))
    init.chmod(0o755)
    names = "\0".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    ramdisk = folder / "ramdisk.cpio"
    with ramdisk.open("wb") as stream:
        command = ("cpio", "--create", "--null", "--format=newc", "--quiet")
        subprocess.run(command, input=names.encode(), stdout=stream, cwd=root, check=True)
    return ramdisk


def boot(kernel: Path, ramdisk: Path, seconds: float, is_kvm: bool) -> str:
    """Run the machine until it switches itself off; what it said."""
    command = (
        "qemu-system-x86_64", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
        *(("-enable-kvm", "-cpu", "host") if is_kvm else ("-cpu", "max")),
        "-smp", str(CORES), "-m", "1024", "-kernel", str(kernel), "-initrd", str(ramdisk),
        "-append", "console=ttyS0 quiet panic=-1",
    )  # fmt: skip
    patience_s = BOOT_TIMEOUT_S + 20 * seconds
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=patience_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SystemExit(f"error: no end within {patience_s:g} s; the machine said: {error.stdout!r}") from error
    return f"{done.stdout}{done.stderr}".replace("\r", "")


def run(*command: str, cwd: Path | None = None) -> str:
    """What it says on stdout; its own complaint if it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command[:2])}: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
