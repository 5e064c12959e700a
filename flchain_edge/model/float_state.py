"""How this processor counts with numbers close to zero, kept as it is while a library is loaded.

A library built with -ffast-math switches subnormal numbers off (flush-to-zero) as it is loaded, for the calling thread
and all that it starts: tflite-runtime 2.14's wheel does on ARM. Nothing that is hashed depends on it, as a test shows.
But no number may mean one thing before a model is loaded and another after it, and numpy warns where it does.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

FENV_BYTES = 256
"""More than fenv_t of fenv.h takes anywhere: 32 on x86-64, 8 on AArch64, 4 on ARMv7."""


@contextlib.contextmanager
def keep_float_state() -> Iterator[None]:
    """Afterwards, rounding and flush-to-zero of this thread are as before; nothing where fenv.h cannot be called."""
    library = _find_library()
    state = ctypes.create_string_buffer(FENV_BYTES)
    is_kept = library is not None and library.fegetenv(state) == 0
    try:
        yield
    finally:
        if library is not None and is_kept:
            library.fesetenv(state)


def _find_library() -> ctypes.CDLL | None:
    for name in (None, "libm.so.6"):  # Python has the C library's mathematics open, as a rule
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(name)
            if hasattr(library, "fegetenv") and hasattr(library, "fesetenv"):
                return library
    return None
