"""Chips under /sys/class/hwmon (Documentation/hwmon/sysfs-interface): power meters on the supply, and the CPU's heat.

Units: power in microwatts, voltage in millivolts, current in milliamperes, temperature in thousandths of a degree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from agent.edge.power.files import SensorFiles
from agent.edge.power.source import NOTHING, Look
from agent.edge.power.thermal import read_temperature_c

POWER_CHIPS = ("ina209", "ina219", "ina220", "ina226", "ina230", "ina231", "ina233", "ina238", "ina260", "ina3221")
POWER_CHIPS_MORE = ("ltc2945", "ltc2947", "pac1934", "power_meter")
"""Meters that people build into a board's supply. Others, such as graphics cards', measure a part of the board."""
HEAT_CHIPS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")
WHOLE = ("VDD_IN", "POM_5V_IN")
"""Rails of Jetson modules that feed the others."""
PARTS = (
    frozenset({"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"}),
    frozenset({"GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"}),
)
"""Rails that are the whole board together: of the Jetson AGX Orin, and of the AGX Xavier."""
NOT_RAILS = ("NC", "sum of shunt voltages")
POWER_MAX_W = 500.0


@dataclass(frozen=True)
class Channel:
    """One supply that a chip measures: by a power file, or by voltage and current files."""

    label: str
    power: Path | None
    volt: Path | None
    current: Path | None


class Hwmon:
    """The board's draw, by the one chip in its supply; temperatures of the CPU."""

    def __init__(self, files: SensorFiles, board_chip: str = "") -> None:
        self._files = files
        self._board_chip = board_chip
        self._channels: list[Channel] = []
        self._heat: list[Path] = []

    def find(self) -> bool:
        chips: list[tuple[str, Path]] = []
        self._heat = []
        for folder in self._files.find("class/hwmon/hwmon*"):
            name = self._files.read_text(folder / "name", is_optional=True)
            if name is None:
                continue
            if name in HEAT_CHIPS:
                self._heat += sorted(folder.glob("temp*_input"))
            elif self._is_wanted(name, folder):
                chips.append((name, folder))
        self._channels = self._choose(chips)
        return bool(self._channels or self._heat)

    def read(self) -> Look:
        found = [read_temperature_c(self._files, path) for path in self._heat]
        measured = [temperature for temperature in found if temperature is not None]
        rails = [(channel.label, self._read_power_w(channel)) for channel in self._channels]
        power_w = add_rails(rails, is_chosen=bool(self._board_chip))
        if not measured and power_w is None:
            return NOTHING
        return Look(temperature_c=max(measured, default=None), power_w=power_w)

    def _is_wanted(self, name: str, folder: Path) -> bool:
        if self._board_chip:
            return self._board_chip in (name, (folder / "device").resolve().name)
        return name in POWER_CHIPS or name in POWER_CHIPS_MORE

    def _choose(self, chips: list[tuple[str, Path]]) -> list[Channel]:
        """Return the channels of the chips, if these say what they measure or there is only one."""
        channels = [channel for _, folder in chips for channel in _list_channels(self._files, folder)]
        if len(chips) > 1 and not any(channel.label in WHOLE for channel in channels) and not self._board_chip:
            names = ", ".join(f"{name} ({(folder / 'device').resolve().name})" for name, folder in chips)
            self._files.tell(chips[0][1], f"several power meters, name the board's in power.board_chip: {names}")
            return []
        return channels

    def _read_power_w(self, channel: Channel) -> float | None:
        files = self._files
        if channel.power is not None:
            power_uw = files.read_unsigned(channel.power)
            return None if power_uw is None else check_power_w(files, channel.power, power_uw / 1e6)
        if channel.volt is None or channel.current is None:
            return None
        volt_mv, current_ma = files.read_unsigned(channel.volt), files.read_unsigned(channel.current)
        if volt_mv is None or current_ma is None:
            return None
        return check_power_w(files, channel.current, volt_mv * current_ma / 1e6)


def check_power_w(files: SensorFiles, path: Path, power_w: float) -> float | None:
    """Return the power, None if no board draws as much."""
    if power_w > POWER_MAX_W:
        files.tell(path, f"is not a board's power: {power_w:.0f} W")
        return None
    return power_w


def add_rails(rails: list[tuple[str, float | None]], is_chosen: bool = False) -> float | None:
    """Return the whole board's power from named rails, None if that is unmeasured.

    It is the rail that feeds the others; the only rail; those that are known to be the whole together; or all of them,
    if an operator has chosen their chip. Rails that may feed one another are not added. A board
    that reads this draws more than 0 W: a meter that says so does not measure.
    """
    labels = frozenset(label for label, _ in rails)
    counted = [power_w for label, power_w in rails if label in WHOLE]
    if not counted and (len(rails) == 1 or is_chosen or labels in PARTS):
        counted = [power_w for _, power_w in rails]
    known = [power_w for power_w in counted if power_w is not None]
    return (sum(known) or None) if len(known) == len(counted) else None


def _list_channels(files: SensorFiles, folder: Path) -> list[Channel]:
    """Find power files where the driver has them (INA219), otherwise pairs of in<n> and curr<n> (INA3221)."""
    powers = sorted(folder.glob("power*_input")) or sorted(folder.glob("power*_average"))
    if powers:
        labels = [files.read_text(folder / f"{_stem(path)}_label", is_optional=True) or "" for path in powers]
        return [Channel(label, path, None, None) for label, path in zip(labels, powers, strict=True)]
    channels = []
    for current in sorted(folder.glob("curr*_input")):
        number = _stem(current).removeprefix("curr")
        volt, label = folder / f"in{number}_input", files.read_text(folder / f"in{number}_label", is_optional=True)
        if volt.exists() and label not in NOT_RAILS:
            channels.append(Channel(label or "", None, volt, current))
    return channels


def _stem(path: Path) -> str:
    found = re.match(r"[a-z]+\d+", path.name)
    return found.group() if found else path.name
