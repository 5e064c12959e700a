"""Set the C library's allocator up for a small board: one arena, and freed large blocks go back to the system."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""mallopt(3). Setting a threshold also ends its growth with the largest block that was ever freed."""
THRESHOLD_BYTES = 64 * 1024


def keep_heap_small() -> None:
    """Set up this process and its forks; call before any thread starts. Does nothing without glibc."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return
    library.mallopt(M_ARENA_MAX, 1)
    library.mallopt(M_TRIM_THRESHOLD, THRESHOLD_BYTES)
    library.mallopt(M_MMAP_THRESHOLD, THRESHOLD_BYTES)


def return_memory() -> None:
    """Give free pages back to the system, once much work is done."""
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
