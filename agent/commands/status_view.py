"""Everything that `flchain-agent status` shows, as one JSON value: from the running agent's file and the database."""

from __future__ import annotations

import contextlib
import platform
import sqlite3
import time
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from agent.edge.store.status_file import read_status
from agent.edge.store.store import STORE_FILE
from agent.scheduling.energy import EnergySource
from agent.settings import AgentSettings
from flchain.base.errors import InvalidMessage
from flchain.wire.envelope import HEADER_BYTES_MAX, decode_struct
from flchain.wire.messages import Header
from flchain_edge.process.kernel_clock import read_boot_key, read_start_ticks

ROUNDS_SHOWN = 5
DISK_SPAN_S_MIN = 600.0
"""From a shorter life no day is foretold."""
ROUND_FIELDS = (
    "round",
    "is_accepted",
    "samples",
    "training_ms",
    "bytes_up",
    "bytes_down",
    "energy_mj",
    "training_mj",
    "energy_source",
)
VERSIONS_OF = ("flchain", "numpy", "tflite-runtime", "ai-edge-litert")
BUSY_TIMEOUT_S = 2.0


def build_view(settings: AgentSettings, rounds: int = ROUNDS_SHOWN) -> dict[str, Any]:
    """Never raises for the agent's faults: what cannot be read is said in the view."""
    data_dir = Path(settings.data_dir)
    found = read_status(data_dir)
    history = read_history(data_dir / STORE_FILE, rounds)
    return {
        "node": _build_node(found, data_dir),
        "now": found,
        "history": history,
        "disk_bytes_per_day": _foretell_disk(found),
        "versions": _read_versions(),
    }


def _build_node(found: dict[str, Any] | None, data_dir: Path) -> dict[str, Any]:
    """Whether the agent runs; if not, since when, as far as anything tells."""
    if found is None:
        times_s = [path.stat().st_mtime for path in data_dir.glob(f"{STORE_FILE}*") if path.is_file()]
        return {"state": "unknown" if times_s else "never started", "since_ms": _to_ms(max(times_s, default=None))}
    is_alive = bool(found.get("is_running")) and is_same_process(found)
    if is_alive or found.get("boot") == read_boot_key():
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - float(found.get("written_boot_s", 0.0))
    else:
        age_s = time.time() - float(found.get("written_ms", 0)) / 1000
    state = "running" if is_alive else "killed" if found.get("is_running") else "stopped"
    node: dict[str, Any] = {"state": state, "pid": found.get("pid"), "age_s": round(max(0.0, age_s), 1)}
    if state != "running":
        node["since_ms"] = found.get("written_ms")
    return node


def is_same_process(found: dict[str, Any], proc_root: Path = Path("/proc")) -> bool:
    """Whether the process that wrote this still runs, and not a later one under its number, of this boot or another."""
    ticks = found.get("start_ticks")
    if ticks is None or float(found["written_boot_s"]) > time.clock_gettime(time.CLOCK_BOOTTIME) + 1.0:
        return False  # a boot that was up for longer than this one is another
    return read_start_ticks(int(found["pid"]), proc_root) == int(ticks)


def read_history(database: Path, count: int) -> dict[str, Any]:
    """The newest rounds, bytes and joules of each by itself; `fault` says why there are none."""
    if not database.is_file():
        return {"rounds": [], "fault": f"{database}: no such file; the agent has not run here yet"}
    try:
        with contextlib.closing(_open(database)) as db:
            query = f"SELECT {', '.join(ROUND_FIELDS)} FROM rounds ORDER BY round DESC LIMIT ?"
            rows = [dict(zip(ROUND_FIELDS, row, strict=True)) for row in db.execute(query, (count + 1,))]
            outbox = db.execute("SELECT COUNT(*) FROM outbox").fetchone()[0]
            head = db.execute("SELECT header FROM position").fetchone()
        position = _read_position(head[0]) if head is not None else None
        return {"rounds": _compute_rounds(rows)[-count:], "outbox": outbox, "position": position, "fault": ""}
    except (sqlite3.Error, InvalidMessage, TypeError, ValueError) as error:
        return {"rounds": [], "fault": f"{database} cannot be read: {error}; see: flchain-agent doctor"}


def _open(database: Path) -> sqlite3.Connection:
    """Beside a running agent, or on a disk that takes no more."""
    uri = f"file:{quote(str(database.resolve()))}?mode=ro"
    db = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S)
    try:
        db.execute("SELECT 1 FROM rounds").fetchone()
        return db
    except sqlite3.OperationalError:  # no room, or no right, for the file that readers share
        db.close()
        return sqlite3.connect(uri + "&immutable=1", uri=True, timeout=BUSY_TIMEOUT_S)


def _read_position(raw: bytes) -> dict[str, Any]:
    header = decode_struct(raw, Header, HEADER_BYTES_MAX)
    return {
        "height": header.height,
        "round": header.next_round,
        "model_hash": header.model_hash.hex(),
        "time_ms": header.time_ms,
    }


def _compute_rounds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Counters since the start of a process become those of a round; after a restart they begin anew."""
    done: list[dict[str, Any]] = []
    before = {"bytes_up": 0, "bytes_down": 0}
    for row in reversed(rows):
        own = dict(row)
        for name, count in before.items():
            own[name] = row[name] - count if row[name] >= count else row[name]
        before = {name: row[name] for name in before}
        source = EnergySource(row["energy_source"])
        own |= {"is_accepted": bool(row["is_accepted"]), "energy_source": source.name.lower()}
        for name in ("energy", "training"):
            millijoules = own.pop(f"{name}_mj")
            # nothing at all is what a share of an unknown load is stored as
            own[f"{name}_j"] = millijoules / 1000 if source is not EnergySource.UNMEASURED and millijoules else None
        done.append(own)
    return done


def _foretell_disk(found: dict[str, Any] | None) -> int | None:
    if found is None or found.get("disk_bytes") is None or float(found.get("up_s", 0.0)) < DISK_SPAN_S_MIN:
        return None
    return round(float(found["disk_bytes"]) / float(found["up_s"]) * 86_400)


def _read_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in VERSIONS_OF:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _to_ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(1000 * seconds)
