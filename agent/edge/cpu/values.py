"""What all mechanisms of CPU control use: the board, and their common interface."""

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
    """Where the kernel's files are, and what there is to share."""

    cores: int
    memory_bytes_max: int = 0
    """Memory limit of each job; 0 is none."""
    weight_per_core: int = 1024
    """Weight of a whole core against processes outside, in units of cpu.shares: 1024 is any process's weight."""
    cgroup_root: Path = Path("/sys/fs/cgroup")
    proc_root: Path = Path("/proc")
    own_pids: frozenset[int] = frozenset()
    """Process ids of workers that run already."""


class Mechanism(Protocol):
    """One way to hold processes to a number of cores. A job is a name; it has one process at a time."""

    @property
    def name(self) -> str: ...

    @property
    def limits_memory(self) -> bool:
        """True if `memory_bytes_max` is enforced here, so that the process itself need not enforce it."""

    def attach(self, job: str, pid: int) -> None:
        """Take in a new process; `limit` follows at once. Raises OSError."""

    def detach(self, job: str) -> None:
        """Note that the process has ended."""

    def limit(self, job: str, cores: float) -> None:
        """Allow at most this many cores from now on; 0 if the process is held, which others see to."""

    def set_busy(self, job: str, is_busy: bool) -> None:
        """Say whether the job has work: an idle one needs no attention."""

    def count_oom_kills(self, job: str) -> int:
        """Return how often the kernel has killed this job's processes for their memory; 0 if unknown."""

    def close(self) -> None:
        """Remove everything that the mechanism has made."""


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
