"""The one interface of everything that tells of power and heat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from agent.edge.power.files import SensorFiles


@dataclass(frozen=True)
class Look:
    """What one source says of the board now. None is unmeasured; fields as in BoardReading and EnergySample."""

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
        """Look for the sensors anew; True if there are any. Called at the start and again and again."""

    def read(self) -> Look:
        """Their values now."""


BuildSource = Callable[[SensorFiles, str], Source]
"""From the board's files and the operator's `board_chip`."""
