"""The nodes' processes: started in sessions of their own, watched, restarted when they die, and stopped."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from flchain.base.errors import ConfigError, FlchainError
from flchain_edge.process.command_line import EXIT_CONFIG
from tools.network.layout import Node

RESTARTS_MAX = 3
STOP_TIMEOUT_S = 10.0
LOG_TAIL_LINES = 8
PIDS_FILE = "processes.json"
LOCK_FILE = "demo.lock"
CONNECTED = "connected to the broker"
"""A node logs this on stderr when the broker has accepted it."""
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""A dozen processes share this machine; a pool of threads in each would only compete for the cores."""


class DemoError(FlchainError):
    """The network did not start, or came to a standstill; the text says where and shows the last log lines."""


@dataclass
class Child:
    """One node's process, over all its restarts. `peak_bytes` is the largest VmHWM seen, its workers included."""

    node: Node
    process: subprocess.Popen[bytes]
    log_offset: int
    restarts: int = 0
    peak_bytes: int = 0
    is_lost: bool = False

    @property
    def is_running(self) -> bool:
        """True while the process runs."""
        return self.process.poll() is None

    def read_log(self) -> str:
        """Return the log since the process last started."""
        with self.node.log.open("rb") as log:
            log.seek(self.log_offset)
            return log.read().decode(errors="replace")

    def read_log_tail(self) -> str:
        """Return the last log lines, to show what went wrong."""
        lines = self.read_log().splitlines()[-LOG_TAIL_LINES:]
        return "\n".join([f"last lines of {self.node.log}:", *(f"  {line}" for line in lines)])

    def measure(self) -> None:
        """Keep the peak of resident memory, which the kernel forgets when the process ends."""
        with contextlib.suppress(OSError, ValueError):
            pid = self.process.pid
            workers = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            peak_bytes = sum(_read_peak_bytes(each) for each in (pid, *workers))
            self.peak_bytes = max(self.peak_bytes, peak_bytes)


def _read_peak_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0  # a process that has ended holds no memory


@dataclass
class Processes:
    """The processes of all nodes. `tell` shows a line to the user; `on_start` is called before each start."""

    out: Path
    tell: Callable[[str], None]
    on_start: Callable[[Node], None]
    children: dict[str, Child] = field(default_factory=dict)

    @property
    def restarts(self) -> int:
        """How often nodes were restarted, in total."""
        return sum(child.restarts for child in self.children.values())

    @property
    def alive(self) -> tuple[Child, ...]:
        """Those that are not given up."""
        return tuple(child for child in self.children.values() if not child.is_lost)

    def start(self, nodes: Iterable[Node]) -> None:
        """Start a process for each node."""
        for node in nodes:
            self.on_start(node)
            self.children[node.name] = Child(node, *_spawn(node))
        self._save_pids()

    def are_connected(self, nodes: Iterable[Node]) -> bool:
        """Return True if the broker has accepted all of these. Raises DemoError if one has ended."""
        children = [self.children[node.name] for node in nodes]
        for child in children:
            if not child.is_running:
                status = child.process.returncode
                raise DemoError(f"{child.node.name} ended at start with status {status}\n{child.read_log_tail()}")
        return all(CONNECTED in child.read_log() for child in children)

    def watch(self) -> None:
        """Measure memory, and restart each node that has died, at most RESTARTS_MAX times."""
        for child in self.alive:
            if child.is_running:
                child.measure()
            else:
                self._on_death(child)

    def _on_death(self, child: Child) -> None:
        status, name = child.process.returncode, child.node.name
        cause = f"by signal {-status}" if status < 0 else f"with status {status}"
        child.is_lost = status == EXIT_CONFIG or child.restarts >= RESTARTS_MAX
        then = "the others go on" if child.is_lost else f"restarting it ({child.restarts + 1}/{RESTARTS_MAX})"
        self.tell(f"{name} ended {cause}; {then}\n{child.read_log_tail()}")
        if not child.is_lost:
            child.restarts += 1
            self.on_start(child.node)
            child.process, child.log_offset = _spawn(child.node)
            self._save_pids()

    def stop(self) -> None:
        """Send SIGTERM to all, and SIGKILL to those that still run after STOP_TIMEOUT_S."""
        running = [child for child in self.children.values() if child.is_running]
        for child in running:
            child.measure()
            child.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for child in running:
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.tell(f"{child.node.name} did not stop within {STOP_TIMEOUT_S:g} s; killing it")
                child.process.kill()
                child.process.wait()
        (self.out / PIDS_FILE).unlink(missing_ok=True)

    def _save_pids(self) -> None:
        pids = {name: child.process.pid for name, child in self.children.items()}
        _write_whole(self.out / PIDS_FILE, json.dumps(pids, indent=2) + "\n")


@contextlib.contextmanager
def hold_folder(out: Path) -> Iterator[None]:
    """Lock the folder for this process. Raises ConfigError if another demo runs in it."""
    with (out / LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError((f"--out: another demo runs in {out}",)) from error
        yield


def end_leftovers(out: Path) -> None:
    """Kill the nodes that a killed demo left in this folder: two processes on one ledger would corrupt it."""
    try:
        pids = list(json.loads((out / PIDS_FILE).read_text()).values())
    except (FileNotFoundError, ValueError):
        return
    folder = str(out.resolve()) + os.sep
    for pid in pids:
        with contextlib.suppress(psutil.Error, ValueError):
            process = psutil.Process(pid)
            # the pid may belong to another program by now: the command must name a configuration in this folder
            if any(part.startswith(folder) for part in process.cmdline()):
                process.kill()
                process.wait(STOP_TIMEOUT_S)
    (out / PIDS_FILE).unlink(missing_ok=True)


def _spawn(node: Node) -> tuple[subprocess.Popen[bytes], int]:
    """Start a node's process; return it and the offset at which its log begins."""
    command = [sys.executable, "-m", f"{node.role}.cli", "run", "--config", str(node.config.resolve())]
    with node.log.open("ab") as log:
        offset = log.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **THREADS},
            # Ctrl-C at the terminal reaches only the demo, which then stops the nodes in order
            start_new_session=True,
        )
    return process, offset


def _write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader never sees half of it."""
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.replace(path)
