"""The database on both sides: migrations, transactions, and errors that say whose fault."""

from __future__ import annotations

import asyncio
import resource
import shutil
import sqlite3
import sys
from pathlib import Path

import aiosqlite
import pytest

from flchain.base.errors import ConfigError, LedgerCorrupt
from flchain_edge.storage import sqlite_codes
from flchain_edge.storage.sqlite import (
    DiskFailed,
    StoreFull,
    explain,
    get_schema_version,
    open_database,
    split_statements,
    store_errors,
    transaction,
    write,
)

V1 = """
-- what a node keeps; the comment's semicolon is no end
CREATE TABLE item (number INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE log (text TEXT);
CREATE TRIGGER item_added AFTER INSERT ON item BEGIN
  INSERT INTO log VALUES ('added');
  INSERT INTO log VALUES ('again');
END;
INSERT INTO log VALUES ('a ; b');
"""
V2 = "ALTER TABLE item ADD COLUMN note TEXT NOT NULL DEFAULT 'old'"
V3_BROKEN = "CREATE TABLE third (x); INSERT INTO nowhere VALUES (1);"


async def fetch(db: aiosqlite.Connection, sql: str) -> list[tuple[object, ...]]:
    return [tuple(row) for row in await db.execute_fetchall(sql)]


async def write_item(db: aiosqlite.Connection, number: int, body: bytes) -> None:
    async with transaction(db):
        await db.execute("INSERT INTO item (number, body) VALUES (?, ?)", (number, body))


def test_migrates_from_the_first_version_on(tmp_path: Path) -> None:
    """A database of version 1 keeps its rows when a program of version 2 opens it; again changes nothing."""

    async def scenario() -> None:
        path = tmp_path / "store.db"
        db = await open_database(path, (V1,))
        await write_item(db, 7, b"seven")
        assert await get_schema_version(db) == 1
        await db.close()
        for _ in range(2):
            db = await open_database(path, (V1, V2))
            assert await get_schema_version(db) == 2
            assert await fetch(db, "SELECT number, body, note FROM item") == [(7, b"seven", "old")]
            assert await fetch(db, "SELECT text FROM log") == [("a ; b",), ("added",), ("again",)]
            await db.close()

    asyncio.run(scenario())


def test_failed_migration_leaves_no_half(tmp_path: Path) -> None:
    """A migration that fails halfway is undone completely, and the version says so."""

    async def scenario() -> None:
        path = tmp_path / "store.db"
        with pytest.raises(sqlite3.OperationalError, match="nowhere"):
            await open_database(path, (V1, V2, V3_BROKEN))
        db = await open_database(path, (V1, V2))
        assert await get_schema_version(db) == 2
        assert await fetch(db, "SELECT name FROM sqlite_master WHERE name = 'third'") == []
        await db.close()

    asyncio.run(scenario())


def test_newer_database_is_refused(tmp_path: Path) -> None:
    """A program never opens a database whose schema it does not know: the operator is told to update."""

    async def scenario() -> None:
        path = tmp_path / "store.db"
        await (await open_database(path, (V1, V2))).close()
        with pytest.raises(ConfigError, match="version 2"):
            await open_database(path, (V1,))

    asyncio.run(scenario())


def test_garbage_is_corrupt_and_kept(tmp_path: Path) -> None:
    """A file that is not a database raises LedgerCorrupt and is left for a person to look at."""
    path = tmp_path / "store.db"
    garbage = b"this is no database, " * 500
    path.write_bytes(garbage)
    with pytest.raises(LedgerCorrupt):
        asyncio.run(open_database(path, (V1,)))
    assert path.read_bytes() == garbage


def test_damaged_page_is_corrupt(tmp_path: Path) -> None:
    """Damage behind an intact first page raises LedgerCorrupt when the rows are read."""

    async def write() -> None:
        db = await open_database(path, (V1,))
        for number in range(20):
            await write_item(db, number, bytes(4000))
        await db.close()

    async def read() -> None:
        db = await open_database(path, (V1,))
        try:
            with store_errors(str(path)):
                await fetch(db, "SELECT * FROM item")
        finally:
            await db.close()

    path = tmp_path / "store.db"
    asyncio.run(write())
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(LedgerCorrupt, match=r"store\.db"):
        asyncio.run(read())


def test_unusable_path_is_the_operators_fault(tmp_path: Path) -> None:
    """A folder that does not exist is a ConfigError that names the path."""
    with pytest.raises(ConfigError, match="missing"):
        asyncio.run(open_database(tmp_path / "missing" / "store.db", (V1,)))


def test_full_disk_loses_nothing_old(tmp_path: Path) -> None:
    """When the database can grow no more, StoreFull is raised, earlier rows stay, and small writes work again later."""

    async def scenario() -> None:
        db = await open_database(tmp_path / "store.db", (V1,))
        await write_item(db, 1, b"kept")
        pages = (await fetch(db, "PRAGMA page_count"))[0][0]
        await db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreFull):
            async with transaction(db):
                await db.execute("INSERT INTO item (number, body) VALUES (2, ?)", (b"small",))
                await db.execute("INSERT INTO item (number, body) VALUES (3, ?)", (bytes(1_000_000),))
        assert await fetch(db, "SELECT number, body FROM item") == [(1, b"kept")]
        await db.execute("PRAGMA max_page_count = 100000")
        await write_item(db, 3, bytes(1_000_000))
        assert await fetch(db, "SELECT number FROM item") == [(1,), (3,)]
        await db.close()

    asyncio.run(scenario())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 does not say which file could not grow")
def test_database_on_a_full_disk_is_not_opened_but_explained(tmp_path: Path) -> None:
    """Opening on a disk without room for SQLite's own files says StoreFull, and what was written is still there."""
    path = tmp_path / "node.db"

    async def open_and_close() -> None:
        await (await open_database(path, (V1,))).close()

    asyncio.run(open_and_close())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A limit on the length of files fails the same write that a full disk fails.
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(StoreFull):
            asyncio.run(open_and_close())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    asyncio.run(open_and_close())


def test_failing_disk_is_neither_full_nor_damage() -> None:
    """SQLite's I/O error is reported as the disk's fault, without advice to move the database away."""
    error = sqlite3.OperationalError("disk I/O error")
    assert isinstance(explain(error, "node.db"), DiskFailed)
    vars(error)["sqlite_errorcode"] = sqlite_codes.IOERR | 4 << 8  # IOERR_FSYNC
    assert isinstance(explain(error, "node.db"), DiskFailed)


def test_io_error_without_details_on_a_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where Python keeps only SQLite's words (3.10), an I/O error on a disk without free space says that it is full."""
    error = sqlite3.OperationalError("disk I/O error")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    assert isinstance(explain(error, str(tmp_path / "node.db")), StoreFull)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("database disk image is malformed", "SQLITE_CORRUPT"),
        ("file is not a database", "SQLITE_NOTADB"),
        ("unable to open database file", "SQLITE_CANTOPEN"),
        ("attempt to write a readonly database", "SQLITE_READONLY"),
        ("access permission denied", "SQLITE_PERM"),
        ("database or disk is full", "SQLITE_FULL"),
        ("disk I/O error", "SQLITE_IOERR"),
    ],
)
@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 does not name SQLite's codes")
def test_codes_are_sqlites(words: str, code: str) -> None:
    """An error that has only SQLite's words has the code that newer Pythons hand out with them."""
    assert sqlite_codes.get_code(sqlite3.DatabaseError(words)) == vars(sqlite3)[code]


def test_tasks_do_not_write_into_each_others_transactions(tmp_path: Path) -> None:
    """Of two tasks on one connection, the one that fails takes nothing of the other with it."""

    async def scenario() -> None:
        db = await open_database(tmp_path / "store.db", (V1,))
        inside, release = asyncio.Event(), asyncio.Event()

        async def fail() -> None:
            async with transaction(db):
                await db.execute("INSERT INTO item (number, body) VALUES (1, x'00')")
                inside.set()
                await release.wait()
                raise RuntimeError("changed my mind")

        failing = asyncio.create_task(fail())
        await inside.wait()
        writing = asyncio.create_task(write_item(db, 2, b""))
        release.set()
        with pytest.raises(RuntimeError):
            await failing
        await writing
        assert await fetch(db, "SELECT number FROM item") == [(2,)]
        await db.close()

    asyncio.run(scenario())


def test_cancelled_transaction_is_rolled_back(tmp_path: Path) -> None:
    """Cancelling at any of the first steps of a transaction leaves no row and no open transaction behind."""

    async def scenario() -> None:
        db = await open_database(tmp_path / "store.db", (V1,))
        for turns in range(6):
            task = asyncio.create_task(write_item(db, 1, b""))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,))
            assert not db.in_transaction
            await write_item(db, 100 + turns, b"")
            async with transaction(db):
                await db.execute("DELETE FROM item WHERE number = 1")
        assert len(await fetch(db, "SELECT * FROM item")) == 6
        await db.close()

    asyncio.run(scenario())


def insert_item(db: sqlite3.Connection, number: int, body: bytes) -> int:
    db.execute("INSERT INTO item (number, body) VALUES (?, ?)", (number, body))
    return number


def test_a_write_in_one_hop_is_all_or_nothing(tmp_path: Path) -> None:
    """What is written in the connection's thread is there when `write` returns; of one that fails nothing is."""

    async def scenario() -> None:
        path = tmp_path / "store.db"
        db = await open_database(path, (V1,))

        def fail(connection: sqlite3.Connection) -> None:
            insert_item(connection, 2, b"two")
            raise RuntimeError("changed my mind")

        assert await write(db, lambda connection: insert_item(connection, 1, b"one")) == 1
        with pytest.raises(RuntimeError):
            await write(db, fail)
        assert not db.in_transaction
        await db.execute("PRAGMA max_page_count = 1")
        with pytest.raises(StoreFull):
            await write(db, lambda connection: insert_item(connection, 3, bytes(100_000)))
        other = sqlite3.connect(path)
        assert other.execute("SELECT number, body FROM item").fetchall() == [(1, b"one")]
        other.close()
        await db.close()

    asyncio.run(scenario())


def test_a_write_in_one_hop_waits_for_the_open_transaction(tmp_path: Path) -> None:
    """A transaction of another task on the connection that fails takes nothing of a `write` with it."""

    async def scenario() -> None:
        db = await open_database(tmp_path / "store.db", (V1,))
        inside, release = asyncio.Event(), asyncio.Event()

        async def fail() -> None:
            async with transaction(db):
                await db.execute("INSERT INTO item (number, body) VALUES (1, x'00')")
                inside.set()
                await release.wait()
                raise RuntimeError("changed my mind")

        failing = asyncio.create_task(fail())
        await inside.wait()
        writing = asyncio.create_task(write(db, lambda connection: insert_item(connection, 2, b"")))
        await asyncio.sleep(0)
        release.set()
        with pytest.raises(RuntimeError):
            await failing
        assert await writing == 2
        assert await fetch(db, "SELECT number FROM item") == [(2,)]
        await db.close()

    asyncio.run(scenario())


def test_a_cancelled_write_in_one_hop_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """Cancelling at any of the first steps leaves both rows or none, no open transaction, and the next write works."""

    async def scenario() -> None:
        db = await open_database(tmp_path / "store.db", (V1,))

        def insert_two(connection: sqlite3.Connection) -> None:
            insert_item(connection, 1, b"")
            insert_item(connection, 2, b"")

        for turns in range(6):
            task = asyncio.create_task(write(db, insert_two))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,))
            await write(db, lambda connection, number=100 + turns: insert_item(connection, number, b""))  # type: ignore[misc]
            assert not db.in_transaction
            assert await fetch(db, "SELECT number FROM item WHERE number < 100 ORDER BY number") in ([], [(1,), (2,)])
            await write(db, lambda connection: connection.execute("DELETE FROM item WHERE number < 100").close())
        assert len(await fetch(db, "SELECT * FROM item")) == 6
        await db.close()

    asyncio.run(scenario())


def test_durable_settings_hold(tmp_path: Path) -> None:
    """A commit is on disk when it returns (WAL, synchronous FULL), foreign keys are enforced, the log bounded."""

    async def scenario() -> None:
        db = await open_database(tmp_path / "store.db", (V1,))
        found = [(await fetch(db, f"PRAGMA {name}"))[0][0] for name in ("journal_mode", "synchronous", "foreign_keys")]
        assert found == ["wal", 2, 1]
        assert (await fetch(db, "PRAGMA journal_size_limit"))[0][0] == 16 * 1024 * 1024
        await db.close()

    asyncio.run(scenario())


def test_statements_are_split_where_sqlite_would() -> None:
    """Semicolons in triggers, texts and comments end no statement; empty pieces vanish; a last one needs none."""
    assert len(split_statements(V1)) == 4
    assert split_statements(" ; ;; ") == []
    assert split_statements("SELECT 1; SELECT ';'") == ["SELECT 1;", "SELECT ';';"]
