"""The device's database: model and place in the chain, work of the open round, outbox, history. SQLite."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import aiosqlite

from agent.values import Report, SavePosition, Work
from flchain.errors import ConfigError, InvalidMessage, LedgerCorrupt
from flchain.fixedpoint import vector_bytes, vector_from_bytes
from flchain.light import LightState, process_snapshot
from flchain.types import Hash, ModelVector, Round
from flchain_edge.sqlite import open_database, store_errors, transaction

STORE_FILE = "agent.db"

MIGRATIONS = (
    """
    CREATE TABLE chain (id INTEGER PRIMARY KEY CHECK (id = 1), chain BLOB NOT NULL);
    CREATE TABLE position (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        header BLOB NOT NULL,
        certificate BLOB NOT NULL,
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
)


@dataclass(frozen=True, eq=False)
class Stored:
    """What a start finds."""

    light: LightState
    residual: ModelVector
    work: Work | None
    outbox: dict[Hash, tuple[Round, bytes]]


class Store:
    """One device's database. Raises StoreFull if the disk is full; then nothing of that write is there."""

    def __init__(self, db: aiosqlite.Connection) -> None:
        self._db = db

    @classmethod
    async def open(cls, path: Path, chain: Hash) -> Store:
        """Open or create. Raises ConfigError if the file belongs to another chain, LedgerCorrupt if it is damaged."""
        path.parent.mkdir(parents=True, exist_ok=True)
        db = await open_database(path, MIGRATIONS)
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

    async def load(self, genesis_light: LightState, empty: ModelVector) -> Stored:
        """What was saved, checked again; or the genesis. Raises LedgerCorrupt."""
        try:
            return await self._load(genesis_light, empty)
        except InvalidMessage as error:
            raise LedgerCorrupt(0, f"the device's database: {error.code}: {error}") from error

    async def _load(self, genesis_light: LightState, empty: ModelVector) -> Stored:
        light, residual, work, count = genesis_light, empty, None, genesis_light.params.parameters_count
        with store_errors():
            async with self._db.execute("SELECT header, certificate, model, residual FROM position") as cursor:
                position = await cursor.fetchone()
            query = "SELECT round, commit_raw, reveal_raw, residual, samples, training_ms FROM work"
            async with self._db.execute(query) as cursor:
                row = await cursor.fetchone()
            async with self._db.execute("SELECT digest, round, raw FROM outbox") as cursor:
                outbox = {Hash(item[0]): (Round(item[1]), item[2]) async for item in cursor}
        if position is not None:
            light = process_snapshot(light, position[0], position[1], position[2])
            residual = vector_from_bytes(position[3], count)
        if row is not None:
            work = Work(Round(row[0]), row[1], row[2], vector_from_bytes(row[3], count), row[4], row[5])
        return Stored(light, residual, work, outbox)

    async def save_position(self, effect: SavePosition) -> None:
        """The model, its residual and the header that proves it."""
        model, residual = vector_bytes(effect.light.model), vector_bytes(effect.residual)
        async with transaction(self._db):
            await self._db.execute(
                "INSERT OR REPLACE INTO position (id, header, certificate, model, residual) VALUES (1, ?, ?, ?, ?)",
                (effect.header, effect.certificate, model, residual),
            )

    async def save_work(self, work: Work) -> None:
        """The open round's update, ready to send."""
        async with transaction(self._db):
            await self._db.execute(
                "INSERT OR REPLACE INTO work (id, round, commit_raw, reveal_raw, residual, samples, training_ms)"
                " VALUES (1, ?, ?, ?, ?, ?, ?)",
                (work.round, work.commit, work.reveal, vector_bytes(work.residual), work.samples, work.training_ms),
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
