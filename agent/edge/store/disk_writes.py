"""Count what this process and its children write to the disk: it decides how long an SD card lasts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

CHILDREN_MAX = 64
"""More processes than this below the agent are not counted."""


def read_disk_bytes(proc_root: Path = Path("/proc"), process: str = "self") -> int | None:
    """Return bytes since the start, of this process and of its children, running or ended.

    The kernel counts a page when it becomes dirty, so a page that is written again before it reaches the disk counts
    once, and a file system in memory not at all. None is unmeasured: the kernel has no such file.
    """
    own = _read_write_bytes(proc_root / process / "io")
    if own is None:
        return None
    return own + sum(_read_write_bytes(proc_root / child / "io") or 0 for child in _list_children(proc_root, process))


def _list_children(proc_root: Path, process: str) -> Iterator[str]:
    """Yield the ids of all processes below this one."""
    waiting, seen = [process], 0
    while waiting:
        for task in sorted((proc_root / waiting.pop() / "task").glob("*/children")):
            try:
                children = task.read_text().split()
            except OSError:  # that thread has just ended
                continue
            for child in children[: CHILDREN_MAX - seen]:
                seen += 1
                waiting.append(child)
                yield child


def _read_write_bytes(file: Path) -> int | None:
    try:
        lines = file.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None
