"""Switch subnormal numbers off, as a library built with -ffast-math does; as a pytest plugin (`-p`) for a whole run."""

from __future__ import annotations

import ctypes
import platform
import struct

# Where fenv_t holds the register with the switch, and its bits: MXCSR (results and arguments become zero), FPCR.
_SWITCHES = {"x86_64": (28, 0x8040), "aarch64": (0, 1 << 24)}
IS_KNOWN_HERE = platform.machine() in _SWITCHES
SMALLEST = struct.unpack("<d", (1).to_bytes(8, "little"))[0]


def switch_subnormals_off() -> None:
    """In this thread, and in those that it starts from now on."""
    offset, bits = _SWITCHES[platform.machine()]
    library, state = ctypes.CDLL("libm.so.6"), ctypes.create_string_buffer(256)
    assert library.fegetenv(state) == 0
    (register,) = struct.unpack_from("<I", state, offset)
    struct.pack_into("<I", state, offset, register | bits)
    assert library.fesetenv(state) == 0


def are_subnormals_on() -> bool:
    """By one multiplication, done when this is called."""
    return bool(SMALLEST * float("1") != 0.0)


def pytest_configure() -> None:
    """pytest's hook: before anything is collected."""
    switch_subnormals_off()


def pytest_sessionfinish() -> None:
    """pytest's hook: a run in which something switched them on again has shown nothing."""
    assert not are_subnormals_on(), "subnormal numbers were switched on during the run"
