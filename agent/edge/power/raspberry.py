"""The Raspberry Pi firmware's flags of throttling and under-voltage.

Raspberry Pi's own kernel has them in a sysfs file; any kernel as an alarm of the chip `rpi_volt`, which has only the
voltage; without either, `vcgencmd` prints them. Bits 0 to 3 are of now, bits 16 to 19 of all time since the boot.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from agent.edge.power.files import SensorFiles
from agent.edge.power.source import NOTHING, Look

UNDERVOLTED, CAPPED, THROTTLED, SOFT_LIMIT = 1, 2, 4, 8
PATTERNS = ("devices/platform/soc*/*firmware*/get_throttled", "devices/platform/*firmware*/get_throttled")
COMMAND = "vcgencmd"
COMMAND_TIMEOUT_S = 1.5


class RaspberryFlags:
    """Throttled and under-voltage, now."""

    def __init__(self, files: SensorFiles, board_chip: str = "", command: str = COMMAND) -> None:
        self._files = files
        self._flags: Path | None = None
        self._alarm: Path | None = None
        self._command: str | None = None
        self._wanted = command

    def find(self) -> bool:
        files = self._files
        self._flags = next((path for pattern in PATTERNS for path in files.find(pattern)), None)
        chips = files.find("class/hwmon/hwmon*")
        alarms = (
            chip / "in0_lcrit_alarm" for chip in chips if files.read_text(chip / "name", is_optional=True) == "rpi_volt"
        )
        self._alarm = None if self._flags else next(alarms, None)
        is_pi = self._flags is None and self._alarm is None and is_raspberry(files)
        self._command = shutil.which(self._wanted) if is_pi else None
        return bool(self._flags or self._alarm or self._command)

    def read(self) -> Look:
        if self._alarm is not None:
            alarm = self._files.read_int(self._alarm)
            return NOTHING if alarm not in (0, 1) else Look(is_undervolted=alarm == 1)
        flags = self._read_flags()
        if flags is None:
            return NOTHING
        is_throttled = bool(flags & (CAPPED | THROTTLED | SOFT_LIMIT))
        return Look(is_throttled=is_throttled, is_undervolted=bool(flags & UNDERVOLTED))

    def _read_flags(self) -> int | None:
        if self._flags is not None:
            return self._files.read_int(self._flags, base=16)
        return None if self._command is None else self._ask(self._command)

    def _ask(self, command: str) -> int | None:
        """`throttled=0x50000`"""
        path = Path(command)
        try:
            answer = subprocess.run(
                (command, "get_throttled"), capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=True
            )
            return int(answer.stdout.strip().removeprefix("throttled="), 16)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            self._files.tell(path, f"gave no flags: {type(error).__name__}")
            return None


def is_raspberry(files: SensorFiles) -> bool:
    model = files.read_text(files.sysfs / "firmware/devicetree/base/model", is_optional=True)
    return model is not None and model.startswith("Raspberry Pi")
