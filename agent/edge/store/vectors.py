"""Model and residuals in the device's database: each large vector is written once, packed, and not again unchanged.

The model is a base and the steps since, since a sparse update changes little of it. These functions run inside the
store's transactions, in the database's thread; what they return says what the database holds once the transaction is
committed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agent.edge.store.packing import accumulate, pack, subtract, unpack
from flchain.base.fixedpoint import decode_vector
from flchain.base.frozen import replace
from flchain.base.types import ModelVector

STEPS_MAX = 64
"""After this many steps the model is written whole again, so that a start never adds up more."""
RAW, PACKED = 0, 1
NO_RESIDUAL = 0
UNKNOWN_RESIDUAL = -1


@dataclass(frozen=True, eq=False)
class Saved:
    """What is on the disk: the model with the bytes of its base and steps, and the residuals by number."""

    model: ModelVector | None = None
    base_bytes: int = 0
    steps_bytes: int = 0
    steps: int = 0
    residuals: tuple[tuple[int, ModelVector], ...] = ()


def read_vector(encoding: int, data: bytes, count: int) -> ModelVector:
    """Return the vector. Raises ValueError or InvalidMessage if the bytes are not one."""
    if encoding == RAW:
        return decode_vector(data, count)
    if encoding != PACKED:
        raise ValueError(f"a vector of encoding {encoding}")
    return unpack(data, count)


def add_up(base: ModelVector, steps: Sequence[bytes]) -> ModelVector:
    """Return the model: its base and the steps since. Raises ValueError if a step is damaged."""
    model = base
    for step in steps:
        model = accumulate(model, unpack(step, len(base)))
    return model


def write_model(db: sqlite3.Connection, saved: Saved, model: ModelVector) -> Saved:
    """Write the model as a step from the one on disk, or whole where that takes fewer bytes in the long run."""
    before = saved.model
    if before is not None and np.array_equal(before, model):
        return saved
    if before is not None and before.shape == model.shape and saved.steps < STEPS_MAX:
        step = pack(subtract(model, before))
        # Once the steps are as long as the base, a new base costs less than more steps.
        if saved.steps_bytes + len(step) < saved.base_bytes:
            db.execute("INSERT INTO model_steps VALUES (?, ?)", (saved.steps + 1, step))
            return replace(saved, model=model, steps=saved.steps + 1, steps_bytes=saved.steps_bytes + len(step))
    base = pack(model)
    db.execute("INSERT OR REPLACE INTO model_base VALUES (1, ?, ?)", (PACKED, base))
    db.execute("DELETE FROM model_steps")
    return replace(saved, model=model, base_bytes=len(base), steps=0, steps_bytes=0)


def write_residual(db: sqlite3.Connection, saved: Saved, residual: ModelVector) -> tuple[Saved, int]:
    """Return the number under which it is kept; one that is on disk already is not written again."""
    if not residual.any():
        return saved, NO_RESIDUAL
    for number, known in saved.residuals:
        if known is residual or np.array_equal(known, residual):
            return saved, number
    (number,) = db.execute("SELECT coalesce(max(id), 0) + 1 FROM residuals").fetchone()
    packed = pack(residual)
    db.execute("INSERT INTO residuals VALUES (?, ?, ?)", (number, PACKED, packed))
    return replace(saved, residuals=(*saved.residuals, (number, residual))), number


def drop_unused(db: sqlite3.Connection, saved: Saved) -> Saved:
    """Delete the residuals that neither the position nor the work uses any more."""
    numbers = "SELECT residual FROM position UNION SELECT carried FROM position UNION SELECT residual FROM work"
    used = {row[0] for row in db.execute(numbers)}
    db.execute(f"DELETE FROM residuals WHERE id NOT IN ({numbers})")
    return replace(saved, residuals=tuple(item for item in saved.residuals if item[0] in used))


def find_residual(rows: Sequence[tuple[Any, ...]], number: int, count: int) -> ModelVector:
    """Return the residual of this number among rows of (id, encoding, vector). Raises ValueError if there is none."""
    if number == NO_RESIDUAL:
        return np.zeros(count, np.int32)
    for found, encoding, data in rows:
        if found == number:
            return read_vector(encoding, data, count)
    raise ValueError(f"there is no residual {number}")
