"""How a child process ended: in words, and whether want of memory can have been the cause."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from resource import struct_rusage


@dataclass(frozen=True)
class ProcessEnd:
    """Of a process that has been waited for."""

    code: int
    """Its exit status, negative for a signal."""
    peak_bytes: int
    """The most memory that it ever held, what it shared with its parent included."""

    def __str__(self) -> str:
        if self.code >= 0:
            return f"status {self.code}"
        try:
            return signal.Signals(-self.code).name
        except ValueError:  # a real-time signal has no name
            return f"signal {-self.code}"

    def may_lack_memory(self, bytes_max: int) -> bool:
        """Whether a limit of `bytes_max` (0: none) may be why it ended.

        SIGKILL is how the kernel ends what takes too much. A runtime that is refused memory dies by any signal, but not
        before it holds a good part of what it may: one that dies with less than half of it died of something else.
        """
        if self.code == -signal.SIGKILL:
            return True
        return 0 < bytes_max <= 2 * self.peak_bytes


def build_end(status: int, usage: struct_rusage) -> ProcessEnd:
    """From what os.wait4 gives."""
    return ProcessEnd(os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024)
