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

POLL_S = 0.1
GET_CHIP, GET_LINE_INFO, GET_LINE, GET_VALUES = 0x8044B401, 0xC100B405, 0xC250B407, 0xC010B40E
"""GPIO_GET_CHIPINFO_IOCTL, and GPIO_V2_GET_LINEINFO, _GET_LINE and _LINE_GET_VALUES."""
ACTIVE_LOW, INPUT, PULL_UP, PULL_DOWN = 1 << 1, 1 << 2, 1 << 8, 1 << 9
CHIP = struct.Struct("=32s 32s I")
"""struct gpiochip_info: name, label, lines."""
LINE_INFO = struct.Struct("=32s 32s I I Q 160x 16x")
"""struct gpio_v2_line_info: name, consumer, offset, attributes, flags."""
REQUEST = struct.Struct("=64I 32s Q I 20x 240x I I 20x i")
"""struct gpio_v2_line_request: offsets; consumer; flags, attributes; lines, buffer, padding; the descriptor."""
VALUES = struct.Struct("=QQ")
"""struct gpio_v2_line_values: bits, and which of them are asked for."""
LINES_MAX = 1024


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
def open_line(name: str, is_active_low: bool, devices: Path = Path("/dev")) -> Iterator[Line]:
    """Request a line as an input, pulled to where the button does not pull it. Raise OSError, LookupError.

    `name`: as the kernel calls it, which does not depend on the chips' numbers, or as CHIP:NUMBER.
    """
    chip, offset = _find_line(name, devices)
    flags = INPUT | (ACTIVE_LOW | PULL_UP if is_active_low else PULL_DOWN)
    request = REQUEST.pack(offset, *[0] * 63, b"flchain-provision", flags, 0, 1, 0, 0)
    with _opened(chip) as descriptor:
        *_, line = REQUEST.unpack(fcntl.ioctl(descriptor, GET_LINE, request))
    try:
        yield GpioLine(line)
    finally:
        os.close(line)


def _find_line(name: str, devices: Path) -> tuple[Path, int]:
    chip, colon, number = name.partition(":")
    if colon:
        return devices / chip, int(number)
    for path in sorted(devices.glob("gpiochip*")):
        with _opened(path) as descriptor:
            _, _, count = CHIP.unpack(fcntl.ioctl(descriptor, GET_CHIP, bytes(CHIP.size)))
            for offset in range(min(count, LINES_MAX)):
                asked = LINE_INFO.pack(b"", b"", offset, 0, 0)
                found, *_ = LINE_INFO.unpack(fcntl.ioctl(descriptor, GET_LINE_INFO, asked))
                if found.rstrip(b"\0") == name.encode():
                    return path, offset
    raise LookupError(f"no GPIO line is called {name} here; see: gpioinfo")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_held(line: Line, hold_s: float, sleep: Callable[[float], None] = time.sleep) -> bool:
    """Return whether the button stays pressed for `hold_s`; at once if it is not pressed now. Raise OSError."""
    for _ in range(round(hold_s / POLL_S)):
        if not line.is_active():
            return False
        sleep(POLL_S)
    return line.is_active()
