"""The ledger: every final block with its certificate, and what this miner has said about the next one. SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import aiosqlite

from flchain.base.errors import ConfigError, InvalidMessage, LedgerCorrupt
from flchain.base.fixedpoint import decode_vector, encode_vector
from flchain.base.types import HASH_BYTES, Hash, Height, ModelVector
from flchain.ledger.block import Block, decode_block, hash_header
from flchain.ledger.certificate import verify_certificate
from flchain.ledger.genesis import Genesis, encode_genesis
from flchain.ledger.state import ChainState, build_genesis_state
from flchain.light.trust import CertifiedHeader
from flchain.rules.blocks import apply_block
from flchain.wire.envelope import HEADER_BYTES_MAX, decode_struct
from flchain.wire.messages import Header
from flchain_edge.storage.sqlite import open_database, store_errors, transaction, write
from miner.core.tip import Standing, extend
from miner.core.values import SaveBlock, SaveState, SaveVote
from miner.edge.ledger.base import BASE_COLUMNS, BASE_QUERY, StoredBase, read_base, restore_base

LEDGER_FILE = "ledger.db"
Save: TypeAlias = SaveVote | SaveBlock | SaveState

MIGRATIONS = (
    """
    CREATE TABLE genesis (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        genesis BLOB NOT NULL,
        initial_model BLOB NOT NULL
    );
    CREATE TABLE blocks (
        height INTEGER PRIMARY KEY,
        hash BLOB NOT NULL,
        header BLOB NOT NULL,
        certificate BLOB NOT NULL,
        body BLOB NOT NULL
    );
    -- What this miner signed at the height that is not final yet: written before it is sent.
    CREATE TABLE own_messages (
        raw BLOB PRIMARY KEY,
        height INTEGER NOT NULL
    );
    CREATE TABLE own_blocks (
        hash BLOB PRIMARY KEY,
        height INTEGER NOT NULL,
        header BLOB NOT NULL,
        body BLOB NOT NULL
    );
    """,
    """
    -- Up to this height the miner has voted already, though its blocks from there on were lost: see ledger_resync.
    CREATE TABLE silence (id INTEGER PRIMARY KEY CHECK (id = 1), until_height INTEGER NOT NULL);
    """,
    """
    -- A state that the ledger begins with, in place of the blocks up to it: see ledger_base.
    CREATE TABLE base (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        header BLOB NOT NULL,
        certificate BLOB NOT NULL,
        sets BLOB NOT NULL,
        state BLOB NOT NULL
    );
    """,
)


@dataclass(frozen=True)
class StoredBlock:
    """A row of the ledger."""

    height: Height
    hash: bytes
    header: bytes
    certificate: bytes
    body: bytes


BLOCK_COLUMNS = "height, hash, header, certificate, body"


def read_row(row: Sequence[object]) -> StoredBlock:
    """Return a row of BLOCK_COLUMNS. Raises LedgerCorrupt: SQLite allows any type in any column."""
    height, *parts = row
    assert isinstance(height, int), "SQLite keeps a primary key of this kind an integer"
    names = BLOCK_COLUMNS.split(", ")[1:]
    found = [part for part in parts if isinstance(part, bytes)]
    if len(found) < len(names):
        wrong = [name for name, part in zip(names, parts, strict=True) if not isinstance(part, bytes)]
        raise LedgerCorrupt(height, f"{', '.join(wrong)}: not stored as bytes")
    return StoredBlock(Height(height), *found)


def get_resynced_path(path: Path) -> Path:
    """Return where a resync keeps the repaired ledger until the damaged one is moved."""
    return path.with_name(path.name + ".resynced")


class Ledger:
    """One miner's ledger. Raises StoreFull if the disk is full; then nothing of that write is stored."""

    def __init__(self, db: aiosqlite.Connection) -> None:
        self._db = db

    @classmethod
    async def open(cls, path: Path, genesis: Genesis, initial_model: ModelVector) -> Ledger:
        """Open or create. Raises ConfigError if the file belongs to another chain, LedgerCorrupt if it is damaged."""
        if get_resynced_path(path).exists():
            # It holds votes: with a new ledger instead the miner could contradict them.
            raise ConfigError((f"ledger {path}: a resync was interrupted; finish it with: flchain-miner resync",))
        path.parent.mkdir(parents=True, exist_ok=True)
        db = await open_database(path, MIGRATIONS)
        db.text_factory = bytearray  # no column holds text: text is damage, and need not be UTF-8
        try:
            wanted = (encode_genesis(genesis), encode_vector(initial_model))
            async with transaction(db):
                row = "INSERT OR IGNORE INTO genesis (id, genesis, initial_model) VALUES (1, ?, ?)"
                await db.execute(row, wanted)
            with store_errors(str(path)):
                async with db.execute("SELECT genesis, initial_model FROM genesis") as cursor:
                    found = await cursor.fetchone()
            if found is None or tuple(found) != wanted:
                raise ConfigError((f"ledger {path}: belongs to another chain than the genesis file",))
        except BaseException:
            await db.close()
            raise
        return cls(db)

    async def close(self) -> None:
        """Close the file."""
        await self._db.close()

    async def save(self, *changes: Save) -> None:
        """Make all that one event changes durable, in order, in one transaction; nothing of it if StoreFull comes."""
        if changes:
            await write(self._db, lambda db: _write_changes(db, changes))

    async def append(self, block: Block, certificate: bytes) -> None:
        """Add a final block and drop this miner's own votes up to its height."""
        await self.save(SaveBlock(block, certificate))

    async def append_rows(self, rows: Sequence[StoredBlock]) -> None:
        """Add final blocks, all or none, as `append` does one."""
        await write(self._db, lambda db: _write_blocks(db, rows))

    async def save_base(self, head: CertifiedHeader, data: bytes) -> None:
        """Replace the blocks up to a final one, and votes about them, by the state after it, in one step."""
        await self.save(SaveState(head, data))

    async def shrink(self) -> None:
        """Return the space of dropped rows to the disk."""
        with store_errors():
            await self._db.execute("VACUUM")

    async def get_base(self) -> StoredBase | None:
        """Return the state that the ledger begins with; None for the genesis."""
        with store_errors():
            async with self._db.execute(BASE_QUERY) as cursor:
                row = await cursor.fetchone()
        return read_base(None if row is None else tuple(row))

    async def save_own_rows(
        self, messages: Sequence[tuple[int, bytes]], blocks: Sequence[tuple[int, bytes, bytes]]
    ) -> None:
        """Save votes and blocks of another file, as (height, raw) and (height, header, body), all or none."""
        async with transaction(self._db):
            for height, raw in messages:
                await self._db.execute("INSERT INTO own_messages (raw, height) VALUES (?, ?)", (raw, height))
            for height, header, body in blocks:
                query = "INSERT INTO own_blocks (hash, height, header, body) VALUES (?, ?, ?, ?)"
                await self._db.execute(query, (hash_header(header), height, header, body))

    async def get_own(self, height: Height) -> tuple[tuple[bytes, ...], tuple[Block, ...]]:
        """Return this miner's votes and proposals at a height, and the blocks that they are for."""
        with store_errors():
            query = "SELECT raw FROM own_messages WHERE height = ? ORDER BY rowid"
            async with self._db.execute(query, (height,)) as cursor:
                raws = tuple([row[0] async for row in cursor])
            query = "SELECT header, body FROM own_blocks WHERE height = ?"
            async with self._db.execute(query, (height,)) as cursor:
                rows: list[tuple[bytes, bytes]] = [(row[0], row[1]) async for row in cursor]
        if not all(isinstance(part, bytes) for part in (*raws, *sum(rows, ()))):
            raise LedgerCorrupt(height, "an own vote or block: not stored as bytes")
        try:
            return raws, tuple(Block(decode_struct(row[0], Header, HEADER_BYTES_MAX), *row) for row in rows)
        except InvalidMessage as error:
            raise LedgerCorrupt(height, f"an own block: {error}") from error

    async def save_silence(self, until: Height) -> None:
        """Forbid the miner to sign about blocks up to this height: it has done so, and the record of it is lost."""
        async with transaction(self._db):
            await self._db.execute("INSERT OR REPLACE INTO silence (id, until_height) VALUES (1, ?)", (until,))

    async def get_silence(self) -> Height:
        """Return the height up to which this miner signs nothing about blocks; 0 if it never lost one."""
        with store_errors():
            async with self._db.execute("SELECT until_height FROM silence") as cursor:
                row = await cursor.fetchone()
        if row is None:
            return Height(0)
        if not isinstance(row[0], int):
            raise LedgerCorrupt(None, "silence: not a height")
        return Height(row[0])

    async def get_blocks(self, height: Height, count: int) -> tuple[StoredBlock, ...]:
        """Return at most `count` blocks from `height` on."""
        query = f"SELECT {BLOCK_COLUMNS} FROM blocks WHERE height >= ? ORDER BY height LIMIT ?"
        with store_errors():
            async with self._db.execute(query, (height, count)) as cursor:
                return tuple([read_row(row) async for row in cursor])

    async def get_tip(self) -> StoredBlock | None:
        """Return the newest block, if there is one."""
        with store_errors():
            async with self._db.execute("SELECT max(height) FROM blocks") as cursor:
                row = await cursor.fetchone()
        if row is None or row[0] is None:
            return None
        blocks = await self.get_blocks(Height(row[0]), 1)
        return blocks[0]


def _write_changes(db: sqlite3.Connection, changes: Iterable[Save]) -> None:
    for change in changes:
        match change:
            case SaveVote(height, raw, block):
                db.execute("INSERT OR IGNORE INTO own_messages (raw, height) VALUES (?, ?)", (raw, height))
                if block is not None:
                    db.execute(
                        "INSERT OR IGNORE INTO own_blocks (hash, height, header, body) VALUES (?, ?, ?, ?)",
                        (block.hash, height, block.header_bytes, block.body_bytes),
                    )
            case SaveBlock(block, certificate):
                parts = block.hash, block.header_bytes, certificate, block.body_bytes
                _write_blocks(db, [StoredBlock(Height(block.header.height), *parts)])
            case SaveState(head, data):
                _write_base(db, head, data)


def _write_blocks(db: sqlite3.Connection, rows: Sequence[StoredBlock]) -> None:
    for row in rows:
        db.execute(
            f"INSERT INTO blocks ({BLOCK_COLUMNS}) VALUES (?, ?, ?, ?, ?)",
            (row.height, row.hash, row.header, row.certificate, row.body),
        )
    for table in ("own_messages", "own_blocks") if rows else ():
        db.execute(f"DELETE FROM {table} WHERE height <= ?", (rows[-1].height,))


def _write_base(db: sqlite3.Connection, head: CertifiedHeader, data: bytes) -> None:
    height = decode_struct(head.header, Header, HEADER_BYTES_MAX).height
    query = f"INSERT OR REPLACE INTO base (id, {BASE_COLUMNS}) VALUES (1, ?, ?, ?, ?)"
    db.execute(query, (head.header, head.certificate, head.sets, data))
    for table in ("blocks", "own_messages", "own_blocks"):
        db.execute(f"DELETE FROM {table} WHERE height <= ?", (height,))


REPLAY_BLOCKS = 256


async def replay(ledger: Ledger, genesis: Genesis, initial_model: ModelVector) -> Standing:
    """Check every block after genesis or base; return where the chain stands. Raises LedgerCorrupt with the height."""
    standing = restore_base(build_genesis_state(genesis, initial_model), await ledger.get_base())
    while rows := await ledger.get_blocks(Height(standing.chain.height + 1), REPLAY_BLOCKS):
        for row in rows:
            after = replay_block(standing.chain, row)
            standing = extend(standing, decode_block(row.header, row.body)[0], row.certificate, after)
    return standing


def replay_block(state: ChainState, row: StoredBlock) -> ChainState:
    """Check height, hash, certificate, rules and state root of a stored block; return the state after it.

    Raises LedgerCorrupt with every part that is wrong. The stored hash and the certificate vouch for the header, and
    the header for the body, so that damage to one of them is not blamed on another.
    """
    height = Height(state.height + 1)
    if row.height != height:
        raise LedgerCorrupt(height, f"the block is missing, the next one stored is {row.height}")
    faults = _find_seal_faults(state, row)
    try:
        _, after = apply_block(state, row.header, row.body)
    except InvalidMessage as error:
        part = "block" if faults else "rules" if _is_whole(row) else "body"
        faults.append(f"{part}: {error.code}: {error}")
    if faults:
        raise LedgerCorrupt(height, "; ".join(faults))
    return after


def _is_whole(row: StoredBlock) -> bool:
    """True if the body is well-formed and the one that the header names."""
    try:
        decode_block(row.header, row.body)
    except InvalidMessage:
        return False
    return True


def _find_seal_faults(state: ChainState, row: StoredBlock) -> list[str]:
    """Return what is wrong with header, stored hash and certificate: of the three, the one that differs is to blame."""
    found, stored = hash_header(row.header), Hash(row.hash)
    fault = _find_certificate_fault(state, found, row.certificate)
    if found == stored:
        return [f"certificate: {fault}"] if fault else []
    if fault is None:
        return ["hash: the stored hash is not the block's"]
    if _find_certificate_fault(state, stored, row.certificate) is None:
        return ["header: its hash is not the one that is stored and certified"]
    return ["header: its hash is not the one that is stored", f"certificate: {fault}"]


def _find_certificate_fault(state: ChainState, block_hash: Hash, certificate: bytes) -> str | None:
    if len(block_hash) != HASH_BYTES:
        return "no hash to certify"
    try:
        verify_certificate(state.chain, state.validators, Height(state.height + 1), block_hash, certificate)
    except InvalidMessage as error:
        return f"{error.code}: {error}"
    return None


def read_initial_model(stored: bytes, parameters_count: int) -> ModelVector:
    """Return the model of round 0 as the ledger holds it. Raises LedgerCorrupt."""
    try:
        return decode_vector(stored, parameters_count)
    except InvalidMessage as error:
        raise LedgerCorrupt(0, f"the initial model: {error}") from error
