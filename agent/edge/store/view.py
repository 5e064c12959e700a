"""Read the database of an agent that may be running, as of one moment, without writing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from agent.edge.store.vectors import add_up, read_vector
from flchain.base.types import ModelVector
from flchain.light.trust import CertifiedHeader

BUSY_TIMEOUT_S = 10.0


def read_position(database: Path, count: int) -> tuple[CertifiedHeader, ModelVector] | None:
    """Return the saved header and its model of `count` parameters; None before the first.

    Raises sqlite3.Error, and ValueError or InvalidMessage for a damaged model.
    """
    if not database.exists():
        return None
    with closing(sqlite3.connect(f"file:{database.resolve()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S)) as db:
        db.isolation_level = None
        db.execute("BEGIN")  # everything below is read from one state, whatever the agent writes meanwhile
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'model_base'").fetchone():
            return None
        row = db.execute("SELECT header, certificate, sets FROM position").fetchone()
        base = db.execute("SELECT encoding, vector FROM model_base").fetchone()
        steps = [step for (step,) in db.execute("SELECT vector FROM model_steps ORDER BY number")]
    if row is None or base is None:
        return None
    encoding, data = base
    return CertifiedHeader(*row), add_up(read_vector(encoding, data, count), steps)
