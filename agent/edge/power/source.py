"""The one interface of all sources of power and heat readings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from agent.edge.power.files import SensorFiles


@dataclass(frozen=True)
class Look:
    """One source's reading of the board. None is unmeasured; fields as in BoardReading and EnergySample."""

    temperature_c: float | None = None
    is_throttled: bool | None = None
    is_undervolted: bool | None = None
    power_w: float | None = None
    counter_j: float | None = None
    coarse_j: float | None = None
    is_on_battery: bool | None = None
    battery_fraction: float | None = None
    battery_wh: float | None = None


NOTHING = Look()


class Source(Protocol):
    """One kind of sensor. Both are called in a thread and may block, as some I2C devices do for seconds."""

    def find(self) -> bool:
        """Search for the sensors again; return True if there are any. Called at the start and repeatedly."""

    def read(self) -> Look:
        """Return their values now."""


BuildSource = Callable[[SensorFiles, str], Source]
"""Builds a source from the board's files and the operator's `board_chip`."""
