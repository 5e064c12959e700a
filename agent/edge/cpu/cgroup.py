"""CPU shares by control groups: version 2 in the subtree that systemd delegates, or version 1 where that is mounted.

Version 2 (kernel, Documentation/admin-guide/cgroup-v2.rst): processes live in leaves only, so the agent moves itself
into one first. Version 1 is kept for older boards; there only the CPU controller is used.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Protocol

from agent.edge.cpu.values import CpuBoard, Unusable

LEAF = "agent"
"""Name of the group of the agent's own process, beside those of its workers."""
PERIOD_US = 100_000
PERIOD_US_MAX = 1_000_000
QUOTA_US_MIN = 1_000
"""The kernel's bounds on a quota and its period (both versions)."""
WEIGHT_PER_CORE = 100
"""In units of cpu.weight: the default of a group."""


class Tree(Protocol):
    """The files of one version."""

    def make(self, job: str) -> Path: ...

    def write_limit(self, group: Path, cores: float) -> None: ...

    def count_oom_kills(self, group: Path) -> int: ...


class Cgroups:
    """Workers in groups of their own, with quota and weight. The kernel does the rest."""

    def __init__(self, name: str, tree: Tree, *, limits_memory: bool) -> None:
        self.name = name
        self.limits_memory = limits_memory
        self._tree = tree
        self._groups: dict[str, Path] = {}

    def attach(self, job: str, pid: int) -> None:
        group = self._groups[job] = self._groups.get(job) or self._tree.make(job)
        (group / "cgroup.procs").write_text(str(pid))

    def detach(self, job: str) -> None:
        """The group waits for the next process."""

    def limit(self, job: str, cores: float) -> None:
        if cores > 0:
            self._tree.write_limit(self._groups[job], cores)

    def set_busy(self, job: str, is_busy: bool) -> None:
        """Do nothing: the kernel needs no reminder."""

    def count_oom_kills(self, job: str) -> int:
        return self._tree.count_oom_kills(self._groups[job]) if job in self._groups else 0

    def close(self) -> None:
        """Remove the groups. One that still holds a process stays: systemd removes it with the unit's."""
        for group in self._groups.values():
            with contextlib.suppress(OSError):
                group.rmdir()


def compute_quota_us(cores: float) -> tuple[int, int]:
    """Return quota and period in microseconds: `cores` may be too few for a quota in the usual period."""
    period = PERIOD_US if cores * PERIOD_US >= QUOTA_US_MIN else PERIOD_US_MAX
    return max(QUOTA_US_MIN, round(cores * period)), period


class _Version2:
    def __init__(self, base: Path, board: CpuBoard) -> None:
        self._base = base
        self._board = board

    def make(self, job: str) -> Path:
        group = self._base / job
        group.mkdir(exist_ok=True)
        if self._board.memory_bytes_max and (group / "memory.max").exists():
            (group / "memory.max").write_text(str(self._board.memory_bytes_max))
        return group

    def write_limit(self, group: Path, cores: float) -> None:
        whole = cores >= self._board.cores
        quota, period = compute_quota_us(cores)
        (group / "cpu.max").write_text(f"{'max' if whole else quota} {period}")
        (group / "cpu.weight").write_text(str(max(1, min(10_000, round(cores * WEIGHT_PER_CORE)))))

    def count_oom_kills(self, group: Path) -> int:
        with contextlib.suppress(OSError):
            if found := re.search(r"^oom_kill (\d+)", (group / "memory.events").read_text(), re.MULTILINE):
                return int(found[1])
        return 0


def open_cgroup2(board: CpuBoard) -> Cgroups:
    """Return the agent's own group of version 2, made into a subtree. Raises Unusable."""
    root = board.cgroup_root
    if not (root / "cgroup.controllers").is_file():
        raise Unusable("version 2 is not mounted")
    own = read_own_group(board, "")
    base = root / own.lstrip("/")
    if base.name == LEAF:  # DelegateSubgroup= of newer systemd, or a start after an exec
        base = base.parent
    try:
        controllers = (base / "cgroup.controllers").read_text().split()
        if "cpu" not in controllers:
            raise Unusable(f"no cpu controller in {own}")
        if (base / "cgroup.events").exists():  # only the root has none, and it may hold processes as well as groups
            _move_into_leaf(base, board)
        (base / "cgroup.subtree_control").write_text("+cpu")
        has_memory = "memory" in controllers
        if has_memory:
            (base / "cgroup.subtree_control").write_text("+memory")
    except OSError as error:
        raise Unusable(f"{own} is not delegated to this process: {error.strerror}") from error
    return Cgroups("cgroup2", _Version2(base, board), limits_memory=has_memory)


def _move_into_leaf(base: Path, board: CpuBoard) -> None:
    """Raise Unusable if the group holds others' processes: it is then a login session's or a container's."""
    inside = {int(pid) for pid in (base / "cgroup.procs").read_text().split()}
    if strangers := inside - board.own_pids - {os.getpid()}:
        raise Unusable(f"the group is not the agent's alone: it holds process {min(strangers)}")
    leaf = base / LEAF
    leaf.mkdir(exist_ok=True)
    for pid in inside:
        (leaf / "cgroup.procs").write_text(str(pid))


class _Version1:
    def __init__(self, base: Path, board: CpuBoard) -> None:
        self._base = base
        self._board = board

    def make(self, job: str) -> Path:
        group = self._base / f"flchain-{os.getpid()}-{job}"
        group.mkdir(exist_ok=True)
        return group

    def write_limit(self, group: Path, cores: float) -> None:
        whole = cores >= self._board.cores
        quota, period = compute_quota_us(cores)
        (group / "cpu.cfs_quota_us").write_text("-1")  # the kernel refuses a period that is too short for the old quota
        (group / "cpu.cfs_period_us").write_text(str(period))
        (group / "cpu.cfs_quota_us").write_text(str(-1 if whole else quota))
        (group / "cpu.shares").write_text(str(max(2, min(262_144, round(cores * self._board.weight_per_core)))))

    def count_oom_kills(self, group: Path) -> int:
        return 0

    def remove_leftovers(self) -> None:
        """Remove groups of agents that were killed: whoever may create a group may remove an empty one."""
        for group in self._base.glob("flchain-*-*"):
            owner = group.name.split("-")[1]
            if not (self._board.proc_root / owner).exists():
                with contextlib.suppress(OSError):
                    group.rmdir()


def open_cgroup1(board: CpuBoard) -> Cgroups:
    """Return the agent's own group of version 1's CPU controller. Raises Unusable."""
    root = next((path for name in ("cpu", "cpu,cpuacct") if (path := board.cgroup_root / name).is_dir()), None)
    if root is None or not (root / "cgroup.procs").exists():
        raise Unusable("version 1 with a cpu controller is not mounted")
    base = root / read_own_group(board, "cpu").lstrip("/")
    if not (base / "cpu.cfs_quota_us").exists():
        raise Unusable("the cpu controller has no quota")
    tree = _Version1(base, board)
    tree.remove_leftovers()
    try:
        tree.make("probe").rmdir()
    except OSError as error:
        raise Unusable(f"no group can be made in {base}: {error.strerror}") from error
    return Cgroups("cgroup1", tree, limits_memory=False)


def read_own_group(board: CpuBoard, controller: str) -> str:
    """Return the path below the mount point; version 2's line names no controllers. Raises Unusable."""
    try:
        lines = (board.proc_root / "self" / "cgroup").read_text().splitlines()
    except OSError as error:
        raise Unusable(f"{board.proc_root / 'self' / 'cgroup'}: {error.strerror}") from error
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    raise Unusable("this process is in no such group")
