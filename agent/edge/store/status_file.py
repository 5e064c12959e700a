"""The file in which a running agent reports its status: in memory if possible, otherwise rarely on the disk.

Readers look at `data_dir/status.json`. While the agent runs, that is a link to a file in $RUNTIME_DIRECTORY (systemd's,
on tmpfs), written every few seconds; after a clean end it is a file, written once. Without such a directory, and with
`data_dir` on a disk, it is a file that is written only every SELDOM_S.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from agent.status.values import STATUS_VERSION, AgentStatus, StatusRecord, WriterStatus
from flchain_edge.process.kernel_clock import read_boot_key, read_start_ticks
from flchain_edge.storage.mounts import IN_MEMORY, find_mount

log = logging.getLogger(__name__)

STATUS_FILE = "status.json"
STATUS_BYTES_MAX = 256 * 1024
SELDOM_S = 300.0
RUNTIME_VARIABLE = "RUNTIME_DIRECTORY"


class StatusFile:
    """One agent's file. Never raises: a status that cannot be written is logged once and costs nothing else."""

    def __init__(self, data_dir: Path, environ: Mapping[str, str] | None = None) -> None:
        runtime = (os.environ if environ is None else environ).get(RUNTIME_VARIABLE, "").split(":")[0]
        self._shown = data_dir / STATUS_FILE
        # several agents share a directory if a whole network runs under one unit
        own = f"status-{sha256(str(data_dir.resolve()).encode()).hexdigest()[:8]}.json"
        self._file = Path(runtime) / own if runtime else self._shown
        mount = find_mount(self._file)
        self._every_s = 0.0 if (mount is not None and mount.kind in IN_MEMORY) or runtime else SELDOM_S
        self._written_s: float | None = None
        self._is_told = False

    def write(self, status: AgentStatus) -> None:
        """Write the status of a running agent, unless that was done just now and each write wears the card."""
        now_s = time.monotonic()
        if self._written_s is not None and now_s - self._written_s < self._every_s:
            return
        is_first, self._written_s = self._written_s is None, now_s
        with self._told():
            self._put(self._file, status, is_running=True)
            if is_first and self._file != self._shown:
                self._show_link()

    def close(self, status: AgentStatus) -> None:
        """Leave the last status where readers look, also when systemd removes the runtime directory."""
        with self._told():
            self._put(self._shown, status, is_running=False)
            if self._file != self._shown:
                self._file.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _told(self) -> Any:
        try:
            yield
        except OSError as error:
            if not self._is_told:
                self._is_told = True
                log.warning("the status cannot be written", extra={"file": self._file, "cause": error})

    def _put(self, path: Path, status: AgentStatus, *, is_running: bool) -> None:
        """Replace the file, so that a reader sees the old or the new one. Not synced: a boot makes it worthless."""
        writer = WriterStatus(
            is_running=is_running,
            pid=os.getpid(),
            start_ticks=read_start_ticks(os.getpid()),
            boot=read_boot_key(),
            written_boot_s=round(time.clock_gettime(time.CLOCK_BOOTTIME), 2),
            written_ms=time.time_ns() // 1_000_000,
        )
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.write_bytes(msgspec.json.encode(StatusRecord(writer=writer, status=status)))
        fresh.replace(path)

    def _show_link(self) -> None:
        fresh = self._shown.with_name(f".{self._shown.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(self._file)
        fresh.replace(self._shown)


def read_status(data_dir: Path) -> StatusRecord | None:
    """Return what an agent last wrote; None if there is nothing, or nothing that this version can read."""
    try:
        with (data_dir / STATUS_FILE).open("rb") as stream:
            data = stream.read(STATUS_BYTES_MAX)
        found = msgspec.json.decode(data, type=StatusRecord)
    except (OSError, ValueError):  # msgspec's errors are ValueErrors
        return None
    return found if found.status.version == STATUS_VERSION else None
