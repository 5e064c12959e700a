"""What the mechanisms of CPU control share: the board they work on, and their interface."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class Unusable(Exception):
    """The mechanism does not work here; the text says why."""


@dataclass(frozen=True)
class CpuBoard:
    """Where the kernel shows itself, and what there is to share."""

    cores: int
    memory_bytes_max: int = 0
    """Of each job; 0 is no limit."""
    weight_per_core: int = 1024
    """What a whole core weighs against processes outside, in units of cpu.shares: 1024 is any process's weight."""
    cgroup_root: Path = Path("/sys/fs/cgroup")
    proc_root: Path = Path("/proc")
    own_pids: frozenset[int] = frozenset()
    """The agent's workers that run already."""


class Mechanism(Protocol):
    """One way to hold processes to a number of cores. A job is a name; it has one process at a time."""

    @property
    def name(self) -> str: ...

    @property
    def limits_memory(self) -> bool:
        """Whether `memory_bytes_max` is enforced here, and need not be by the process itself."""

    def attach(self, job: str, pid: int) -> None:
        """Take a new process on; `limit` follows at once. Raises OSError."""

    def detach(self, job: str) -> None:
        """The process has ended."""

    def limit(self, job: str, cores: float) -> None:
        """From now on at most so many cores; 0 if the process is held for now, which is not the mechanism's work."""

    def set_busy(self, job: str, is_busy: bool) -> None:
        """Whether the job has work: an idle one needs no attention."""

    def count_oom_kills(self, job: str) -> int:
        """How often the kernel has killed this job's processes for their memory; 0 if nobody knows."""

    def close(self) -> None:
        """Leave nothing behind."""


def send(pid: int, number: signal.Signals) -> None:
    """A signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
