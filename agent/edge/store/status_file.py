"""The file in which a running agent reports its status: in memory if possible, otherwise rarely on the disk.

Readers look at `data_dir/status.json`. While the agent runs, that is a link to a file in $RUNTIME_DIRECTORY (systemd's,
on tmpfs), or without systemd in a folder of the user's own in /dev/shm, written every few seconds; after a clean end it
is a file, written once. Where there is neither, and `data_dir` is on a disk, it is a file that is written every SOON_S
while the agent is young and somebody watches it start, and then only every SELDOM_S.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import time
from collections.abc import Callable, Mapping
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
SOON_S = 15.0
YOUNG_S = 600.0
"""At SOON_S in this time, a start costs 40 writes at most; a day of SELDOM_S costs 288."""
SHARED_MEMORY = Path("/dev/shm")
LEFT_S = 86_400.0
"""What is so old there was left by an agent that was killed: one that runs writes every few seconds."""
RUNTIME_VARIABLE = "RUNTIME_DIRECTORY"


class StatusFile:
    """One agent's file. Never raises: a status that cannot be written is logged once and costs nothing else."""

    def __init__(
        self,
        data_dir: Path,
        environ: Mapping[str, str] | None = None,
        read_clock_s: Callable[[], float] = time.monotonic,
        shared_memory: Path = SHARED_MEMORY,
    ) -> None:
        runtime = (os.environ if environ is None else environ).get(RUNTIME_VARIABLE, "").split(":")[0]
        if not runtime and not _is_in_memory(data_dir):
            runtime = str(_make_memory_folder(shared_memory) or "")
        self._shown = data_dir / STATUS_FILE
        # several agents share a directory if a whole network runs under one unit
        own = f"status-{sha256(str(data_dir.resolve()).encode()).hexdigest()[:8]}.json"
        self._file = Path(runtime) / own if runtime else self._shown
        self._wears_card = not runtime and not _is_in_memory(data_dir)
        self._read_clock_s = read_clock_s
        self._started_s = read_clock_s()
        self._written_s: float | None = None
        self._is_told = False

    def write(self, status: AgentStatus) -> None:
        """Write the status of a running agent, unless that was done just now and each write wears the card."""
        now_s = self._read_clock_s()
        every_s = SOON_S if now_s - self._started_s < YOUNG_S else SELDOM_S
        if self._wears_card and self._written_s is not None and now_s - self._written_s < every_s:
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


def _is_in_memory(path: Path) -> bool:
    mount = find_mount(path)
    return mount is not None and mount.kind in IN_MEMORY


def _make_memory_folder(shared: Path) -> Path | None:
    """Return this user's own folder in memory that all users share; None if it is not in memory, or another's.

    Anyone may have made a folder or a link of this name there, to have our files written elsewhere.
    """
    if not _is_in_memory(shared):
        return None
    folder = shared / f"flchain-{os.geteuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        return None
    with contextlib.suppress(OSError):
        for left in folder.iterdir():
            if time.time() - left.stat().st_mtime > LEFT_S:
                left.unlink(missing_ok=True)
    return folder


def read_status(data_dir: Path) -> StatusRecord | None:
    """Return what an agent last wrote; None if there is nothing, or nothing that this version can read."""
    try:
        with (data_dir / STATUS_FILE).open("rb") as stream:
            data = stream.read(STATUS_BYTES_MAX)
        found = msgspec.json.decode(data, type=StatusRecord)
    except (OSError, ValueError):  # msgspec's errors are ValueErrors
        return None
    return found if found.status.version == STATUS_VERSION else None
