"""Thermal zones, and the kernel's throttling (Documentation/driver-api/thermal/sysfs-api)."""

from __future__ import annotations

from pathlib import Path

from agent.edge.power.files import SensorFiles
from agent.edge.power.source import NOTHING, Look

NO_ZONES = frozenset({"PMIC-Die", "thermal-fan-est"})
"""The Jetson Nano's PMIC always reads 100 degrees; the estimate for its fan is a mean of the others."""
RANGE_C = (-60.0, 150.0)
"""Temperatures that running silicon can have; any other is a broken sensor."""
COOLING = ("cpufreq", "thermal-cpufreq", "thermal-devfreq")
"""Cooling devices that lower clocks. Fans cool without slowing anything."""


class ThermalZones:
    """The hottest zone, and whether the kernel has lowered a clock for heat."""

    def __init__(self, files: SensorFiles, board_chip: str = "") -> None:
        self._files = files
        self._zones: list[Path] = []
        self._states: list[Path] = []

    def find(self) -> bool:
        files = self._files
        zones = files.find("class/thermal/thermal_zone*")
        self._zones = [zone / "temp" for zone in zones if _is_real(files.read_text(zone / "type", is_optional=True))]
        devices = files.find("class/thermal/cooling_device*")
        types = ((device, files.read_text(device / "type", is_optional=True) or "") for device in devices)
        self._states = [device / "cur_state" for device, kind in types if kind.startswith(COOLING)]
        return bool(self._zones or self._states)

    def read(self) -> Look:
        found = [read_temperature_c(self._files, zone) for zone in self._zones]
        measured = [temperature for temperature in found if temperature is not None]
        states = [self._files.read_unsigned(state, is_optional=True) for state in self._states]
        known = [state for state in states if state is not None]
        if not measured and not known:
            return NOTHING
        return Look(temperature_c=max(measured, default=None), is_throttled=any(known) if known else None)


def read_temperature_c(files: SensorFiles, path: Path) -> float | None:
    """Return degrees Celsius from a file in thousandths, as thermal zones and hwmon have them."""
    value = files.read_int(path)
    if value is None:
        return None
    temperature = value / 1_000
    if not RANGE_C[0] <= temperature <= RANGE_C[1]:
        files.tell(path, f"is not a temperature: {temperature}")
        return None
    return temperature


def _is_real(kind: str | None) -> bool:
    return kind is not None and kind not in NO_ZONES
