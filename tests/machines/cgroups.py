"""Control groups of a container's own, where no systemd of the machine gives it some.

Two containers in one group would share their services' groups by name, and stopping a service in one would kill the
other's.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
REMOVE_TIMEOUT_S = 10.0


@contextlib.contextmanager
def make_groups(name: str) -> Iterator[list[Path]]:
    """Make a group `name` in every hierarchy that is mounted, and remove it with all below it at the end."""
    is_unified = (GROUPS / "cgroup.procs").exists()
    parents = [GROUPS] if is_unified else [path for path in GROUPS.iterdir() if (path / "cgroup.procs").exists()]
    groups = []
    for parent in parents:
        group = parent / name
        group.mkdir()
        groups.append(group)
        for setting in ("cpuset.cpus", "cpuset.mems"):  # version 1: empty at first, and then nothing can enter
            if (group / setting).exists() and not is_unified and parent.name != "unified":
                (group / setting).write_text((parent / setting).read_text())
    try:
        yield groups
    finally:
        for group in groups:
            _remove(group)


def _remove(group: Path) -> None:
    """A group can be removed once the kernel has buried its last process."""
    deadline = time.monotonic() + REMOVE_TIMEOUT_S
    while group.exists():
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)
