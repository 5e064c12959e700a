"""The width of this machine's addresses, which decides whether anything that we test runs on it."""

from __future__ import annotations

import platform
import struct

from flchain.base.errors import ConfigError

ADDRESS_BITS = 8 * struct.calcsize("P")
"""Of this Python: a 64-bit kernel may carry a 32-bit system, as Raspberry Pi OS (32-bit) is on most boards."""


def check_address_bits(bits: int) -> None:
    """Raise ConfigError on a 32-bit system (docs/decisions/0016-pythons-and-runtimes.md)."""
    if bits < 64:
        seen = f"this system's programs have {bits} bits (its kernel is {platform.machine()})"
        advice = "write the 64-bit image of the same system to the card, which Raspberry Pi Zero 2, 3, 4 and 5 run"
        raise ConfigError((f"{seen}, and FLchain needs 64: {advice}",))
