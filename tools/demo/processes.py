"""The nodes' processes: started in sessions of their own, watched, started again when they die, and stopped."""

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
from flchain_edge.process.command import EXIT_CONFIG
from tools.network.network import Node

RESTARTS_MAX = 3
STOP_TIMEOUT_S = 10.0
LOG_TAIL_LINES = 8
PIDS_FILE = "processes.json"
LOCK_FILE = "demo.lock"
CONNECTED = "connected to the broker"
"""What a node says on stderr when the broker has taken it."""
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""A dozen processes share this machine: a pool of threads in each would only fight."""


class DemoError(FlchainError):
    """The network did not come up or came to a standstill; the text says where and shows what was said last."""


@dataclass
class Child:
    """One node's process, over all its lives. `peak_bytes` is the largest VmHWM seen, its workers' added to its own."""

    node: Node
    process: subprocess.Popen[bytes]
    log_offset: int
    restarts: int = 0
    peak_bytes: int = 0
    is_lost: bool = False

    @property
    def is_running(self) -> bool:
        """True while the process lives."""
        return self.process.poll() is None

    def read_log(self) -> str:
        """What this life of it has said."""
        with self.node.log.open("rb") as log:
            log.seek(self.log_offset)
            return log.read().decode(errors="replace")

    def read_log_tail(self) -> str:
        """The last lines, for a person who asks what went wrong."""
        lines = self.read_log().splitlines()[-LOG_TAIL_LINES:]
        return "\n".join([f"last lines of {self.node.log}:", *(f"  {line}" for line in lines)])

    def measure(self) -> None:
        """Keep the peak of resident memory: the kernel forgets it with the process."""
        with contextlib.suppress(OSError, ValueError):
            pid = self.process.pid
            workers = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            peak_bytes = sum(_read_peak_bytes(each) for each in (pid, *workers))
            self.peak_bytes = max(self.peak_bytes, peak_bytes)


def _read_peak_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0  # it has ended and holds nothing


@dataclass
class Processes:
    """All of them. `tell` takes a line for the person who watches; `on_start` is called before each life."""

    out: Path
    tell: Callable[[str], None]
    on_start: Callable[[Node], None]
    children: dict[str, Child] = field(default_factory=dict)

    @property
    def restarts(self) -> int:
        """How often a node had to be started again."""
        return sum(child.restarts for child in self.children.values())

    @property
    def alive(self) -> tuple[Child, ...]:
        """Those not given up."""
        return tuple(child for child in self.children.values() if not child.is_lost)

    def start(self, nodes: Iterable[Node]) -> None:
        """Start a process for each node."""
        for node in nodes:
            self.on_start(node)
            self.children[node.name] = Child(node, *_spawn(node))
        self._save_pids()

    def are_connected(self, nodes: Iterable[Node]) -> bool:
        """True when the broker has taken every one of these. Raises DemoError if one ended."""
        children = [self.children[node.name] for node in nodes]
        for child in children:
            if not child.is_running:
                status = child.process.returncode
                raise DemoError(f"{child.node.name} ended with status {status} at start\n{child.read_log_tail()}")
        return all(CONNECTED in child.read_log() for child in children)

    def watch(self) -> None:
        """Measure memory; start again what died by itself, at most RESTARTS_MAX times each."""
        for child in self.alive:
            if child.is_running:
                child.measure()
            else:
                self._on_death(child)

    def _on_death(self, child: Child) -> None:
        status, name = child.process.returncode, child.node.name
        cause = f"by signal {-status}" if status < 0 else f"with status {status}"
        child.is_lost = status == EXIT_CONFIG or child.restarts >= RESTARTS_MAX
        then = "the others go on" if child.is_lost else f"starting it again ({child.restarts + 1}/{RESTARTS_MAX})"
        self.tell(f"{name} ended {cause}; {then}\n{child.read_log_tail()}")
        if not child.is_lost:
            child.restarts += 1
            self.on_start(child.node)
            child.process, child.log_offset = _spawn(child.node)
            self._save_pids()

    def stop(self) -> None:
        """SIGTERM to all, SIGKILL to those that still run after STOP_TIMEOUT_S."""
        running = [child for child in self.children.values() if child.is_running]
        for child in running:
            child.measure()
            child.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for child in running:
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.tell(f"{child.node.name} did not stop in {STOP_TIMEOUT_S:g} s and is killed")
                child.process.kill()
                child.process.wait()
        (self.out / PIDS_FILE).unlink(missing_ok=True)

    def _save_pids(self) -> None:
        pids = {name: child.process.pid for name, child in self.children.items()}
        _write_whole(self.out / PIDS_FILE, json.dumps(pids, indent=2) + "\n")


@contextlib.contextmanager
def hold_folder(out: Path) -> Iterator[None]:
    """Keep the folder to this process. Raises ConfigError if another demo runs in it."""
    with (out / LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError((f"--out: another demo runs in {out}",)) from error
        yield


def end_leftovers(out: Path) -> None:
    """End the processes of a demo that was killed in this folder: two on one ledger would spoil it."""
    try:
        pids = list(json.loads((out / PIDS_FILE).read_text()).values())
    except (FileNotFoundError, ValueError):
        return
    folder = str(out.resolve()) + os.sep
    for pid in pids:
        with contextlib.suppress(psutil.Error, ValueError):
            process = psutil.Process(pid)
            # a pid may belong to somebody else by now: the command must name a configuration in this folder
            if any(part.startswith(folder) for part in process.cmdline()):
                process.kill()
                process.wait(STOP_TIMEOUT_S)
    (out / PIDS_FILE).unlink(missing_ok=True)


def _spawn(node: Node) -> tuple[subprocess.Popen[bytes], int]:
    """The process, and where in its log this life begins."""
    command = [sys.executable, "-m", f"{node.role}.cli", "run", "--config", str(node.config.resolve())]
    with node.log.open("ab") as log:
        offset = log.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **THREADS},
            # Ctrl-C at the terminal reaches the demo only, which then stops the nodes in order
            start_new_session=True,
        )
    return process, offset


def _write_whole(path: Path, text: str) -> None:
    """So that a reader never meets half a file."""
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.replace(path)
