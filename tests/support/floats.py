"""Floating-point numbers for hypothesis, the same ones whether or not this processor counts with subnormal numbers.

`hypothesis.strategies.floats` asks the processor, and refuses to work where a library has switched them off.
"""

from __future__ import annotations

import struct

from hypothesis import strategies as st

TINY = {64: struct.unpack("<3d", struct.pack("<3Q", 1, 1 << 51, (1 << 52) - 1)), 32: (2.0**-149, 2.0**-127, 2.0**-130)}
"""Subnormal numbers by width, made of bits: no arithmetic, which could make them zero."""
ROOM = 1e-30
"""A bound beyond this lets all of them in; a comparison with one of them would depend on the processor."""


def floats(
    min_value: float | None = None, max_value: float | None = None, *, width: int = 64, exclude_max: bool = False
) -> st.SearchStrategy[float]:
    """As hypothesis' own; subnormal numbers are a few that stand for all."""
    assert width in (32, 64)
    normal = st.floats(
        min_value, max_value, width=32 if width == 32 else 64, exclude_max=exclude_max, allow_subnormal=False
    )
    tiny: list[float] = []
    if (min_value is None or min_value <= 0) and (max_value is None or max_value > ROOM):
        tiny += TINY[width]
    if (min_value is None or min_value < -ROOM) and (max_value is None or max_value >= 0):
        tiny += [-value for value in TINY[width]]
    return st.one_of(normal, st.sampled_from(tiny)) if tiny else normal
