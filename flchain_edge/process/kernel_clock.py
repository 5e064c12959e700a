"""What the kernel knows of its clocks: which boot this is, and whether a time server has set the wall clock."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
TIMEX_BYTES = 512  # struct timex has 208 on 64-bit machines
TIME_ERROR = 5


def read_boot_key() -> str:
    """The kernel's id of this boot; of this process where there is none."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return f"process-{os.getpid()}"


def is_clock_synchronised() -> bool:
    """Whether a time server keeps the wall clock (adjtimex(2) says so); False where that cannot be asked."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    except (OSError, AttributeError):
        return False
    return 0 <= int(state) < TIME_ERROR
