"""Batteries and mains under /sys/class/power_supply (Documentation/ABI/testing/sysfs-class-power).

One read of `uevent` gives all of a supply's values, in micro-units: uWh, uAh, uV, uA, uW. A gauge on a slow bus can
keep a reader for many seconds (15 were seen with a bq27000), which is why sources are read in a thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from agent.edge.power.files import SensorFiles
from agent.edge.power.hwmon import check_power_w
from agent.edge.power.source import NOTHING, Look

PREFIX = "POWER_SUPPLY_"
BATTERIES = ("Battery", "UPS")
JOULES_PER_WH = 3_600.0


@dataclass(frozen=True)
class Battery:
    """One battery's reading; None is unmeasured."""

    is_discharging: bool
    fraction: float | None
    energy_wh: float | None
    full_wh: float | None
    power_w: float | None


class PowerSupplies:
    """All batteries together, and whether the board runs on them."""

    def __init__(self, files: SensorFiles, board_chip: str = "") -> None:
        self._files = files
        self._supplies: list[tuple[str, Path]] = []
        self._drain = Drain()

    def find(self) -> bool:
        self._supplies = []
        for folder in self._files.find("class/power_supply/*"):
            kind = self._files.read_text(folder / "type", is_optional=True)
            scope = self._files.read_text(folder / "scope", is_optional=True)
            if kind is not None and scope != "Device":  # a mouse's battery is not the board's
                self._supplies.append((kind, folder / "uevent"))
        return bool(self._supplies)

    def read(self) -> Look:
        batteries: list[Battery] = []
        mains: list[bool] = []
        for kind, uevent in self._supplies:
            values = {name.removeprefix(PREFIX): value for name, value in self._files.read_lines(uevent)}
            if kind not in BATTERIES and "ONLINE" in values:
                mains.append(values["ONLINE"] != "0")
            elif kind in BATTERIES and values.get("PRESENT", "1") == "1" and "STATUS" in values:
                batteries.append(self._read_battery(uevent, values))
        if not batteries:
            return Look(is_on_battery=False) if any(mains) else NOTHING
        is_discharging = any(battery.is_discharging for battery in batteries)
        is_on_battery = not any(mains) if mains else is_discharging
        energy_wh = _add([battery.energy_wh for battery in batteries])
        is_draining = is_on_battery and is_discharging
        # While it charges, the current is not the board's draw.
        power_w = _add([battery.power_w for battery in batteries if battery.is_discharging]) if is_draining else None
        return Look(
            is_on_battery=is_on_battery,
            battery_fraction=_combine_fractions(batteries),
            battery_wh=energy_wh,
            power_w=power_w,
            coarse_j=self._drain.process(energy_wh, is_draining),
        )

    def _read_battery(self, uevent: Path, values: dict[str, str]) -> Battery:
        def read(name: str) -> float | None:
            """Return the value in whole units; None if it is missing or impossible."""
            text = values.get(name)
            if text is None:
                return None
            if not text.lstrip("-").isdecimal():
                self._files.tell(uevent, f"{name} is not a number: {text[:40]!r}")
                return None
            return int(text) / 1e6

        volt = read("VOLTAGE_NOW")
        design_volt = read("VOLTAGE_MIN_DESIGN") or volt
        power_w = _magnitude(read("POWER_NOW")) or _multiply(volt, _magnitude(read("CURRENT_NOW")))
        energy_wh = _or(read("ENERGY_NOW"), _multiply(design_volt, read("CHARGE_NOW")))
        full_wh = _or(read("ENERGY_FULL"), _multiply(design_volt, read("CHARGE_FULL")))
        energy_wh = energy_wh if energy_wh is not None and energy_wh >= 0 else None
        capacity = read("CAPACITY")
        fraction = None if capacity is None else capacity * 1e4
        if fraction is None and energy_wh is not None and full_wh:
            fraction = energy_wh / full_wh
        if fraction is not None and not -0.01 <= fraction <= 1.2:  # a worn battery may be a little over full
            self._files.tell(uevent, f"is not a state of charge: {fraction}")
            fraction = None
        return Battery(
            is_discharging=values["STATUS"] == "Discharging",
            fraction=None if fraction is None else min(1.0, max(0.0, fraction)),
            energy_wh=energy_wh,
            full_wh=full_wh,
            power_w=check_power_w(self._files, uevent, power_w)
            if power_w
            else None,  # gauges that do not measure say 0
        )


@dataclass
class Drain:
    """Joules that have left the batteries while the board ran on them, in the gauge's steps."""

    last_wh: float | None = None
    drained_j: float = 0.0
    is_running: bool = field(default=False)

    def process(self, energy_wh: float | None, is_discharging: bool) -> float | None:
        """Return the total so far; None while it is unknown, which ends the interval."""
        if energy_wh is None or not is_discharging:
            self.last_wh = None
            return None
        if self.last_wh is not None and energy_wh < self.last_wh:
            self.drained_j += (self.last_wh - energy_wh) * JOULES_PER_WH
        self.last_wh = energy_wh
        return self.drained_j


def _combine_fractions(batteries: list[Battery]) -> float | None:
    """Weigh by size if all sizes are known, otherwise return the plain mean of those that are measured."""
    if all(battery.energy_wh is not None and battery.full_wh for battery in batteries) and len(batteries) > 1:
        fraction = sum(b.energy_wh or 0.0 for b in batteries) / sum(b.full_wh or 0.0 for b in batteries)
        return min(1.0, fraction)
    known = [battery.fraction for battery in batteries if battery.fraction is not None]
    return sum(known) / len(known) if known else None


def _add(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _magnitude(value: float | None) -> float | None:
    """Ignore the sign: some drivers give an outgoing current one, others do not."""
    return None if value is None else abs(value)


def _multiply(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one * other


def _or(one: float | None, other: float | None) -> float | None:
    return other if one is None else one
