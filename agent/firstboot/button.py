"""A button on a GPIO line, read by the kernel's own interface (linux/gpio.h, version 2, since Linux 5.10).

Not by libgpiod's `gpioget`: its arguments and its output changed between Debian 12 (1.6) and 13 (2.2).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from agent.provisioning.settings import ButtonSettings

POLL_S = 0.1
GET_LINE, GET_VALUES = 0xC250B407, 0xC010B40E
"""GPIO_V2_GET_LINE_IOCTL, GPIO_V2_LINE_GET_VALUES_IOCTL."""
ACTIVE_LOW, INPUT, PULL_UP, PULL_DOWN = 1 << 1, 1 << 2, 1 << 8, 1 << 9
REQUEST = struct.Struct("=64I 32s Q I 20x 240x I I 20x i")
"""struct gpio_v2_line_request: offsets; consumer; flags, attributes; lines, buffer, padding; the descriptor."""
VALUES = struct.Struct("=QQ")
"""struct gpio_v2_line_values: bits, and which of them are asked for."""


class Line(Protocol):
    """A line that can be read."""

    def is_active(self) -> bool:
        """Return whether the button is pressed. Raise OSError."""


class GpioLine:
    """A requested line of the running kernel."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def is_active(self) -> bool:
        bits, _ = VALUES.unpack(fcntl.ioctl(self._descriptor, GET_VALUES, VALUES.pack(0, 1)))
        return bool(bits & 1)


class PressedFor:
    """A fake line, pressed for so many readings."""

    def __init__(self, readings: int) -> None:
        self._left = readings

    def is_active(self) -> bool:
        self._left -= 1
        return self._left >= 0


@contextlib.contextmanager
def open_line(button: ButtonSettings, devices: Path = Path("/dev")) -> Iterator[Line]:
    """Request the line as an input, pulled to where the button does not pull it. Raise OSError."""
    flags = INPUT | (ACTIVE_LOW | PULL_UP if button.active_low else PULL_DOWN)
    request = REQUEST.pack(button.line, *[0] * 63, b"flchain-provision", flags, 0, 1, 0, 0)
    chip = os.open(devices / button.chip, os.O_RDWR | os.O_CLOEXEC)
    try:
        *_, descriptor = REQUEST.unpack(fcntl.ioctl(chip, GET_LINE, request))
    finally:
        os.close(chip)
    try:
        yield GpioLine(descriptor)
    finally:
        os.close(descriptor)


def is_held(line: Line, hold_s: float, sleep: Callable[[float], None] = time.sleep) -> bool:
    """Return whether the button stays pressed for `hold_s`; at once if it is not pressed now. Raise OSError."""
    for _ in range(round(hold_s / POLL_S)):
        if not line.is_active():
            return False
        sleep(POLL_S)
    return line.is_active()
