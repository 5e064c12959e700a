"""The ring of samples: an SQLite database of its own, written in batches, bounded by age, samples and bytes.

What can be lost: a power cut loses the samples since the last flush; a full disk loses the oldest first, in the
database and then in memory, and logs it once; a damaged file is moved aside and a new one begun, since samples come
again, unlike the agent's own database.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import aiosqlite

from agent.edge.data.sample_schema import MIGRATIONS
from agent.edge.data.settings import SampleSettings
from agent.sensing.blocks import SAMPLES_PER_BLOCK_MAX, encode_block
from agent.sensing.samples import Sample
from agent.sensing.timeline import Boot, compute_age_cutoff_us, process_clock
from flchain.base.errors import LedgerCorrupt
from flchain_edge.storage.database_files import move_aside, remove_database
from flchain_edge.storage.sqlite import DiskFailed, StoreFull, open_database, store_errors, transaction

log = logging.getLogger("agent.samples")

BUFFERED_SAMPLES_MAX = 100_000
"""Samples that wait for the next flush: 30 s at 3,000 a second. When full, the oldest is dropped and counted."""
STREAMS_MAX = 256
"""Combinations of source and channels: a peer that keeps inventing names cannot fill the disk."""
NOTES_MAX = 1000
DELETED_BLOCKS_MAX = 2000
"""Blocks deleted at one flush, which keeps it short; the next flush deletes more."""
JOURNAL_BYTES_MIN = 512 * 1024
"""Reserved for the journal, so that a full disk has room for the deletion that makes room."""
MAKE_ROOM_SHARE = 20
"""This fraction of the blocks is dropped when the disk is full: one in this many."""
DAY_US = 86_400_000_000


@dataclass
class SourceHealth:
    """The state of one source; stored in the ring, so that `flchain-agent data` can show it while the agent runs."""

    name: str
    kind: str
    state: str = "starting"
    """starting, running, silent, failed (and tried again) or ended."""
    detail: str = ""
    samples: int = 0
    dropped: int = 0
    failures: int = 0
    seen_us: int = 0
    """When its newest sample was taken, by the boot clock; 0: none since the agent was started."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What the clocks show, and whether the wall clock is trusted."""

    boot_key: str
    now_us: int
    wall_us: int
    is_trusted: bool


Stream = tuple[str, tuple[tuple[str, str], ...]]
"""Source, and (channel, unit) in the order of the sample's values."""


class SampleRing:
    """Takes samples at any time, and writes them at `flush`. One owner, on one loop."""

    def __init__(self, db: aiosqlite.Connection, path: Path, settings: SampleSettings) -> None:
        self._db = db
        self._path = path
        self._settings = settings
        self._buffer: deque[Sample] = deque()
        self._streams: dict[Stream, int] = {}
        self._boots: list[Boot] = []
        self._rows = self._bytes = 0
        self._notes: deque[tuple[str, str]] = deque(maxlen=100)
        self._said: set[str] = set()
        self._lock = asyncio.Lock()
        self.dropped = 0
        """Samples lost for lack of room, in memory or among streams, since the start."""

    @classmethod
    async def open(cls, path: Path, settings: SampleSettings, moment: Moment) -> SampleRing:
        """Open or create it; move a damaged file aside. Raises ConfigError, StoreFull or DiskFailed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return await cls._open(path, settings, moment)
        except LedgerCorrupt as error:
            if Path(f"{path}.damaged-1").exists():
                remove_database(path)
                log.error("the samples are damaged again: starting a new file", extra={"fault": error.what})
            else:
                aside = move_aside(path)
                log.error("the samples are damaged: starting a new file", extra={"fault": error.what, "kept": aside})
            return await cls._open(path, settings, moment)

    @classmethod
    async def _open(cls, path: Path, settings: SampleSettings, moment: Moment) -> SampleRing:
        # A rollback journal and not WAL: blocks are only appended, which it writes once and WAL twice, and its file
        # stays as long as it is, so that a full disk has room to delete. Readers wait for a flush, which is short.
        db = await open_database(path, MIGRATIONS, journal="PERSIST")
        await asyncio.to_thread(_reserve_journal, path)
        try:
            ring = cls(db, path, settings)
            with store_errors(str(path)):
                try:
                    await ring._load(moment)
                except StoreFull:
                    await ring._make_room()
                    await ring._load(moment)
        except BaseException:
            await db.close()
            raise
        return ring

    async def _load(self, moment: Moment) -> None:
        async with transaction(self._db):  # streams whose last samples are gone
            await self._db.execute("DELETE FROM streams WHERE id NOT IN (SELECT stream FROM blocks)")
            await self._db.execute(
                "DELETE FROM boots WHERE id < (SELECT MAX(id) FROM boots) AND id < (SELECT MIN(boot) FROM blocks)"
            )
        async with self._db.execute("SELECT SUM(samples), SUM(bytes) FROM blocks") as cursor:
            row = await cursor.fetchone()
        self._rows, self._bytes = (row[0] or 0, row[1] or 0) if row else (0, 0)
        async with self._db.execute("SELECT id, source, channels FROM streams") as cursor:
            async for number, source, channels in cursor:
                self._streams[source, tuple((name, unit) for name, unit in json.loads(channels))] = number
        query = "SELECT id, key, offset_us, is_trusted, first_us, last_us FROM boots ORDER BY id"
        async with self._db.execute(query) as cursor:
            self._boots = [
                Boot(n, key, off, bool(trust), first, last) async for n, key, off, trust, first, last in cursor
            ]
        if not self._boots or self._boots[-1].key != moment.boot_key:
            number = self._boots[-1].number + 1 if self._boots else 1
            offset_us = moment.wall_us - moment.now_us
            boot = Boot(number, moment.boot_key, offset_us, moment.is_trusted, moment.now_us, moment.now_us)
            self._boots.append(boot)
            async with transaction(self._db):
                await self._db.execute("INSERT INTO boots VALUES (?, ?, ?, ?, ?, ?)", _to_row(boot))

    async def get_newest_us(self) -> dict[str, int]:
        """Return each source's newest sample of this boot."""
        query = (
            "SELECT source, MAX(last_us) FROM blocks JOIN streams ON streams.id = blocks.stream"
            " WHERE boot = ? GROUP BY source"
        )
        with store_errors(str(self._path)):
            async with self._db.execute(query, (self._boots[-1].number,)) as cursor:
                return {source: last_us async for source, last_us in cursor}

    def add(self, sample: Sample) -> None:
        """Take a sample; if BUFFERED_SAMPLES_MAX wait already, drop the oldest."""
        if len(self._buffer) >= BUFFERED_SAMPLES_MAX:
            self._buffer.popleft()
            self._lose(1, "samples dropped: too many arrived before the next write")
        self._buffer.append(sample)

    def note(self, kind: str, detail: str) -> None:
        """Record an event for the dataset card."""
        self._notes.append((kind, detail[:300]))

    def _lose(self, count: int, why: str) -> None:
        self.dropped += count
        if why not in self._said:
            self._said.add(why)
            self.note("dropped", why)
            log.warning(why)

    async def flush(self, moment: Moment, health: Iterable[SourceHealth] = ()) -> bool:
        """Write what waits, delete what is too old or too much. Return False if the disk refused; samples then stay."""
        async with self._lock:
            taken = list(itertools.islice(self._buffer, BUFFERED_SAMPLES_MAX))
            boot, jump_us = process_clock(self._boots[-1], moment.now_us, moment.wall_us, moment.is_trusted)
            if jump_us:
                log.warning("the wall clock was set", extra={"by_s": jump_us // 1_000_000})
                self.note("clock", f"the wall clock was set by {jump_us / 1e6:+.0f} s")
            self._boots[-1] = boot
            try:
                try:
                    await self._write(taken, boot, health)
                except StoreFull:
                    await self._make_room()
                    await self._write(taken, boot, health)
            except (StoreFull, DiskFailed) as error:
                if "disk" not in self._said:
                    self._said.add("disk")
                    log.error("samples cannot be written; they are kept in memory", extra={"fault": str(error)})
                return False
            if "disk" in self._said:
                log.info("samples can be written again", extra={"lost": self.dropped})
                self.note("disk", f"samples could not be written for a while; {self.dropped} lost in all")
                self._said.clear()
            for sample in taken:
                # `add` has counted the first of these as dropped; they are written after all
                if self._buffer and self._buffer[0] is sample:
                    self._buffer.popleft()
            return True

    async def _write(self, samples: list[Sample], boot: Boot, health: Iterable[SourceHealth]) -> None:
        rows, size = self._rows, self._bytes
        streams = dict(self._streams)
        async with transaction(self._db) as db:
            await db.execute(
                "UPDATE boots SET offset_us = ?, is_trusted = ?, last_us = ? WHERE id = ?",
                (boot.offset_us, boot.is_trusted, boot.last_us, boot.number),
            )
            for stream, group in _group(samples).items():
                if (number := await self._get_stream(db, stream, streams)) is None:
                    self._lose(len(group), f"samples dropped: more than {STREAMS_MAX} sets of channels")
                    continue
                for part in _split(group):
                    size += await _insert_block(db, number, boot.number, stream, part)
                    rows += len(part)
            deleted_rows, deleted_bytes = await self._drop_old(db, rows, size)
            await db.executemany(
                "INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (h.name, h.kind, h.state, h.detail, h.samples, h.dropped, h.failures, boot.number, h.seen_us)
                    for h in health
                ],
            )
            await db.executemany(
                "INSERT INTO notes (boot, time_us, kind, detail) VALUES (?, ?, ?, ?)",
                [(boot.number, boot.last_us, kind, detail) for kind, detail in self._notes],
            )
            await db.execute("DELETE FROM notes WHERE id <= (SELECT MAX(id) FROM notes) - ?", (NOTES_MAX,))
        self._notes.clear()
        self._streams = streams
        self._rows, self._bytes = rows - deleted_rows, size - deleted_bytes

    async def _get_stream(self, db: aiosqlite.Connection, stream: Stream, streams: dict[Stream, int]) -> int | None:
        if stream not in streams:
            if len(streams) >= STREAMS_MAX:
                return None
            number = max(streams.values(), default=0) + 1
            await db.execute("INSERT INTO streams VALUES (?, ?, ?)", (number, stream[0], json.dumps(stream[1])))
            streams[stream] = number
        return streams[stream]

    async def _drop_old(self, db: aiosqlite.Connection, rows: int, size: int) -> tuple[int, int]:
        """Delete the oldest blocks while there are too many samples or bytes, and those that are too old.

        The oldest are those that were written first: no clock decides that.
        """
        limits = self._settings
        cutoffs = {
            boot.number: compute_age_cutoff_us(self._boots, boot, int(limits.age_max_days * DAY_US))
            for boot in self._boots
        }
        doomed, dropped_rows, dropped_bytes = [], 0, 0
        query = "SELECT id, boot, last_us, samples, bytes FROM blocks ORDER BY id LIMIT ?"
        async with db.execute(query, (DELETED_BLOCKS_MAX,)) as cursor:
            async for number, boot, last_us, samples, block_bytes in cursor:
                is_too_much = (
                    rows - dropped_rows > limits.rows_max or size - dropped_bytes > limits.megabytes_max * 1_000_000
                )
                if not is_too_much and last_us >= cutoffs.get(boot, last_us + 1):
                    break
                doomed.append((number,))
                dropped_rows += samples
                dropped_bytes += block_bytes
        await db.executemany("DELETE FROM blocks WHERE id = ?", doomed)
        return dropped_rows, dropped_bytes

    async def _make_room(self) -> None:
        """Drop the oldest blocks of a full disk; the next write can use their pages."""
        async with transaction(self._db) as db:
            async with db.execute("SELECT COUNT(*) FROM blocks") as cursor:
                row = await cursor.fetchone()
            count = -(-(row[0] if row else 0) // MAKE_ROOM_SHARE)
            query = "SELECT id, samples, bytes FROM blocks ORDER BY id LIMIT ?"
            async with db.execute(query, (count,)) as cursor:
                doomed = [tuple(found) async for found in cursor]
            await db.executemany("DELETE FROM blocks WHERE id = ?", [(number,) for number, _, _ in doomed])
        self._rows -= sum(samples for _, samples, _ in doomed)
        self._bytes -= sum(size for _, _, size in doomed)
        if doomed:
            self._lose(sum(samples for _, samples, _ in doomed), "the disk is full: the oldest samples are dropped")

    @property
    def waiting(self) -> int:
        """How many samples are in memory."""
        return len(self._buffer)

    @property
    def rows(self) -> int:
        """How many samples are on the disk."""
        return self._rows

    @property
    def boot(self) -> Boot:
        """The present boot."""
        return self._boots[-1]

    async def close(self) -> None:
        """Close the file; call `flush` before."""
        await self._db.close()


def _reserve_journal(path: Path) -> None:
    """Extend the empty journal to JOURNAL_BYTES_MIN: SQLite reads no further than it has written."""
    with contextlib.suppress(OSError):  # the disk is full already, or its file system cannot reserve space
        descriptor = os.open(f"{path}-journal", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.posix_fallocate(descriptor, 0, JOURNAL_BYTES_MIN)
        finally:
            os.close(descriptor)


def _to_row(boot: Boot) -> tuple[object, ...]:
    return (boot.number, boot.key, boot.offset_us, boot.is_trusted, boot.first_us, boot.last_us)


def _group(samples: Iterable[Sample]) -> dict[Stream, list[Sample]]:
    """Group samples by source and set of channels, each in order of time."""
    groups: dict[Stream, list[Sample]] = {}
    for sample in samples:
        stream = (sample.source, tuple((name, sample.units.get(name, "")) for name in sorted(sample.values)))
        groups.setdefault(stream, []).append(sample)
    for group in groups.values():
        group.sort(key=lambda sample: sample.time_us)
    return groups


def _split(group: list[Sample]) -> Iterable[list[Sample]]:
    return (group[start : start + SAMPLES_PER_BLOCK_MAX] for start in range(0, len(group), SAMPLES_PER_BLOCK_MAX))


async def _insert_block(db: aiosqlite.Connection, stream: int, boot: int, key: Stream, part: list[Sample]) -> int:
    columns = [[sample.values[name] for sample in part] for name, _ in key[1]]
    data = encode_block([sample.time_us for sample in part], columns, [unit for _, unit in key[1]])
    await db.execute(
        "INSERT INTO blocks (stream, boot, first_us, last_us, samples, bytes, data) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (stream, boot, part[0].time_us, part[-1].time_us, len(part), len(data), data),
    )
    return len(data)
