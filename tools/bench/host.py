"""This computer and this commit: no figure can be compared without what it was measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

CPU_INFO = Path("/proc/cpuinfo")


def read_cpu_model() -> str:
    """Return the processor's name as the kernel gives it, or the architecture if it gives none."""
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []
    # ARM boards have no "model name", but often "Model", the name of the board
    names = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("model") and "name" in line]
    names += [line.partition(":")[2].strip() for line in lines if line.startswith("Model")]
    return names[0] if names else platform.machine()


def describe_machine() -> dict[str, Any]:
    """Return CPU model, cores, Python, system, and how many processes wanted a core in the last minute."""
    return {
        "cpu": read_cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "system": platform.system() + " " + platform.machine(),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def format_machine(machine: dict[str, Any], commit: str) -> str:
    """Return the same on one line, with the load before and after (`load_1min_after`) and the commit."""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, {machine['system']}, load "
        f"{machine['load_1min']} before and {machine['load_1min_after']} after, commit {commit}"
    )


def read_commit() -> str:
    """Return the commit of this code, with "-dirty" if files differ from it; "unknown" outside a checkout."""
    command = ("git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    try:
        answer = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.stdout.strip()
