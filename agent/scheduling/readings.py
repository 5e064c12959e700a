"""A board's readings, and a split of its CPU: plain values that scheduler and edges share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BoardReading:
    """One reading of the board. None is unmeasured: the board has no such sensor, which is not the same as 0."""

    free_memory_bytes: int
    temperature_c: float | None = None
    """Of the hottest zone, degrees Celsius."""
    is_throttled: bool | None = None
    """The firmware has lowered the clock, for heat or for power."""
    is_undervolted: bool | None = None
    power_w: float | None = None
    """The whole board's draw now, watts."""
    is_power_estimated: bool = False
    """True if `power_w` comes from a model of the board and not from a sensor."""
    is_on_battery: bool | None = None
    battery_fraction: float | None = None
    """Of the full charge, 0 to 1."""
    battery_wh: float | None = None
    """Energy left, watt-hours."""


@dataclass(frozen=True)
class Shares:
    """A split of the board's whole CPU (1.0 is all cores together): training, mining, and the remainder as rest."""

    train: float
    mine: float

    def __post_init__(self) -> None:
        assert min(self.train, self.mine) >= 0.0 and self.train + self.mine <= 1.0 + 1e-9, self

    @property
    def rest(self) -> float:
        """The share that neither gets."""
        return max(0.0, 1.0 - self.train - self.mine)
