"""The device's database: model and place in the chain, work and scores of the open round, outbox, history. SQLite."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiosqlite

from agent.values import Report, SavePosition, Scores, Work
from flchain.codecs import carried_bytes
from flchain.crypto import Identity
from flchain.errors import ConfigError, InvalidMessage, LedgerCorrupt, MalformedMessage
from flchain.fixedpoint import vector_bytes, vector_from_bytes
from flchain.light import LightState, restore
from flchain.messages import Kind
from flchain.trust import Head
from flchain.types import Hash, ModelVector, Round
from flchain.wire import hash_message, open_envelope, verify_envelope
from flchain_edge.sqlite import open_database, store_errors, transaction

STORE_FILE = "agent.db"

MIGRATIONS = (
    """
    CREATE TABLE chain (id INTEGER PRIMARY KEY CHECK (id = 1), chain BLOB NOT NULL);
    CREATE TABLE position (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        header BLOB NOT NULL,
        certificate BLOB NOT NULL,
        sets BLOB NOT NULL,
        model BLOB NOT NULL,
        residual BLOB NOT NULL
    );
    CREATE TABLE work (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        round INTEGER NOT NULL,
        commit_raw BLOB NOT NULL,
        reveal_raw BLOB NOT NULL,
        residual BLOB NOT NULL,
        samples INTEGER NOT NULL,
        training_ms INTEGER NOT NULL
    );
    CREATE TABLE outbox (digest BLOB PRIMARY KEY, round INTEGER NOT NULL, raw BLOB NOT NULL);
    CREATE TABLE rounds (
        round INTEGER PRIMARY KEY,
        model_hash BLOB NOT NULL,
        is_accepted INTEGER NOT NULL,
        samples INTEGER NOT NULL,
        training_ms INTEGER NOT NULL,
        bytes_up INTEGER NOT NULL,
        bytes_down INTEGER NOT NULL
    );
    """,
    """
    ALTER TABLE work ADD COLUMN will_score INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE scores (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        round INTEGER NOT NULL,
        commit_raw BLOB NOT NULL,
        reveal_raw BLOB NOT NULL
    );
    """,
    """
    ALTER TABLE position ADD COLUMN carried BLOB NOT NULL DEFAULT x'';
    ALTER TABLE position ADD COLUMN carried_hash BLOB NOT NULL DEFAULT x'';
    """,
)


def _hash(data: bytes) -> bytes:
    """No header proves what the downstream rule carries: damage must show here."""
    return hashlib.sha256(data).digest()


def _check_message(raw: bytes, kind: Kind, number: int, chain: Hash, identity: Identity) -> None:
    """Raises InvalidMessage unless these are the bytes of this device's own message for this round."""
    envelope = open_envelope(raw, chain)
    if (envelope.kind, envelope.sender, envelope.number) != (kind, identity.address, number):
        raise MalformedMessage(f"stored work is no {kind.name} of this device for round {number}")
    verify_envelope(envelope, chain, identity.public_key)


@dataclass(frozen=True, eq=False)
class Stored:
    """What a start finds."""

    light: LightState
    residual: ModelVector
    work: Work | None
    outbox: dict[Hash, tuple[Round, bytes]]
    scores: Scores | None


class Store:
    """One device's database. Raises StoreFull if the disk is full; then nothing of that write is there."""

    def __init__(self, db: aiosqlite.Connection) -> None:
        self._db = db

    @classmethod
    async def open(cls, path: Path, chain: Hash) -> Store:
        """Open or create. Raises ConfigError if the file belongs to another chain, LedgerCorrupt if it is damaged."""
        path.parent.mkdir(parents=True, exist_ok=True)
        db = await open_database(path, MIGRATIONS)
        db.text_factory = bytearray  # no column holds text: what comes as text is damage, and need not be UTF-8
        try:
            async with transaction(db):
                await db.execute("INSERT OR IGNORE INTO chain (id, chain) VALUES (1, ?)", (chain,))
            with store_errors(str(path)):
                async with db.execute("SELECT chain FROM chain") as cursor:
                    row = await cursor.fetchone()
            if row is None or row[0] != chain:
                raise ConfigError((f"database {path}: belongs to another chain than the genesis file",))
        except BaseException:
            await db.close()
            raise
        return cls(db)

    async def close(self) -> None:
        """Close the file."""
        await self._db.close()

    async def load(self, genesis_light: LightState, empty: ModelVector, identity: Identity) -> Stored:
        """What was saved, checked again; or the genesis. Raises LedgerCorrupt.

        Work and outbox must be messages of this device, whole: they are sent as they are.
        """
        try:
            return await self._load(genesis_light, empty, identity)
        except InvalidMessage as error:
            raise LedgerCorrupt(0, f"the device's database: {error.code}: {error}") from error

    async def _load(self, genesis_light: LightState, empty: ModelVector, identity: Identity) -> Stored:
        light, residual, work, count = genesis_light, empty, None, genesis_light.params.parameters_count
        query = "SELECT header, certificate, sets, model, residual, carried, carried_hash FROM position"
        position = await self._read(query, (bytes,) * 7)
        query = "SELECT round, commit_raw, reveal_raw, residual, samples, training_ms, will_score FROM work"
        works = await self._read(query, (int, bytes, bytes, bytes, int, int, int))
        scored = await self._read("SELECT round, commit_raw, reveal_raw FROM scores", (int, bytes, bytes))
        messages = await self._read("SELECT digest, round, raw FROM outbox", (bytes, int, bytes))
        for header, certificate, sets, model, kept, carried, carried_hash in position:
            if carried and _hash(carried) != carried_hash:
                raise LedgerCorrupt(0, "the device's database: what the codec carries is not what was stored")
            light = restore(light, Head(header, certificate, sets), model, carried)
            residual = vector_from_bytes(kept, count)
        for number, commit, reveal, kept, samples, training_ms, will_score in works:
            _check_message(commit, Kind.COMMIT, number, light.chain, identity)
            _check_message(reveal, Kind.REVEAL, number, light.chain, identity)
            left_out = vector_from_bytes(kept, count)
            work = Work(Round(number), commit, reveal, left_out, samples, training_ms, bool(will_score))
        scores = None
        for number, commit, reveal in scored:
            _check_message(commit, Kind.SCORE_COMMIT, number, light.chain, identity)
            _check_message(reveal, Kind.SCORE_REVEAL, number, light.chain, identity)
            scores = Scores(Round(number), commit, reveal)
        for digest, _, raw in messages:
            if hash_message(raw) != digest:
                raise LedgerCorrupt(0, "the device's database: a message in the outbox is not the one that was stored")
        outbox = {Hash(digest): (Round(number), raw) for digest, number, raw in messages}
        return Stored(light, residual, work, outbox, scores)

    async def _read(self, query: str, types: tuple[type, ...]) -> list[tuple[Any, ...]]:
        """All rows. Raises LedgerCorrupt: SQLite lets any type be in any column."""
        with store_errors():
            async with self._db.execute(query) as cursor:
                rows = [tuple(row) async for row in cursor]
        if any(type(value) is not wanted for row in rows for value, wanted in zip(row, types, strict=True)):
            raise LedgerCorrupt(0, "the device's database: a value of another type than was stored")
        return rows

    async def save_position(self, effect: SavePosition) -> None:
        """The model, its residual and the header that proves it."""
        model, residual = vector_bytes(effect.light.model), vector_bytes(effect.residual)
        carried = b"" if effect.light.carried is None else carried_bytes(effect.light.carried)
        head = effect.head
        async with transaction(self._db):
            await self._db.execute(
                "INSERT OR REPLACE INTO position"
                " (id, header, certificate, sets, model, residual, carried, carried_hash)"
                " VALUES (1, ?, ?, ?, ?, ?, ?, ?)",
                (*(head.header, head.certificate, head.sets, model, residual), carried, _hash(carried)),
            )

    async def save_work(self, work: Work) -> None:
        """The open round's update, ready to send."""
        async with transaction(self._db):
            await self._db.execute(
                "INSERT OR REPLACE INTO work (id, round, commit_raw, reveal_raw, residual, samples, training_ms,"
                " will_score) VALUES (1, ?, ?, ?, ?, ?, ?, ?)",
                (
                    work.round,
                    work.commit,
                    work.reveal,
                    vector_bytes(work.residual),
                    work.samples,
                    work.training_ms,
                    work.will_score,
                ),
            )

    async def save_scores(self, scores: Scores) -> None:
        """The open round's scores, ready to send."""
        async with transaction(self._db):
            await self._db.execute(
                "INSERT OR REPLACE INTO scores (id, round, commit_raw, reveal_raw) VALUES (1, ?, ?, ?)",
                (scores.round, scores.commit, scores.reveal),
            )

    async def save_outbox(self, digest: Hash, round_number: Round, raw: bytes) -> None:
        """A message that waits for its receipt."""
        async with transaction(self._db):
            row = (digest, round_number, raw)
            await self._db.execute("INSERT OR IGNORE INTO outbox (digest, round, raw) VALUES (?, ?, ?)", row)

    async def drop_outbox(self, digest: Hash) -> None:
        """A message that has its receipt, or is for nothing now."""
        async with transaction(self._db):
            await self._db.execute("DELETE FROM outbox WHERE digest = ?", (digest,))

    async def save_round(self, report: Report, bytes_up: int, bytes_down: int) -> None:
        """One line of history: what a round gave and what it cost. Bytes are those since the process started."""
        work = report.work
        row = (
            report.round,
            report.model_hash,
            report.is_accepted,
            work.samples if work else 0,
            work.training_ms if work else 0,
            bytes_up,
            bytes_down,
        )
        async with transaction(self._db):
            await self._db.execute("INSERT OR REPLACE INTO rounds VALUES (?, ?, ?, ?, ?, ?, ?)", row)
