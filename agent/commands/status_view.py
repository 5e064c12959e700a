"""Gather all that `flchain-agent status` shows: from the running agent's file, and from the database."""

from __future__ import annotations

import contextlib
import os
import platform
import sqlite3
import time
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import quote

from agent.commands.board import describe_profile, find_board
from agent.edge.power.files import read_board_roots
from agent.edge.store.status_file import read_status
from agent.edge.store.store import STORE_FILE
from agent.scheduling.energy import EnergySource
from agent.settings import AgentSettings
from agent.status.values import (
    AgentStatus,
    HistoryView,
    NodeView,
    PositionView,
    RoundView,
    StatusView,
    WriterStatus,
)
from flchain.base.errors import ConfigError, InvalidMessage
from flchain.wire.envelope import HEADER_BYTES_MAX, decode_struct
from flchain.wire.messages import Header
from flchain_edge.process.kernel_clock import read_boot_key, read_start_ticks

ROUNDS_SHOWN = 5
DISK_SPAN_S_MIN = 600.0
"""A process that has run for less says nothing about a day."""
VERSIONS_OF = ("flchain", "numpy", "tflite-runtime", "ai-edge-litert")
BUSY_TIMEOUT_S = 2.0


class _Row(NamedTuple):
    """A line of the table of rounds, by its columns' names."""

    round: int
    is_accepted: int
    samples: int
    training_ms: int
    bytes_up: int
    """Counted since the start of the process, as `bytes_down` is."""
    bytes_down: int
    energy_mj: int
    training_mj: int
    energy_source: int


def build_view(settings: AgentSettings, rounds: int = ROUNDS_SHOWN) -> StatusView:
    """Return the view. Never raises for the agent's faults: what cannot be read is said in the view."""
    data_dir = Path(settings.data_dir)
    found = read_status(data_dir)
    status = None if found is None else found.status
    return StatusView(
        profile=_describe_profile(settings),
        node=build_node(None if found is None else found.writer, data_dir),
        now=status,
        history=read_history(data_dir / STORE_FILE, rounds),
        disk_bytes_per_day=_estimate_disk(status),
        versions=_read_versions(),
    )


def _describe_profile(settings: AgentSettings) -> str:
    try:
        return describe_profile(find_board(settings.power, read_board_roots()))
    except ConfigError as error:
        return f"cannot be read: {error.problems[0]}"


def build_node(writer: WriterStatus | None, data_dir: Path) -> NodeView:
    """Return whether the agent runs; if not, since when, as far as anything tells."""
    if writer is None and data_dir.is_dir() and not os.access(data_dir, os.R_OK | os.X_OK):
        return NodeView(state="unknown")
    if writer is None:
        times_s = [path.stat().st_mtime for path in data_dir.glob(f"{STORE_FILE}*") if path.is_file()]
        return NodeView(state="unknown", since_ms=_to_ms(max(times_s))) if times_s else NodeView(state="never started")
    is_alive = writer.is_running and is_same_process(writer)
    if is_alive or writer.boot == read_boot_key():
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - writer.written_boot_s
    else:
        age_s = time.time() - writer.written_ms / 1000
    age_s = round(max(0.0, age_s), 1)
    if is_alive:
        return NodeView(state="running", pid=writer.pid, age_s=age_s)
    state: Literal["killed", "stopped"] = "killed" if writer.is_running else "stopped"
    return NodeView(state=state, pid=writer.pid, age_s=age_s, since_ms=writer.written_ms)


def is_same_process(writer: WriterStatus, proc_root: Path = Path("/proc")) -> bool:
    """True if the process that wrote this still runs, and it is not a later one under its number, of any boot."""
    if writer.start_ticks is None or writer.written_boot_s > time.clock_gettime(time.CLOCK_BOOTTIME) + 1.0:
        return False  # a boot that was up for longer than this one is another
    return read_start_ticks(writer.pid, proc_root) == writer.start_ticks


def read_history(database: Path, count: int) -> HistoryView:
    """Return the newest rounds, with bytes and joules of each by itself; `fault` says why there are none."""
    try:
        if not database.is_file():
            return HistoryView(fault=f"{database}: no such file; the agent has not run here yet")
        with contextlib.closing(_open(database)) as db:
            query = f"SELECT {', '.join(_Row._fields)} FROM rounds ORDER BY round DESC LIMIT ?"
            rows = [_Row(*row) for row in db.execute(query, (count + 1,))]
            outbox = db.execute("SELECT COUNT(*) FROM outbox").fetchone()[0]
            head = db.execute("SELECT header FROM position").fetchone()
        position = _read_position(head[0]) if head is not None else None
        return HistoryView(rounds=tuple(_compute_rounds(rows)[-count:]), outbox=outbox, position=position)
    except OSError as error:
        return HistoryView(fault=f"{database}: {error.strerror or error}; are you the user that runs the agent?")
    except (sqlite3.Error, InvalidMessage, TypeError, ValueError) as error:
        return HistoryView(fault=f"{database} cannot be read: {error}; see: flchain-agent doctor")


def _open(database: Path) -> sqlite3.Connection:
    """Open it beside a running agent, or on a disk that is full."""
    uri = f"file:{quote(str(database.resolve()))}?mode=ro"
    db = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S)
    try:
        db.execute("SELECT 1 FROM rounds").fetchone()
        return db
    except sqlite3.OperationalError:  # no room, or no permission, for the file that readers share
        db.close()
        return sqlite3.connect(uri + "&immutable=1", uri=True, timeout=BUSY_TIMEOUT_S)


def _read_position(raw: bytes) -> PositionView:
    header = decode_struct(raw, Header, HEADER_BYTES_MAX)
    return PositionView(
        height=header.height, round=header.next_round, model_hash=header.model_hash.hex(), time_ms=header.time_ms
    )


def _compute_rounds(rows: list[_Row]) -> list[RoundView]:
    """Turn counters since the start of a process into those of a round; after a restart they start at 0."""
    rounds, up, down = [], 0, 0
    for row in reversed(rows):
        source = EnergySource(row.energy_source)
        is_measured = source is not EnergySource.UNMEASURED
        rounds.append(
            RoundView(
                round=row.round,
                is_accepted=bool(row.is_accepted),
                samples=row.samples,
                training_ms=row.training_ms,
                bytes_up=row.bytes_up - up if row.bytes_up >= up else row.bytes_up,
                bytes_down=row.bytes_down - down if row.bytes_down >= down else row.bytes_down,
                energy_source=source.name.lower(),
                # 0 is what a share of an unknown load is stored as
                energy_j=row.energy_mj / 1000 if is_measured and row.energy_mj else None,
                training_j=row.training_mj / 1000 if is_measured and row.training_mj else None,
            )
        )
        up, down = row.bytes_up, row.bytes_down
    return rounds


def _estimate_disk(status: AgentStatus | None) -> int | None:
    if status is None or status.disk_bytes is None or status.up_s < DISK_SPAN_S_MIN:
        return None
    return round(status.disk_bytes / status.up_s * 86_400)


def _read_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in VERSIONS_OF:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _to_ms(seconds: float) -> int:
    return round(1000 * seconds)
