"""Requested and actual shares of the CPU, for each mechanism that works here. Needs only the standard library."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.edge.cpu.cgroup import read_own_group
from agent.edge.cpu.control import MECHANISMS, CpuControl, count_cores
from agent.edge.cpu.duty import read_cpu_s
from agent.edge.cpu.values import CpuBoard, Unusable
from agent.scheduling.readings import Shares

SPLITS = (
    Shares(0.64, 0.36),
    Shares(0.90, 0.10),
    Shares(0.50, 0.25),
    Shares(0.30, 0.30),
    Shares(0.10, 0.60),
    Shares(0.20, 0.05),
)
QUICK_SPLITS = SPLITS[:3]
JOBS = ("train", "mine")
WEIGHT_PER_CORE = 262_144
"""A weight so large that other processes on this machine do not disturb the measurement."""
GAP_POINTS_MAX = 5.0
"""The claim for every mechanism, over 30 s on loaded cores."""
WARM_UP_S = 0.3
BURNING = "burning"
CGROUP1 = Path("/sys/fs/cgroup/cpu")
BLOCK = bytes(1 << 20)
MODULE = "tools.bench.agent.cpu_shares"
REPOSITORY = Path(__file__).parents[3]


@dataclass(frozen=True)
class Given:
    """One measurement. Shares are of the whole CPU; `gap_points` is the larger of the two differences, in points."""

    mechanism: str
    asked_train: float
    asked_mine: float
    given_train: float
    given_mine: float
    seconds: float

    @property
    def gap_points(self) -> float:
        gaps = (self.given_train - self.asked_train, self.given_mine - self.asked_mine)
        return 100 * max(map(abs, gaps))


def burn(threads: int) -> None:
    """Use all the CPU that this many threads can get: checksums of large blocks run without Python's lock."""

    def spin() -> None:
        while True:
            zlib.crc32(BLOCK)

    for _ in range(threads - 1):
        threading.Thread(target=spin, daemon=True).start()
    print(BURNING, flush=True)
    spin()


@contextlib.contextmanager
def burning(count: int, threads: int, niceness: int) -> Iterator[tuple[int, ...]]:
    """Run `count` processes that burn CPU, and end them in any case. Yields their pids."""
    command = (sys.executable, "-m", MODULE, "burn", str(threads), str(niceness))
    processes = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) for _ in range(count)]
    try:
        for process in processes:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise RuntimeError(f"a process that burns CPU ended with status {process.wait()}")
        yield tuple(process.pid for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def open_mechanisms(names: tuple[str, ...]) -> dict[str, CpuControl | str]:
    """Return each mechanism by its name: ready to use, or why it does not work here."""
    cores, found = count_cores(), dict[str, CpuControl | str]()
    for name in names:
        try:
            board = CpuBoard(cores, weight_per_core=WEIGHT_PER_CORE)
            found[name] = CpuControl(MECHANISMS[name](board), cores)
        except Unusable as unusable:
            found[name] = str(unusable)
    return found


@contextlib.contextmanager
def outweighing() -> Iterator[bool]:
    """Put this process, and what it starts, in a cgroup (version 1) that outweighs all others; yield False if not."""
    home = CGROUP1 / read_own_group(CpuBoard(count_cores()), "cpu").lstrip("/") if CGROUP1.is_dir() else CGROUP1
    group = home / f"flchain-{os.getpid()}-bench"
    try:
        group.mkdir()
        (group / "cpu.shares").write_text(str(WEIGHT_PER_CORE))
        (group / "cgroup.procs").write_text(str(os.getpid()))
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        (home / "cgroup.procs").write_text(str(os.getpid()))
        with contextlib.suppress(OSError):
            group.rmdir()


async def measure(control: CpuControl, asked: Shares, seconds: float, loads: int | None = None) -> Given:
    """Measure two processes that each want all cores, next to `loads` idle-priority ones (one per core if None)."""
    cores = count_cores()
    with burning(cores if loads is None else loads, 1, 19), outweighing(), burning(len(JOBS), cores, 0) as pids:
        wanted = dict(zip(JOBS, (asked.train, asked.mine), strict=True))
        for job, pid in zip(JOBS, pids, strict=True):
            control.attach(job, pid)
            control.set_share(job, wanted[job])
            control.set_busy(job, True)
        await asyncio.sleep(WARM_UP_S)
        started, before = time.monotonic(), [read_cpu_s(pid) for pid in pids]
        await asyncio.sleep(seconds)
        took = time.monotonic() - started
        given = [(read_cpu_s(pid) - old) / (took * cores) for pid, old in zip(pids, before, strict=True)]
        for job in JOBS:
            control.detach(job)
    return Given(control.mechanism.name, asked.train, asked.mine, given[0], given[1], took)


async def sweep(
    control: CpuControl,
    splits: tuple[Shares, ...],
    seconds: float,
    loads: int | None = None,
    tell: Callable[[Given], None] = lambda given: None,
) -> list[Given]:
    """Measure all splits with one mechanism, and close it."""
    results = []
    try:
        for asked in splits:
            results.append(await measure(control, asked, seconds, loads))
            tell(results[-1])
    finally:
        control.close()
    return results


def main() -> int:
    """Run `burn THREADS NICENESS`, or `MECHANISM SECONDS LOADS`: one JSON line per split; 1 if a gap is too large."""
    if sys.argv[1] == "burn":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with contextlib.suppress(OSError):
            os.nice(int(sys.argv[3]))
        burn(int(sys.argv[2]))
    name, seconds, loads = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    control = open_mechanisms((name,))[name]
    if isinstance(control, str):
        print(f"{name} does not work here: {control}", file=sys.stderr)
        return 1

    def tell(given: Given) -> None:
        print(json.dumps(asdict(given) | {"gap_points": round(given.gap_points, 2)}), flush=True)

    results = asyncio.run(sweep(control, SPLITS, seconds, loads, tell))
    return int(any(given.gap_points >= GAP_POINTS_MAX for given in results))


if __name__ == "__main__":
    raise SystemExit(main())
