"""CPU shares without control groups: stop and continue a worker so that its CPU time matches its share.

It is a controller without fixed slices: it reads the CPU time of the process (the kernel's clock of that process, in
nanoseconds) and grants credit as time goes by. What a late tick lets through, the next ones take back.
"""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass

from agent.edge.cpu.values import CpuBoard, send

CREDIT_S_MAX = 0.1
"""Most CPU seconds that a worker may be owed: time beyond, that it did not use because others ran, is lost."""
RESUME_S = 0.02
"""CPU seconds of credit at which a stopped worker continues: shorter slices cost more than they smooth."""
TICK_S_MIN, TICK_S_MAX = 0.005, 0.5


@dataclass
class Budget:
    """One process's account. `cores` is what it is granted, 0 to the board's; credit is in CPU seconds."""

    cores: float
    credit_s: float = 0.0
    is_running: bool = True

    def process_tick(self, elapsed_s: float, used_s: float, cores_max: int) -> float:
        """Account for `elapsed_s` of time and `used_s` of CPU: set `is_running`, return seconds until the next tick."""
        self.credit_s = min(self.credit_s + self.cores * elapsed_s - used_s, CREDIT_S_MAX)
        self.is_running = self.credit_s > 0 if self.is_running else self.credit_s >= RESUME_S
        if self.is_running:  # when the credit would be spent if it took all cores
            return min(max(self.credit_s / max(cores_max - self.cores, 0.01), TICK_S_MIN), CREDIT_S_MAX)
        return min(max((RESUME_S - self.credit_s) / self.cores, TICK_S_MIN), TICK_S_MAX)


@dataclass
class _Job:
    pid: int
    budget: Budget
    is_busy: bool = False
    seen_at: float = 0.0
    cpu_s: float = 0.0
    timer: asyncio.TimerHandle | None = None


class DutyCycle:
    """One timer of the event loop for each job that has work and a share between 0 and 1."""

    name = "duty-cycle"
    limits_memory = False

    def __init__(self, board: CpuBoard) -> None:
        self._cores = board.cores
        self._jobs: dict[str, _Job] = {}

    def attach(self, job: str, pid: int) -> None:
        self.detach(job)
        self._jobs[job] = _Job(pid, Budget(self._cores))

    def detach(self, job: str) -> None:
        if (known := self._jobs.pop(job, None)) is not None:
            self._stop(known)

    def limit(self, job: str, cores: float) -> None:
        known = self._jobs[job]
        known.budget.cores = cores
        known.budget.is_running = True  # whoever set the limit has continued the process
        self._start(known)

    def set_busy(self, job: str, is_busy: bool) -> None:
        if (known := self._jobs.get(job)) is None:
            return
        known.is_busy = is_busy
        if not is_busy and known.budget.cores > 0 and not known.budget.is_running:
            known.budget.is_running = True
            send(known.pid, signal.SIGCONT)  # to wait for work costs nothing
        self._start(known)

    def count_oom_kills(self, job: str) -> int:
        return 0

    def close(self) -> None:
        for job in tuple(self._jobs):
            self.detach(job)

    def _start(self, job: _Job) -> None:
        """Make sure that the job's timer runs if it is needed."""
        if not job.is_busy or not 0 < job.budget.cores < self._cores:
            self._stop(job)
        elif job.timer is None:
            job.seen_at, job.cpu_s = time.monotonic(), read_cpu_s(job.pid)
            job.timer = asyncio.get_running_loop().call_later(TICK_S_MIN, self._tick, job)

    def _stop(self, job: _Job) -> None:
        if job.timer is not None:
            job.timer.cancel()
            job.timer = None

    def _tick(self, job: _Job) -> None:
        now, cpu_s = time.monotonic(), read_cpu_s(job.pid)
        before = job.budget.is_running
        delay_s = job.budget.process_tick(now - job.seen_at, cpu_s - job.cpu_s, self._cores)
        job.seen_at, job.cpu_s = now, cpu_s
        if before != job.budget.is_running:
            send(job.pid, signal.SIGCONT if job.budget.is_running else signal.SIGSTOP)
        job.timer = asyncio.get_running_loop().call_later(delay_s, self._tick, job)


def read_cpu_s(pid: int) -> float:
    """Return the CPU seconds of all threads of a process; 0 if it is gone.

    The clock's number is made as clock_getcpuclockid(3) makes it: the kernel's interface, which Python does not offer.
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0
