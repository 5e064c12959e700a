"""The kernel's list of mounts: which file system and device a path is on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

IN_MEMORY = frozenset({"tmpfs", "ramfs"})


@dataclass(frozen=True)
class Mount:
    """One line of /proc/self/mountinfo."""

    point: Path
    kind: str
    """Type of the file system: ext4, tmpfs, ..."""
    source: str
    """The device, such as /dev/mmcblk0p2."""
    options: frozenset[str]


def find_mount(path: Path, proc_root: Path = Path("/proc")) -> Mount | None:
    """Return the mount that holds the path, or will hold it; None if the kernel does not say."""
    try:
        lines = (proc_root / "self" / "mountinfo").read_text().splitlines()
    except OSError:
        return None
    wanted, found = path.resolve(), None
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, rest = before.split(), after.split()
        if len(fields) < 6 or len(rest) < 2:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4]))
        # a later mount on the same point hides an earlier one
        if wanted.is_relative_to(point) and (found is None or len(point.parts) >= len(found.point.parts)):
            options = frozenset(fields[5].split(",")) | frozenset(rest[2].split(",") if len(rest) > 2 else ())
            found = Mount(point, rest[0], rest[1], options)
    return found
