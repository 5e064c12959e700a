"""No compression: the vector's canonical bytes. The yardstick for the other codecs."""

from __future__ import annotations

import numpy as np

from flchain.base import fixedpoint
from flchain.base.types import ModelVector
from flchain.codecs.codec import NO_SEED, Codec, Encoded


def encode(
    delta: ModelVector,
    residual: ModelVector,
    level: int,
    seed: bytes = NO_SEED,
    bytes_wanted: int | None = None,
) -> Encoded:
    """Return all of delta + residual, so nothing stays behind. `level` is ignored."""
    corrected = fixedpoint.add(delta, residual)
    return Encoded(fixedpoint.encode_vector(corrected), np.zeros_like(corrected))


def decode(payload: bytes, parameters_count: int, level: int, seed: bytes = NO_SEED) -> ModelVector:
    """Return the (P,) vector that was sent. Raises MalformedUpdate."""
    return fixedpoint.decode_vector(payload, parameters_count)


def payload_bytes_max(parameters_count: int, level: int) -> int:
    """Return the length of a payload, which is always the same."""
    return fixedpoint.VALUE_BYTES * parameters_count


IDENTITY = Codec(encode, decode, payload_bytes_max, "not used", 1)
