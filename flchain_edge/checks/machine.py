"""Check disk, card, memory and service of the machine under a node."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from flchain_edge.checks.checkup import Finding, fail, ok, warn
from flchain_edge.formatting import format_bytes
from flchain_edge.storage.mounts import Mount, find_mount

DISK_FAIL_BYTES, DISK_WARN_BYTES = 64_000_000, 500_000_000
"""Below the first a database may be unable to grow; below the second the space will not last long."""
MEMORY_FAIL_BYTES, MEMORY_WARN_BYTES = 32_000_000, 128_000_000
LIFE_WARN = 0x08
"""eMMC's estimate of its used life in steps of a tenth (JEDEC 5.0): 70 to 80 percent."""
SYSTEMD_RUNS = Path("/run/systemd/system")
SYSTEMCTL_TIMEOUT_S = 5.0
UNIT_PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "NRestarts",
    "UnitFileState",
    "StatusText",
    "Delegate",
)


def check_disk(folder: Path, sysfs_root: Path = Path("/sys"), proc_root: Path = Path("/proc")) -> Iterator[Finding]:
    """Check free space, whether the disk can be written, and what the card reports about its health."""
    place = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(place).free
    text = f"{format_bytes(free)} free on the disk of {folder}"
    advice = "free some space, or use a larger card; a full disk stops the node but loses nothing"
    if free < DISK_FAIL_BYTES:
        yield fail(text, advice)
    else:
        yield warn(text, advice) if free < DISK_WARN_BYTES else ok(text)
    mount = find_mount(place, proc_root)
    if mount is None:
        return
    if "ro" in mount.options:
        yield fail(
            f"{mount.point} is mounted read-only; the kernel often does this to a failing card",
            "journalctl -k; copy what matters and replace the card",
        )
    yield from _check_card(mount, sysfs_root)


def _check_card(mount: Mount, sysfs_root: Path) -> Iterator[Finding]:
    """Check what some cards and file systems report; a plain SD card reports nothing about its wear."""
    device = Path(mount.source).name
    errors = _read_number(sysfs_root / "fs" / "ext4" / device / "errors_count", 10)
    if errors:
        yield warn(
            f"the file system on {device} has counted {errors} errors",
            "check it at the next boot (fsck); back up first",
        )
    if not device.startswith("mmcblk"):
        return
    card = sysfs_root / "block" / device.partition("p")[0] / "device"
    end = _read_number(card / "pre_eol_info", 16)
    if end is not None and end > 1:
        yield warn(f"{device} reports that its spare blocks are running out", "replace the card soon")
    try:
        used = max(int(word, 16) for word in (card / "life_time").read_text().split())
    except (OSError, ValueError):
        yield ok(
            f"{device} is a card that does not report wear; `flchain-agent status` shows how much is written a day"
        )
        return
    text = f"{device} reports that {max(0, used - 1) * 10} to {used * 10}% of its life is used"
    yield warn(text, "plan to replace it") if used >= LIFE_WARN else ok(text)


def _read_number(file: Path, base: int) -> int | None:
    try:
        return int(file.read_text().strip(), base)
    except (OSError, ValueError):
        return None


def check_memory(proc_root: Path = Path("/proc")) -> Iterator[Finding]:
    """Check the memory that is free without swapping."""
    lines = (proc_root / "meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    text, advice = f"{format_bytes(free)} of memory free", "see what else runs: ps -eo rss,args --sort=-rss | head"
    if free < MEMORY_FAIL_BYTES:
        yield fail(text, advice)
    else:
        yield warn(text, advice) if free < MEMORY_WARN_BYTES else ok(text)


def check_unit(unit: str, systemd: Path = SYSTEMD_RUNS) -> Iterator[Finding]:
    """Check the service, where systemd runs and knows it."""
    if not systemd.is_dir() or shutil.which("systemctl") is None:
        yield ok("systemd is not running here: nothing restarts the node if it ends")
        return
    command = ("systemctl", "show", unit, f"--property={','.join(UNIT_PROPERTIES)}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=SYSTEMCTL_TIMEOUT_S, check=False)
    yield from judge_unit(unit, dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line))


def judge_unit(unit: str, known: dict[str, str]) -> Iterator[Finding]:
    """Judge a unit by the properties that `systemctl show` prints."""
    if known.get("LoadState") != "loaded":
        yield warn(f"{unit} is not installed", "see docs/install.md; without it nothing restarts the node")
        return
    state, restarts = known.get("ActiveState", ""), int(known.get("NRestarts") or 0)
    text = f"{unit} is {state} ({known.get('SubState', '')}), {restarts} restarts since the boot or its last start"
    if state == "failed":
        yield fail(
            f"{text}; result {known.get('Result')}", f"journalctl -u {unit} -n 50; then systemctl restart {unit}"
        )
    elif state != "active":
        yield warn(text, f"systemctl start {unit}")
    elif restarts:
        yield warn(text, f"journalctl -u {unit} -p warning shows why it ended")
    else:
        yield ok(text)
    if known.get("UnitFileState") not in ("enabled", "enabled-runtime", "static", "linked"):
        yield warn(f"{unit} does not start at boot", f"systemctl enable {unit}")
