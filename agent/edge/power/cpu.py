"""Counters of how often an x86 processor was throttled for heat."""

from __future__ import annotations

from pathlib import Path

from agent.edge.power.files import SensorFiles
from agent.edge.power.source import NOTHING, Look

COUNTERS = "devices/system/cpu/cpu*/thermal_throttle/core_throttle_count"


class ThrottleCounts:
    """Throttled if a counter has grown since the last reading."""

    def __init__(self, files: SensorFiles, board_chip: str = "") -> None:
        self._files = files
        self._counters: list[Path] = []
        self._last: int | None = None

    def find(self) -> bool:
        self._counters = self._files.find(COUNTERS)
        return bool(self._counters)

    def read(self) -> Look:
        counts = [self._files.read_unsigned(path, is_optional=True) for path in self._counters]
        known = [count for count in counts if count is not None]
        if not known:
            return NOTHING
        last, self._last = self._last, sum(known)
        return NOTHING if last is None else Look(is_throttled=self._last > last)
