"""What a power cut leaves of a SQLite database in WAL mode: any part of what was written since the last sync.

Built from two states of its files, before and after a commit, and the order in which SQLite writes and syncs between
them (sqlite.org: "WAL-mode file format", "Atomic commit"), which `strace` shows of this store as well. With
`synchronous = FULL`: a restarted log's header, sync; frames, sync; and if the log is then copied into the database, its
pages, sync. The shared memory file does not outlive a power cut.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

SECTORS = (512, 4096)
"""What a disk writes as a whole; in a block of this size nothing is torn."""
WAL_HEADER_BYTES = 32


@dataclass(frozen=True)
class Image:
    """The files of a database; what is not there is empty."""

    database: bytes
    log: bytes

    @classmethod
    def read(cls, path: Path) -> Image:
        log = path.with_name(path.name + "-wal")
        return cls(path.read_bytes(), log.read_bytes() if log.exists() else b"")

    def write(self, path: Path) -> None:
        path.write_bytes(self.database)
        path.with_name(path.name + "-wal").write_bytes(self.log)
        path.with_name(path.name + "-shm").unlink(missing_ok=True)


def cut_power(before: Image, after: Image, chooser: random.Random) -> Image:
    """A disk that lost its power at a random point on the way from one image to the other."""
    header, headed = before.log, before.log
    if before.log[:WAL_HEADER_BYTES] != after.log[:WAL_HEADER_BYTES]:
        headed = after.log[:WAL_HEADER_BYTES] + before.log[WAL_HEADER_BYTES:]
    stages = [
        (Image(before.database, header), Image(before.database, headed)),
        (Image(before.database, headed), Image(before.database, after.log)),
        (Image(before.database, after.log), after),
    ]
    start, end = chooser.choice([stage for stage in stages if stage[0] != stage[1]] or [(before, after)])
    sector = chooser.choice(SECTORS)
    return Image(
        _tear(start.database, end.database, sector, chooser),
        _tear(start.log, end.log, sector, chooser),
    )


def _tear(before: bytes, after: bytes, sector: int, chooser: random.Random) -> bytes:
    """Each changed sector is there or not, by a share drawn once; a file ends behind the last that is there."""
    kept, share = bytearray(before), chooser.choice((0.0, 0.1, 0.5, 0.9, 1.0))
    for offset in range(0, len(after), sector):
        new = after[offset : offset + sector]
        if new != before[offset : offset + sector] and chooser.random() < share:
            if len(kept) < offset + len(new):
                kept.extend(bytes(offset + len(new) - len(kept)))
            kept[offset : offset + len(new)] = new
    return bytes(kept)
