"""Memory and CPU time of a process together with its descendants."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

from agent.edge.cpu import duty


@dataclass(frozen=True)
class Memory:
    """Sums over the processes. A page shared by two processes counts twice in RSS and once in PSS."""

    rss_bytes: int = 0
    pss_bytes: int = 0
    processes: int = 0


def list_tree(pid: int) -> tuple[int, ...]:
    """Return the pids of the process and its descendants that run now."""
    try:
        root = psutil.Process(pid)
        return (pid, *(child.pid for child in root.children(recursive=True)))
    except psutil.NoSuchProcess:
        return ()


def read_memory(pid: int) -> Memory:
    """Return the memory of the whole tree."""
    parts = [part for each in list_tree(pid) if (part := _read_rollup(each)) is not None]
    return Memory(sum(rss for rss, _ in parts), sum(pss for _, pss in parts), len(parts))


def read_cpu_s(pid: int) -> float:
    """Return the CPU seconds of all processes of the tree that run now, as precisely as the kernel measures them."""
    return sum(duty.read_cpu_s(each) for each in list_tree(pid))


def _read_rollup(pid: int) -> tuple[int, int] | None:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    values = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines[1:])}
    return (values["Rss"], values["Pss"]) if "Rss" in values else None
