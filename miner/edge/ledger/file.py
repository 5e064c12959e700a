"""A ledger's file opened for reading only: nothing is written to it or left beside it, even while a miner runs."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from flchain.base.errors import ConfigError, LedgerCorrupt
from flchain.base.types import Height
from flchain.ledger.genesis import Genesis, decode_genesis
from flchain.ledger.state import ChainState, build_genesis_state
from flchain_edge.storage.sqlite import explain
from flchain_edge.storage.sqlite_codes import NOTADB, get_code
from miner.core.tip import Standing
from miner.edge.ledger.base import BASE_QUERY, StoredBase, read_base, restore_base
from miner.edge.ledger.ledger import BLOCK_COLUMNS, MIGRATIONS, StoredBlock, read_initial_model, read_row

BATCH_BLOCKS = 64
BUSY_TIMEOUT_S = 5.0
TABLES = frozenset({"genesis", "blocks"})
SILENCE_VERSION = 2
"""The first schema in which a miner may be silent; blocks and genesis are as in version 1."""
BASE_VERSION = 3
"""The first schema in which a ledger may begin with a state."""


@dataclass(frozen=True)
class OwnRecord:
    """A miner's own (height, vote or proposal), their (height, header, body), and the last height of its silence."""

    messages: tuple[tuple[int, bytes], ...]
    blocks: tuple[tuple[int, bytes, bytes], ...]
    silence: Height


class LedgerFile:
    """A ledger that is open for reading. Every method raises LedgerCorrupt for a damaged file."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def get_pages_fault(self) -> str | None:
        """Return what SQLite itself finds wrong with the pages of the file, or None."""
        try:
            rows = self._db.execute("PRAGMA integrity_check(1)").fetchall()
        except sqlite3.Error as error:
            return str(error)
        text = bytes(rows[0][0]).decode(errors="replace")
        return None if text == "ok" else " ".join(text.split())

    def load_genesis_state(self) -> tuple[Genesis, ChainState]:
        """Return the genesis and the state at height 0."""
        with _corrupt_at(0):
            row = self._db.execute("SELECT genesis, initial_model FROM genesis").fetchone()
        if row is None or not all(isinstance(part, bytes) for part in row):
            raise LedgerCorrupt(0, "genesis: missing")
        try:
            genesis = decode_genesis(row[0])
            return genesis, build_genesis_state(genesis, read_initial_model(row[1], genesis.params.parameters_count))
        except ConfigError as error:
            raise LedgerCorrupt(0, "; ".join(error.problems)) from error

    def get_base(self) -> StoredBase | None:
        """Return the state that the ledger begins with; None for the genesis."""
        with _corrupt_at(0):
            has_base = self._db.execute("PRAGMA user_version").fetchone()[0] >= BASE_VERSION
            return read_base(self._db.execute(BASE_QUERY).fetchone() if has_base else None)

    def load_start(self) -> tuple[Genesis, Standing]:
        """Return the genesis, and the state with which the ledger begins: the state at height 0, or its base."""
        genesis, state = self.load_genesis_state()
        return genesis, restore_base(state, self.get_base())

    def count_blocks(self) -> int:
        """Return the number of blocks."""
        with _corrupt_at(0):
            return int(self._db.execute("SELECT count(*) FROM blocks").fetchone()[0])

    def iterate_blocks(self, height: int = 0) -> Iterator[StoredBlock]:
        """Yield all blocks from `height` on, in order. No lock is held between batches: a miner can write."""
        query = f"SELECT {BLOCK_COLUMNS} FROM blocks WHERE height >= ? ORDER BY height LIMIT ?"
        while True:
            with _corrupt_at(height):
                rows = self._db.execute(query, (height, BATCH_BLOCKS)).fetchall()
            for row in rows:
                yield read_row(row)
                height = row[0] + 1
            if len(rows) < BATCH_BLOCKS:
                return

    def get_block(self, height: int) -> StoredBlock | None:
        """Return one block; damage elsewhere in the file does not matter."""
        with _corrupt_at(height):
            row = self._db.execute(f"SELECT {BLOCK_COLUMNS} FROM blocks WHERE height = ?", (height,)).fetchone()
        return read_row(row) if row is not None else None

    def get_height(self) -> Height:
        """Return the newest block's height; 0 for none."""
        with _corrupt_at(0):
            return Height(self._db.execute("SELECT max(height) FROM blocks").fetchone()[0] or 0)

    def find_heights(self, prefix: bytes) -> tuple[Height, ...]:
        """Return the heights of at most two blocks whose stored hash begins with these bytes."""
        query = "SELECT height FROM blocks WHERE substr(hash, 1, ?) = ? LIMIT 2"
        with _corrupt_at(0):
            return tuple(Height(row[0]) for row in self._db.execute(query, (len(prefix), prefix)).fetchall())

    def get_own_record(self) -> OwnRecord:
        """Return everything that this miner has signed about heights that are not final for it."""
        with _corrupt_at(0):
            messages = self._db.execute("SELECT height, raw FROM own_messages ORDER BY rowid").fetchall()
            blocks = self._db.execute("SELECT height, header, body FROM own_blocks ORDER BY rowid").fetchall()
            has_silence = self._db.execute("PRAGMA user_version").fetchone()[0] >= SILENCE_VERSION
            silence = self._db.execute("SELECT until_height FROM silence").fetchone() if has_silence else None
        for height, *parts in (*messages, *blocks, *([silence] if silence else [])):
            if not isinstance(height, int) or not all(isinstance(part, bytes) for part in parts):
                raise LedgerCorrupt(None, "an own vote or block: not stored as bytes")
        return OwnRecord(tuple(messages), tuple(blocks), Height(silence[0] if silence else 0))

    def get_hash(self, height: Height) -> bytes:
        """Return the stored hash of a block that exists."""
        with _corrupt_at(height):
            return bytes(self._db.execute("SELECT hash FROM blocks WHERE height = ?", (height,)).fetchone()[0])


@contextlib.contextmanager
def _corrupt_at(height: int) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise LedgerCorrupt(height, f"file: {error}") from error


@contextlib.contextmanager
def open_ledger_file(path: Path) -> Iterator[LedgerFile]:
    """Open a ledger for reading only. Raises ConfigError if it is no ledger, LedgerCorrupt if it is damaged."""
    if not path.is_file():
        raise ConfigError((f"ledger {path}: no such file",))
    with contextlib.ExitStack() as stack:
        db = stack.enter_context(contextlib.closing(_connect(path, stack)))
        db.text_factory = bytearray  # as in Ledger.open: text is damage
        _check_is_ledger(db, path)
        yield LedgerFile(db)


def _connect(path: Path, stack: contextlib.ExitStack) -> sqlite3.Connection:
    """Connect so that nothing is left behind.

    Without a write-ahead log nobody has the file open, so it cannot change, and SQLite needs no files beside it. With
    a log there is also its index, unless somebody has copied only the other two: then a copy of them is read.
    """
    log = Path(f"{path}-wal")
    options = "mode=ro"
    if not log.exists() or log.stat().st_size == 0:
        options += "&immutable=1"
    elif not Path(f"{path}-shm").exists():
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flchain-audit-")))
        path = Path(shutil.copy(path, folder / "ledger.db"))
        shutil.copy(log, f"{path}-wal")
    try:
        return sqlite3.connect(f"file:{quote(str(path.resolve()))}?{options}", uri=True, timeout=BUSY_TIMEOUT_S)
    except sqlite3.Error as error:
        raise explain(error, str(path)) or error from error


def _check_is_ledger(db: sqlite3.Connection, path: Path) -> None:
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        tables = {bytes(row[0]).decode(errors="replace") for row in db.execute("SELECT name FROM sqlite_master")}
    except sqlite3.DatabaseError as error:
        if get_code(error) == NOTADB:
            raise ConfigError((f"ledger {path}: not a ledger: {error}",)) from error
        raise explain(error, str(path)) or error from error
    if not tables >= TABLES:
        raise ConfigError((f"ledger {path}: not a ledger: its tables are missing",))
    if not 1 <= version <= len(MIGRATIONS):
        raise ConfigError(
            (f"ledger {path}: has schema version {version}, but this program reads versions 1 to {len(MIGRATIONS)}",)
        )
