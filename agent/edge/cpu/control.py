"""Control how much CPU a worker gets: one interface, and behind it the mechanism that works on this board.

A share is of the board's whole CPU: 1.0 is all cores together. So a job with one thread can use at most 1 / cores of
it, whatever it is given (`[cpu] threads`). A share is a cap, and among workers that want more than there is, a weight.
Share 0 stops the process where it stands; its work is kept.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Mapping
from types import MappingProxyType

from agent.edge.cpu.cgroup import open_cgroup1, open_cgroup2
from agent.edge.cpu.duty import DutyCycle
from agent.edge.cpu.values import CpuBoard, Mechanism, Unusable, send
from flchain.base.errors import ConfigError

log = logging.getLogger("agent.cpu")

AUTO = "auto"


class Unlimited:
    """No mechanism: only a share of 0 has an effect."""

    name = "none"
    limits_memory = False

    def attach(self, job: str, pid: int) -> None: ...

    def detach(self, job: str) -> None: ...

    def limit(self, job: str, cores: float) -> None: ...

    def set_busy(self, job: str, is_busy: bool) -> None: ...

    def count_oom_kills(self, job: str) -> int:
        return 0

    def close(self) -> None: ...


MECHANISMS: dict[str, Callable[[CpuBoard], Mechanism]] = {
    "cgroup2": open_cgroup2,
    "cgroup1": open_cgroup1,
    "duty-cycle": DutyCycle,
    "none": lambda board: Unlimited(),
}
"""By name, best first. Each raises Unusable, with a reason, where it does not work."""


class CpuControl:
    """The shares of jobs, and their processes as they come and go. A job that got no share yet may take everything."""

    def __init__(self, mechanism: Mechanism, cores: int, reasons: Mapping[str, str] = MappingProxyType({})) -> None:
        self.mechanism = mechanism
        self._reasons = reasons
        self.cores = cores
        self._pids: dict[str, int] = {}
        self._shares: dict[str, float] = {}

    def attach(self, job: str, pid: int) -> None:
        """Put a new process in charge of the job, under the job's share. Raises OSError."""
        self.mechanism.attach(job, pid)
        self._pids[job] = pid
        self._apply(job)

    def detach(self, job: str) -> None:
        """Note that the process has ended; the job keeps its share."""
        if self._pids.pop(job, None) is not None:
            self.mechanism.detach(job)

    def set_share(self, job: str, share: float) -> None:
        """Set a job's share of the whole CPU, 0 to 1. Raises OSError."""
        self._shares[job] = share
        if job in self._pids:
            self._apply(job)

    def _apply(self, job: str) -> None:
        cores = self.get_cores(job)
        if cores > 0:
            self.mechanism.limit(job, cores)
            send(self._pids[job], signal.SIGCONT)
        else:
            send(self._pids[job], signal.SIGSTOP)
            self.mechanism.limit(job, 0.0)

    def get_cores(self, job: str) -> float:
        """Return its share in cores."""
        return self._shares.get(job, 1.0) * self.cores

    def set_busy(self, job: str, is_busy: bool) -> None:
        """Say whether the job has work."""
        self.mechanism.set_busy(job, is_busy)

    def announce(self) -> None:
        """Log once what enforces shares here, and why nothing better does."""
        log.info("cpu enforcement: %s", self.mechanism.name, extra={**self._reasons, "cores": self.cores})

    def close(self) -> None:
        """Remove what the mechanism has made. The processes should have ended; one that has not is not left stopped."""
        for job, pid in tuple(self._pids.items()):
            send(pid, signal.SIGCONT)
            self.detach(job)
        self.mechanism.close()


def open_cpu_control(mechanism: str, board: CpuBoard) -> CpuControl:
    """Return the control with the mechanism of this name; "auto" takes the first that works. Raises ConfigError."""
    if mechanism != AUTO and mechanism not in MECHANISMS:
        raise ConfigError((f"[cpu] mechanism: {mechanism!r} is not one of:  {', '.join((AUTO, *MECHANISMS))}",))
    reasons: dict[str, str] = {}
    for name in MECHANISMS if mechanism == AUTO else (mechanism,):
        try:
            opened = MECHANISMS[name](board)
        except Unusable as unusable:
            reasons[name.replace("-", "_")] = str(unusable)
            continue
        return CpuControl(opened, board.cores, reasons)
    raise ConfigError((f"[cpu] mechanism: {mechanism} does not work here: {reasons[mechanism.replace('-', '_')]}",))


def count_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0))
