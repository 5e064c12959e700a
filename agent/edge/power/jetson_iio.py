"""Rails of Jetson boards with JetPack 4: NVIDIA's own INA3221 driver, which gives milliwatts under an IIO device."""

from __future__ import annotations

from pathlib import Path

from agent.edge.power.files import SensorFiles
from agent.edge.power.hwmon import NOT_RAILS, add_rails, check_power_w
from agent.edge.power.source import NOTHING, Look


class JetsonRails:
    """The module's draw, by its rail POM_5V_IN or VDD_IN, or by rails that together are all of it."""

    def __init__(self, files: SensorFiles, board_chip: str = "") -> None:
        self._files = files
        self._rails: list[tuple[str, Path]] = []

    def find(self) -> bool:
        self._rails = []
        for name in self._files.find("bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_*"):
            label, number = self._files.read_text(name, is_optional=True), name.name.removeprefix("rail_name_")
            if label is not None and label not in NOT_RAILS:
                self._rails.append((label, name.with_name(f"in_power{number}_input")))
        return bool(self._rails)

    def read(self) -> Look:
        rails = []
        for label, path in self._rails:
            power_mw = self._files.read_unsigned(path)
            rails.append((label, None if power_mw is None else check_power_w(self._files, path, power_mw / 1_000)))
        power_w = add_rails(rails)
        return NOTHING if power_w is None else Look(power_w=power_w)
