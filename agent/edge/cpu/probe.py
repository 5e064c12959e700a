"""Find what could enforce CPU shares here: check the files that the mechanisms would write, without writing."""

from __future__ import annotations

import os

from agent.edge.cpu.cgroup import LEAF, read_own_group
from agent.edge.cpu.values import CpuBoard, Unusable


def probe(board: CpuBoard) -> dict[str, str]:
    """Return for each mechanism, best first, why it would not work for a process like this one; empty if it would."""
    return {"cgroup2": _attempt_version2(board), "cgroup1": _attempt_version1(board), "duty-cycle": ""}


def _attempt_version2(board: CpuBoard) -> str:
    if not (board.cgroup_root / "cgroup.controllers").is_file():
        return "version 2 is not mounted"
    try:
        base = board.cgroup_root / read_own_group(board, "").lstrip("/")
        base = base.parent if base.name == LEAF else base
        controllers = (base / "cgroup.controllers").read_text().split()
    except (Unusable, OSError) as error:
        return str(error)
    if "cpu" not in controllers:
        return f"no cpu controller in {base}"
    return "" if os.access(base / "cgroup.subtree_control", os.W_OK) else f"{base} is not delegated to this user"


def _attempt_version1(board: CpuBoard) -> str:
    root = next((path for name in ("cpu", "cpu,cpuacct") if (path := board.cgroup_root / name).is_dir()), None)
    if root is None:
        return "version 1 with a cpu controller is not mounted"
    try:
        base = root / read_own_group(board, "cpu").lstrip("/")
    except Unusable as error:
        return str(error)
    if not (base / "cpu.cfs_quota_us").exists():
        return "the cpu controller has no quota"
    return "" if os.access(base, os.W_OK) else f"no group can be made in {base}"
