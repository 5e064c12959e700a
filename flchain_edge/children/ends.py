"""How a child process ended: in words, and whether a lack of memory can be the cause."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from resource import struct_rusage


@dataclass(frozen=True)
class ProcessEnd:
    """The end of a process that has been waited for."""

    code: int
    """Its exit status, negative for a signal."""
    peak_bytes: int
    """The most memory that it ever held, including what it shared with its parent."""

    def __str__(self) -> str:
        if self.code >= 0:
            return f"status {self.code}"
        try:
            return signal.Signals(-self.code).name
        except ValueError:  # a real-time signal has no name
            return f"signal {-self.code}"

    def may_lack_memory(self, bytes_max: int) -> bool:
        """Return whether a limit of `bytes_max` (0: none) may be why it ended.

        The kernel kills what takes too much by SIGKILL. A runtime that is refused memory may die by any signal, but not
        before it holds a good part of the limit: one that dies with less than half of it died of something else.
        """
        if self.code == -signal.SIGKILL:
            return True
        return 0 < bytes_max <= 2 * self.peak_bytes


def build_end(status: int, usage: struct_rusage) -> ProcessEnd:
    """Build the end from what os.wait4 returns."""
    return ProcessEnd(os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024)
