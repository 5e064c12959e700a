"""SQLite for agent and miner: opened safely, migrated from the first version on, with errors that say whose fault.

Every statement runs in aiosqlite's one thread per connection, so the loop never waits for the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TypeVar
from weakref import WeakKeyDictionary

import aiosqlite

from flchain.base.errors import ConfigError, FlchainError, LedgerCorrupt
from flchain_edge.storage import sqlite_codes

BUSY_TIMEOUT_MS = 5_000
WORKER_TIMEOUT_S = 5.0
JOURNAL_BYTES_MAX = 16 * 1024 * 1024
"""The write-ahead log is cut to this after a checkpoint: otherwise it would keep the size of its worst day."""
CHECKPOINT_PAGES = 1_000
SYNCHRONOUS = ("FULL", "NORMAL", "EXTRA", "OFF")
JOURNALS = ("WAL", "PERSIST")

_NO_ROOM = frozenset({sqlite_codes.FULL, sqlite_codes.IOERR_SHMSIZE})
FREE_BYTES_MIN = 1_000_000
"""A disk with less is taken to be full if all that is known of an error is that reading or writing failed."""
_CORRUPT = frozenset({sqlite_codes.CORRUPT, sqlite_codes.NOTADB})
_UNUSABLE = frozenset({sqlite_codes.CANTOPEN, sqlite_codes.READONLY, sqlite_codes.PERM})
_locks: WeakKeyDictionary[aiosqlite.Connection, asyncio.Lock] = WeakKeyDictionary()
ResultT = TypeVar("ResultT")


class StoreFull(FlchainError):
    """The disk is full, or the database's own page limit is reached: nothing of the transaction was written."""


class DiskFailed(FlchainError):
    """The disk failed to read or write: what was written before is only as safe as that disk."""


def explain(error: sqlite3.Error, path: str = "") -> FlchainError | None:
    """Return our error for a SQLite error, or None if neither disk nor operator is at fault (a bug, a lock)."""
    extended, code = sqlite_codes.get_extended_code(error), sqlite_codes.get_code(error)
    if extended in _NO_ROOM or code in _NO_ROOM or (extended == sqlite_codes.IOERR and _is_disk_full(path)):
        return StoreFull(f"no space left to write to the database {path}".rstrip())
    if code == sqlite_codes.IOERR:
        return DiskFailed(f"the disk failed under the database {path}: {error}")
    if code in _CORRUPT:
        return LedgerCorrupt(None, f"{path}: {error}" if path else str(error))
    if code in _UNUSABLE:
        return ConfigError((f"database {path}: {error}",))
    return None


def _is_disk_full(path: str) -> bool:
    """Ask the disk itself, since Python 3.10 does not say which kind of I/O error it was."""
    try:
        return bool(path) and shutil.disk_usage(Path(path).parent).free < FREE_BYTES_MIN
    except OSError:
        return False


@contextlib.contextmanager
def store_errors(path: str = "") -> Iterator[None]:
    """Turn SQLite's errors into StoreFull, LedgerCorrupt or ConfigError. `transaction` does so already."""
    try:
        yield
    except sqlite3.Error as error:
        explained = explain(error, path)
        if explained is None:
            raise
        raise explained from error


@contextlib.asynccontextmanager
async def transaction(db: aiosqlite.Connection) -> AsyncIterator[aiosqlite.Connection]:
    """Run the block as one transaction: BEGIN IMMEDIATE, then COMMIT, or ROLLBACK on any exception or cancellation.

    Transactions of one connection wait for each other, so tasks that share it never write into each other's. Do not
    nest them. Raise StoreFull and LedgerCorrupt; in both cases nothing of the transaction was written.
    """
    async with _locks.setdefault(db, asyncio.Lock()):
        with store_errors():
            try:
                await db.execute("BEGIN IMMEDIATE")
                yield db
                await db.execute("COMMIT")
            except BaseException:
                # A cancelled BEGIN may still be on its way in the worker thread; this is queued behind it. Without an
                # open transaction it does nothing.
                await asyncio.shield(db.rollback())
                raise


async def write(db: aiosqlite.Connection, act: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
    """Run `act` as one transaction in the connection's thread, and return what it returns.

    As `transaction`, with one hop to the thread and back instead of one a statement. `act` must not touch what the
    loop's thread changes. Cancelled, the transaction is there whole or not at all, and the caller does not learn which:
    for those alone who read the database anew before they go on. Raises StoreFull and LedgerCorrupt.
    """
    async with _locks.setdefault(db, asyncio.Lock()):
        with store_errors():
            # aiosqlite's public methods each run one statement; this is what all of them are made of, and the version
            # is locked. A connection class whose `execute` took functions would be public, and a worse surprise.
            result: ResultT = await db._execute(_transact, db._conn, act)  # type: ignore[no-untyped-call]
            return result


def _transact(connection: sqlite3.Connection, act: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
    try:
        connection.execute("BEGIN IMMEDIATE")
        result = act(connection)
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()  # without an open transaction it does nothing
        raise
    return result


def split_statements(script: str) -> list[str]:
    """Return the statements of an SQL script; a trigger with its inner semicolons is one."""
    statements: list[str] = []
    pending = ""
    for piece in script.split(";"):
        pending += piece + ";"
        if sqlite3.complete_statement(pending):
            statements.append(pending.strip())
            pending = ""
    # The text after the last semicolon was given one above; SQLite itself reports an unfinished rest.
    return [statement for statement in [*statements, pending.strip()] if statement.strip("; \n\t")]


async def open_database(
    path: Path | str,
    migrations: tuple[str, ...],
    *,
    synchronous: str = "FULL",
    checkpoint_pages: int = CHECKPOINT_PAGES,
    journal: str = "WAL",
) -> aiosqlite.Connection:
    """Open or create a database and bring its schema to version `len(migrations)`.

    `migrations[n]` is the SQL script from version n to n + 1; each runs in a transaction of its own. Published ones
    are never edited. `synchronous` FULL survives a power cut with every commit; NORMAL may lose the latest ones.
    `checkpoint_pages`: length of the write-ahead log from which on it is copied into the database.
    `journal` PERSIST is for a database that must go on when the disk is full: see agent.edge.data.sample_ring.
    Raise ConfigError (unusable path, or a schema newer than this program), LedgerCorrupt (at no height) and StoreFull.
    The connection is in autocommit mode: write inside `transaction`.
    """
    if synchronous not in SYNCHRONOUS:
        raise ValueError(f"synchronous is one of {', '.join(SYNCHRONOUS)}")
    if journal not in JOURNALS:
        raise ValueError(f"journal is one of {', '.join(JOURNALS)}")
    where = str(path)
    db = await _connect(where)
    try:
        with store_errors(where):
            await db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            await _refuse_newer(db, len(migrations), where)
            await _set_up(db, journal, synchronous, checkpoint_pages)
            await _migrate(db, migrations)
    except BaseException:
        await asyncio.shield(db.close())
        raise
    return db


async def _connect(where: str) -> aiosqlite.Connection:
    connecting = aiosqlite.connect(where, isolation_level=None)
    # A crash of the loop must end the process, which is then restarted, and not wait for this thread for ever.
    connecting._thread.daemon = True
    try:
        with store_errors(where):
            return await connecting
    except BaseException:
        # aiosqlite does not wait for its thread here, which would then report to a loop that may be closed.
        await asyncio.to_thread(connecting._thread.join, WORKER_TIMEOUT_S)
        raise


async def _set_up(db: aiosqlite.Connection, journal: str, synchronous: str, checkpoint_pages: int) -> None:
    await db.execute(f"PRAGMA journal_mode = {journal}")
    await db.execute(f"PRAGMA synchronous = {synchronous}")
    await db.execute("PRAGMA foreign_keys = ON")
    await db.execute(f"PRAGMA journal_size_limit = {JOURNAL_BYTES_MAX}")
    await db.execute(f"PRAGMA wal_autocheckpoint = {checkpoint_pages}")
    # Debian's SQLite overwrites deleted content with zeros, which wears a card.
    await db.execute("PRAGMA secure_delete = OFF")


async def get_schema_version(db: aiosqlite.Connection) -> int:
    """Return how many migrations this database has had; 0 for a new one."""
    async with db.execute("PRAGMA user_version") as cursor:
        row = await cursor.fetchone()
    return int(row[0]) if row is not None else 0


async def _refuse_newer(db: aiosqlite.Connection, known: int, where: str) -> None:
    version = await get_schema_version(db)
    if version > known:
        raise ConfigError(
            (f"database {where}: has schema version {version}, this program knows up to {known}: update the program",)
        )


async def _migrate(db: aiosqlite.Connection, migrations: tuple[str, ...]) -> None:
    for number, script in enumerate(migrations, start=1):
        async with transaction(db):
            if await get_schema_version(db) >= number:
                continue
            for statement in split_statements(script):
                await db.execute(statement)
            await db.execute(f"PRAGMA user_version = {number}")
