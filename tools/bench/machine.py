"""What a figure was measured on: without it no figure can be compared."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

CPU_INFO = Path("/proc/cpuinfo")


def read_cpu_model() -> str:
    """The processor's name as the kernel tells it, or the architecture where it tells none."""
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []
    # boards with ARM cores have no "model name" but often "Model", the board's own name
    names = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("model") and "name" in line]
    names += [line.partition(":")[2].strip() for line in lines if line.startswith("Model")]
    return names[0] if names else platform.machine()


def describe_machine() -> dict[str, Any]:
    """CPU model, cores, Python, system, and how many processes wanted a core in the last minute."""
    return {
        "cpu": read_cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "system": platform.system() + " " + platform.machine(),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def format_machine(machine: dict[str, Any], commit: str) -> str:
    """The same for people, with the load before and after (`load_1min_after`) and the commit, in one line."""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, {machine['system']}, load "
        f"{machine['load_1min']} before and {machine['load_1min_after']} after, commit {commit}"
    )


def read_commit() -> str:
    """The commit this code is of, "-dirty" behind it if files differ from it; "unknown" outside a checkout."""
    command = ("git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    try:
        answer = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.stdout.strip()
