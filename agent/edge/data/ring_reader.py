"""Read the ring from another process while the agent writes: without changes, and a bounded number of samples."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.sensing.blocks import DamagedBlock, decode_block
from agent.sensing.resampling import Series, Values, clean_series
from agent.sensing.samples import split_channel
from agent.sensing.timeline import Boot
from flchain.base.errors import ConfigError, LedgerCorrupt
from flchain_edge.storage.sqlite_codes import CANTOPEN, CORRUPT, NOTADB, READONLY, get_code

SAMPLES_READ_MAX = 400_000
"""Most samples that are read of one stream, the newest: 2.2 hours at 50 Hz, 13 MB for six channels."""
BUSY_TIMEOUT_S = 5.0


@dataclass
class RingContent:
    """What was read. series: by boot number, then by full channel name."""

    boots: dict[int, Boot] = field(default_factory=dict)
    series: dict[int, dict[str, Series]] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    damaged_blocks: int = 0


@contextlib.contextmanager
def open_ring(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a read-only connection. Raises ConfigError if there is no ring, or none that this program can read."""
    if not path.is_file():
        raise ConfigError((f"samples {path}: no such file yet; the agent creates it when it runs with [[sensors]]",))
    try:
        with contextlib.closing(_connect(path)) as db:
            db.execute("BEGIN")  # everything below is read from one state of the ring
            yield db
    except sqlite3.DatabaseError as error:
        if get_code(error) in (CORRUPT, NOTADB):
            raise LedgerCorrupt(None, f"{path}: {error}") from error
        raise ConfigError((f"samples {path}: {error}",)) from error


def _connect(path: Path) -> sqlite3.Connection:
    """Open it read-only. A killed agent's half-written changes are rolled back first, which has to write."""
    for mode in ("ro", "rw", "ro"):
        db = sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=BUSY_TIMEOUT_S)
        try:
            db.execute("SELECT 1 FROM blocks LIMIT 1")
        except sqlite3.OperationalError as error:
            db.close()
            if get_code(error) not in (READONLY, CANTOPEN):
                raise
        except BaseException:
            db.close()
            raise
        else:
            if mode == "ro":
                return db
            db.close()
    raise sqlite3.OperationalError("half-written changes of a killed program cannot be rolled back here")


def read_boots(db: sqlite3.Connection) -> list[Boot]:
    """Return the boots in order, the present one last."""
    query = "SELECT id, key, offset_us, is_trusted, first_us, last_us FROM boots ORDER BY id"
    return [Boot(n, key, off, bool(trust), first, last) for n, key, off, trust, first, last in db.execute(query)]


def list_channels(db: sqlite3.Connection) -> list[str]:
    """Return all channels of the ring as "source.channel", sorted."""
    rows = db.execute("SELECT source, channels FROM streams").fetchall()
    return sorted({f"{source}.{name}" for source, text in rows for name, _ in json.loads(text)})


def read_channels(
    db: sqlite3.Connection,
    channels: Sequence[str],
    samples_max: int = SAMPLES_READ_MAX,
    *,
    with_nan: Sequence[str] = (),
) -> RingContent:
    """Return the newest samples of the channels ("source.channel") by boot; NaN only in those of with_nan."""
    content = RingContent(boots={boot.number: boot for boot in read_boots(db)})
    pieces: dict[tuple[int, str], list[Series]] = {}
    wanted = [split_channel(name) for name in channels]
    for stream, source, text in db.execute("SELECT id, source, channels FROM streams").fetchall():
        heads = [(str(name), str(unit)) for name, unit in json.loads(text)]
        places = {f"{source}.{name}": n for n, (name, _) in enumerate(heads) if (source, name) in wanted}
        if not places:
            continue
        content.units |= {full: heads[place][1] for full, place in places.items()}
        parts: dict[int, list[_Block]] = {}
        for boot, block in _read_blocks(db, stream, [unit for _, unit in heads], samples_max, content):
            parts.setdefault(boot, []).append((block[0], [block[1][place] for place in places.values()]))
        for boot, blocks in parts.items():
            blocks.reverse()
            times = np.concatenate([block[0] for block in blocks])  # one array for all channels of the stream
            for n, full in enumerate(places):
                values = np.concatenate([block[1][n] for block in blocks])
                pieces.setdefault((boot, full), []).append(Series(times, values))
    for (boot, full), found in pieces.items():
        times, values = found[0].times_us, found[0].values
        if len(found) > 1:  # one channel in several sets of channels
            times = np.concatenate([series.times_us for series in found])
            values = np.concatenate([series.values for series in found])
        content.series.setdefault(boot, {})[full] = clean_series(times, values, keep_nan=full in with_nan)
    return content


_Block = tuple[npt.NDArray[np.int64], list[Values]]
"""Return times, and a column for each channel."""


def _read_blocks(
    db: sqlite3.Connection, stream: int, units: list[str], samples_max: int, content: RingContent
) -> Iterator[tuple[int, _Block]]:
    """Yield blocks, newest first, until samples_max are read; count and skip damaged ones."""
    count = 0
    query = "SELECT boot, samples, data FROM blocks WHERE stream = ? ORDER BY id DESC"
    for boot, samples, data in db.execute(query, (stream,)):
        try:
            times, columns = decode_block(data, samples, units)
        except (DamagedBlock, TypeError):
            content.damaged_blocks += 1
            continue
        yield boot, (times, columns)
        count += samples
        if count >= samples_max:
            return


def read_rows(db: sqlite3.Connection, query: str) -> list[dict[str, Any]]:
    """Return rows by column name, for the dataset card."""
    cursor = db.execute(query)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
