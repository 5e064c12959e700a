"""The system's own programs, and a fake of them that remembers."""

from __future__ import annotations

import subprocess
from typing import Protocol

TIMEOUT_S = 20.0


class Programs(Protocol):
    """Runs a program of the system."""

    def run(self, *command: str) -> bool:
        """Return whether it could be run and ended well. Provisioning goes on either way: a reboot does the same."""


class SystemPrograms:
    """The programs of the running system."""

    def run(self, *command: str) -> bool:
        try:
            done = subprocess.run(command, capture_output=True, check=False, timeout=TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0


class NoPrograms:
    """Runs nothing and remembers what it was asked for: for a system that is not running, such as an image."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, ...]] = []

    def run(self, *command: str) -> bool:
        self.commands.append(command)
        return True
