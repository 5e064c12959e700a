"""The device's database: model and place in the chain, work and scores of the open round, outbox, history. SQLite.

Written to spare the card: one transaction for all that an event changes, nothing large twice, and a write-ahead log
that collects many rounds before it is copied into the database (docs/power.md has the figures).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import aiosqlite
import numpy as np

from agent.core.values import DropOutbox, Report, SaveOutbox, SavePosition, SaveScores, SaveWork, Scores, Work
from agent.edge.store.schema import MIGRATIONS
from agent.edge.store.vectors import (
    PACKED,
    UNKNOWN_RESIDUAL,
    Saved,
    add_up,
    drop_unused,
    find_residual,
    read_vector,
    write_model,
    write_residual,
)
from agent.scheduling.energy import UNKNOWN, Energy
from flchain.base.crypto import Identity
from flchain.base.errors import ConfigError, InvalidMessage, LedgerCorrupt, MalformedMessage
from flchain.base.fixedpoint import encode_vector
from flchain.base.frozen import replace
from flchain.base.types import Hash, ModelVector, Round
from flchain.ledger.state import start_carried
from flchain.light.follow import LightState, restore
from flchain.light.trust import CertifiedHeader
from flchain.wire.envelope import hash_message, open_envelope, verify_envelope
from flchain.wire.fields import Kind
from flchain_edge.storage.sqlite import DiskFailed, StoreFull, open_database, store_errors, transaction, write

STORE_FILE = "agent.db"
CHECKPOINT_PAGES = 2_048
"""The write-ahead log is copied into the database from 8 MiB on: a page changed by many rounds is copied once."""
ROUNDS_KEPT_MAX = 20_000
"""Lines of history, two weeks at a round a minute; older ones are dropped, ROUNDS_DROPPED at a time."""
ROUNDS_DROPPED = 256
DROPS_WAITING_MAX = 64


@dataclass(frozen=True)
class RoundLine:
    """One line of history: what a round yielded and what it cost. Bytes count from the start of the process."""

    report: Report
    bytes_up: int
    bytes_down: int
    energy: Energy = UNKNOWN
    training_energy: Energy = UNKNOWN
    disk_bytes: int | None = None
    """Bytes that this process and its children have written to disks; None is unmeasured."""


Write: TypeAlias = SaveWork | SaveScores | SaveOutbox | SavePosition | RoundLine
Change: TypeAlias = Write | DropOutbox


def _check_message(raw: bytes, kind: Kind, number: int, chain: Hash, identity: Identity) -> None:
    """Raise InvalidMessage unless these are the bytes of this device's own message for this round."""
    envelope = open_envelope(raw, chain)
    if (envelope.kind, envelope.sender, envelope.number) != (kind, identity.address, number):
        raise MalformedMessage(f"stored work is not a {kind.name} of this device for round {number}")
    verify_envelope(envelope, chain, identity.public_key)


@dataclass(frozen=True, eq=False)
class Stored:
    """What is on the disk at a start."""

    light: LightState
    residual: ModelVector
    work: Work | None
    outbox: dict[Hash, tuple[Round, bytes]]
    scores: Scores | None


class Store:
    """One device's database. Raises StoreFull if the disk is full; nothing of that write is then kept."""

    def __init__(self, db: aiosqlite.Connection) -> None:
        self._db = db
        self._saved = Saved()
        self._held: dict[Hash, bytes] = {}
        """Messages that the work on disk holds, by digest."""
        self._dropped: tuple[Hash, ...] = ()
        """Out of the outbox with the next write: until then a restart would only say again what has its receipt."""

    @classmethod
    async def open(cls, path: Path, chain: Hash) -> Store:
        """Open or create. Raises ConfigError if the file belongs to another chain, LedgerCorrupt if it is damaged."""
        path.parent.mkdir(parents=True, exist_ok=True)
        db = await open_database(path, MIGRATIONS, checkpoint_pages=CHECKPOINT_PAGES)
        db.text_factory = bytearray  # no column holds text: text is damage, and need not be UTF-8
        store = cls(db)
        try:
            if not await store._fetch("SELECT chain FROM chain"):
                async with transaction(db):
                    await db.execute("INSERT OR IGNORE INTO chain (id, chain) VALUES (1, ?)", (chain,))
            if await store._fetch("SELECT chain FROM chain") != [(chain,)]:
                raise ConfigError((f"database {path}: belongs to another chain than the genesis file",))
            for messages in await store._fetch("SELECT commit_raw, reveal_raw FROM work"):
                store._held = {hash_message(raw): raw for raw in messages if type(raw) is bytes}
        except BaseException:
            await db.close()
            raise
        return store

    async def close(self) -> None:
        """Write what waits for the next write, if the disk allows it, and close the file."""
        try:
            if self._dropped:
                with contextlib.suppress(StoreFull, DiskFailed):  # what is not dropped is published again, to no effect
                    await self._write((), self._dropped)
        finally:
            await self._db.close()

    async def load(self, genesis_light: LightState, empty: ModelVector, identity: Identity) -> Stored:
        """Return what was saved, verified again; or the genesis. Raises LedgerCorrupt.

        Work and outbox must be messages of this device, whole: they are sent as they are.
        """
        try:
            return await self._load(genesis_light, empty, identity)
        except (InvalidMessage, ValueError) as error:
            code = f"{error.code}: " if isinstance(error, InvalidMessage) else ""
            raise LedgerCorrupt(None, f"the device's database: {code}{error}") from error

    async def _load(self, genesis_light: LightState, empty: ModelVector, identity: Identity) -> Stored:
        light, residual, work, count = genesis_light, empty, None, genesis_light.params.parameters_count
        residuals = await self._read("SELECT id, encoding, vector FROM residuals ORDER BY id", (int, int, bytes))
        numbers = {}
        for header, certificate, sets, number, carried_number in await self._read(
            "SELECT header, certificate, sets, residual, carried FROM position", (bytes, bytes, bytes, int, int)
        ):
            model, carried = await self._load_model(count), b""
            if carried_number != UNKNOWN_RESIDUAL:
                carried_count = sum(part.size for part in start_carried(light.params))
                numbers[carried_number] = find_residual(residuals, carried_number, carried_count)
                carried = encode_vector(numbers[carried_number])
            light = restore(light, CertifiedHeader(header, certificate, sets), encode_vector(model), carried)
            residual = numbers[number] = find_residual(residuals, number, count)
        query = "SELECT round, commit_raw, reveal_raw, residual, samples, training_ms, will_score FROM work"
        for found, commit, reveal, number, samples, training_ms, will_score in await self._read(
            query, (int, bytes, bytes, int, int, int, int)
        ):
            _check_message(commit, Kind.COMMIT, found, light.chain, identity)
            _check_message(reveal, Kind.REVEAL, found, light.chain, identity)
            numbers[number] = numbers.get(number, find_residual(residuals, number, count))
            work = Work(Round(found), commit, reveal, numbers[number], samples, training_ms, bool(will_score))
        known = tuple((number, vector) for number, vector in numbers.items() if number)
        self._saved = replace(self._saved, residuals=known)
        scores = await self._load_scores(light.chain, identity)
        return Stored(light, residual, work, await self._load_outbox(self._held), scores)

    async def _load_scores(self, chain: Hash, identity: Identity) -> Scores | None:
        scores = None
        query = "SELECT round, commit_raw, reveal_raw FROM scores"
        for number, commit, reveal in await self._read(query, (int, bytes, bytes)):
            _check_message(commit, Kind.SCORE_COMMIT, number, chain, identity)
            _check_message(reveal, Kind.SCORE_REVEAL, number, chain, identity)
            scores = Scores(Round(number), commit, reveal)
        return scores

    async def _load_model(self, count: int) -> ModelVector:
        bases = await self._read("SELECT encoding, vector FROM model_base", (int, bytes))
        if not bases:
            raise ValueError("a position without a model")
        encoding, data = bases[0]
        steps = [row[0] for row in await self._read("SELECT vector FROM model_steps ORDER BY number", (bytes,))]
        model = add_up(read_vector(encoding, data, count), steps)
        # A base that is not packed yet is rewritten with the next model.
        base_bytes = len(data) if encoding == PACKED else 0
        self._saved = Saved(model, base_bytes, sum(map(len, steps)), len(steps))
        return model

    async def _load_outbox(self, held: dict[Hash, bytes]) -> dict[Hash, tuple[Round, bytes]]:
        outbox = {}
        for digest, number, raw in await self._read("SELECT digest, round, raw FROM outbox", (bytes, int, bytes)):
            whole = raw or held.get(Hash(digest), b"")
            if hash_message(whole) != digest:
                raise ValueError("a message in the outbox is not the one that was stored")
            outbox[Hash(digest)] = (Round(number), whole)
        return outbox

    async def _read(self, query: str, types: tuple[type, ...]) -> list[tuple[Any, ...]]:
        """Return all rows. Raises LedgerCorrupt: SQLite allows any type in any column."""
        rows = await self._fetch(query)
        if any(type(value) is not wanted for row in rows for value, wanted in zip(row, types, strict=True)):
            raise LedgerCorrupt(None, "the device's database: a value of another type than was stored")
        return rows

    async def _fetch(self, query: str) -> list[tuple[Any, ...]]:
        with store_errors():
            async with self._db.execute(query) as cursor:
                return [tuple(row) async for row in cursor]

    async def save(self, *changes: Change) -> None:
        """Save everything in one transaction: durable when this returns, and not at all if it raises.

        Removals from the outbox alone wait for the next write, or for `close`: at most DROPS_WAITING_MAX. Raises
                StoreFull or DiskFailed.
        """
        dropped = dict.fromkeys(self._dropped)
        for change in changes:
            if isinstance(change, DropOutbox):
                dropped[change.digest] = None
            elif isinstance(change, SaveOutbox):
                dropped.pop(change.digest, None)
        writes = [change for change in changes if not isinstance(change, DropOutbox)]
        if writes or len(dropped) > DROPS_WAITING_MAX:
            await self._write(writes, dropped)
            dropped = {}
        self._dropped = tuple(dropped)

    async def _write(self, writes: Iterable[Write], dropped: Iterable[Hash]) -> None:
        before = self._saved, self._held
        self._saved, self._held = await write(self._db, lambda db: _write_changes(db, writes, dropped, *before))


def _write_changes(
    db: sqlite3.Connection, writes: Iterable[Write], dropped: Iterable[Hash], saved: Saved, held: dict[Hash, bytes]
) -> tuple[Saved, dict[Hash, bytes]]:
    """In the database's thread, inside a transaction; what the database holds once that is committed."""
    for change in writes:
        match change:
            case SaveWork(work):
                saved, held = _write_work(db, work, saved, held)
            case SaveScores(scores):
                db.execute(
                    "INSERT OR REPLACE INTO scores (id, round, commit_raw, reveal_raw) VALUES (1, ?, ?, ?)",
                    (scores.round, scores.commit, scores.reveal),
                )
            case SaveOutbox(digest, number, raw):
                row = (digest, number, b"" if digest in held else raw)
                db.execute("INSERT OR IGNORE INTO outbox (digest, round, raw) VALUES (?, ?, ?)", row)
            case SavePosition():
                saved = _write_position(db, change, saved)
            case RoundLine():
                _write_line(db, change)
    for digest in dropped:
        db.execute("DELETE FROM outbox WHERE digest = ?", (digest,))
    return drop_unused(db, saved), held


def _write_position(db: sqlite3.Connection, effect: SavePosition, saved: Saved) -> Saved:
    saved = write_model(db, saved, effect.light.model)
    saved, number = write_residual(db, saved, effect.residual)
    carried, carried_number = effect.light.carried, UNKNOWN_RESIDUAL
    if carried is not None:
        saved, carried_number = write_residual(db, saved, np.concatenate(carried))
    db.execute(
        "INSERT OR REPLACE INTO position (id, header, certificate, sets, residual, carried) VALUES (1, ?, ?, ?, ?, ?)",
        (effect.head.header, effect.head.certificate, effect.head.sets, number, carried_number),
    )
    return saved


def _write_work(
    db: sqlite3.Connection, work: Work, saved: Saved, held: dict[Hash, bytes]
) -> tuple[Saved, dict[Hash, bytes]]:
    holds = _get_messages(work)
    for digest, raw in held.items():
        if digest not in holds:  # still in the outbox, perhaps, and soon held by no work any more
            db.execute("UPDATE outbox SET raw = ? WHERE digest = ? AND raw = x''", (raw, digest))
    saved, number = write_residual(db, saved, work.residual)
    db.execute(
        "INSERT OR REPLACE INTO work"
        " (id, round, commit_raw, reveal_raw, residual, samples, training_ms, will_score)"
        " VALUES (1, ?, ?, ?, ?, ?, ?, ?)",
        (work.round, work.commit, work.reveal, number, work.samples, work.training_ms, work.will_score),
    )
    return saved, holds


def _write_line(db: sqlite3.Connection, line: RoundLine) -> None:
    report, work = line.report, line.report.work
    row = (
        report.round,
        report.model_hash,
        report.is_accepted,
        work.samples if work else 0,
        work.training_ms if work else 0,
        line.bytes_up,
        line.bytes_down,
        _to_mj(line.energy),
        _to_mj(line.training_energy),
        line.energy.source,
        line.disk_bytes,
    )
    db.execute("INSERT OR REPLACE INTO rounds VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    if report.round % ROUNDS_DROPPED == 0:
        db.execute("DELETE FROM rounds WHERE round <= ?", (report.round - ROUNDS_KEPT_MAX,))


def _get_messages(work: Work | None) -> dict[Hash, bytes]:
    """Return the messages of the work, by digest."""
    return {hash_message(raw): raw for raw in (work.commit, work.reveal)} if work else {}


def _to_mj(energy: Energy) -> int:
    """Return millijoules; 0 beside EnergySource.UNMEASURED means unknown."""
    return round(1_000 * (energy.joules or 0.0))
