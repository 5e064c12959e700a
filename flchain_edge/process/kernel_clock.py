"""What the kernel knows about time: which boot this is, when a process began, whether a time server sets the clock."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
TIMEX_BYTES = 512  # struct timex has 208 on 64-bit machines
TIME_ERROR = 5


def read_boot_key() -> str:
    """Return the kernel's id of this boot, or one of this process if there is none."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return f"process-{os.getpid()}"


def read_start_ticks(pid: int, proc_root: Path = Path("/proc")) -> int | None:
    """Return when a process began, in clock ticks since the boot; None if it has ended.

    Together with its number this identifies it among all of this boot, even where a container has a boot id of its
    own, which a unit with a /proc of its own does not see.
    """
    try:
        stat = (proc_root / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    # fields 3, the state, and 22 of proc(5); a zombie counts as ended
    return None if fields[0] in "ZX" else int(fields[19])


def is_clock_synchronised() -> bool:
    """Return whether a time server keeps the wall clock, by adjtimex(2); False if that cannot be asked."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    except (OSError, AttributeError):
        return False
    return 0 <= int(state) < TIME_ERROR
