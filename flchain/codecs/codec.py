"""What a codec is: three pure functions that agree on a payload."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flchain.types import ModelVector


@dataclass(frozen=True, eq=False)
class Encoded:
    """A payload for the wire, and the error that stays on the device for its next round."""

    payload: bytes
    residual: ModelVector
    """(P,) int32: (delta + old residual) - decode(payload). Never leaves the device."""


@dataclass(frozen=True)
class Codec:
    """One way of compressing an update. `level` is ChainParams' integer; its meaning is the codec's own.

    encode(delta, residual, level) -> Encoded
        delta and residual are (P,) fixed-point vectors. Raises ValueError on shapes that differ, P = 0 or level < 1.
    decode(payload, parameters_count, level) -> ModelVector
        Raises MalformedUpdate and nothing else, on any bytes. Checks sizes before it allocates.
    payload_bytes_max(parameters_count, level) -> int
        The longest payload that decode accepts.
    """

    encode: Callable[[ModelVector, ModelVector, int], Encoded]
    decode: Callable[[bytes, int, int], ModelVector]
    payload_bytes_max: Callable[[int, int], int]
