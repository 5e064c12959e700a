"""Numbers that are the same on every node: float32 vectors as int32 at one fixed scale.

Floats never enter a hash. A model, and a difference of two models, is a vector of int32 in steps of 1 / SCALE. Values
lie in -LIMIT..LIMIT: the range is symmetric, so that a magnitude always fits and negation never overflows. Larger
values saturate; nothing ever wraps around.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flchain.base.errors import MalformedUpdate
from flchain.base.types import ModelVector

SCALE_BITS = 20
SCALE = 1 << SCALE_BITS
"""Steps per unit: a step is about 1e-6, the range is just under -2048..2048."""
LIMIT = 2**31 - 1
"""Largest magnitude of a fixed-point value; -2**31 is not a value."""
VALUE_BYTES = 4

FloatVector = npt.NDArray[np.float32]
WideVector = npt.NDArray[np.int64]

_WIRE_DTYPE = np.dtype("<i4")


def to_fixed(values: FloatVector) -> ModelVector:
    """Return the nearest fixed-point values of (P,) float32, halves to even, saturated to -LIMIT..LIMIT.

    Raises ValueError on NaN or infinity: these come from our own trainer, never from a peer.

    >>> to_fixed(np.array([1.0, -0.5, 1e9], dtype=np.float32)).tolist()
    [1048576, -524288, 2147483647]
    """
    # float64 holds any float32 times 2**20 exactly, so the one rounding is the one stated above.
    scaled = np.asarray(values, dtype=np.float64) * float(SCALE)
    if not np.isfinite(scaled).all():
        raise ValueError("a model with NaN or infinity has no fixed-point form")
    np.rint(scaled, out=scaled)
    np.clip(scaled, -float(LIMIT), float(LIMIT), out=scaled)
    return scaled.astype(np.int32)


def to_float(values: ModelVector) -> FloatVector:
    """Return the nearest float32 of (P,) fixed-point values, halves to even.

    `to_fixed` gives the same integers back while their magnitude is at most 2**24 (16.0); above, float32 is coarser
    than a step.
    """
    return (values.astype(np.float64) / float(SCALE)).astype(np.float32)


def saturate(values: WideVector) -> ModelVector:
    """Return (P,) int64 limited to -LIMIT..LIMIT, as int32."""
    return np.clip(values, -LIMIT, LIMIT).astype(np.int32)


def add(base: ModelVector, delta: ModelVector) -> ModelVector:
    """Return base + delta, saturated. Shapes (P,) and (P,); raises ValueError if they differ.

    >>> add(np.array([1, LIMIT], dtype=np.int32), np.array([2, 5], dtype=np.int32)).tolist()
    [3, 2147483647]
    """
    if base.shape != delta.shape:
        raise ValueError(f"cannot add {delta.shape} to {base.shape}")
    total = np.add(base, delta, dtype=np.int64)
    np.clip(total, -LIMIT, LIMIT, out=total)
    return total.astype(np.int32)


def divide_rounded(numerator: WideVector, denominator: int) -> WideVector:
    """Return numerator / denominator rounded to the nearest, halves away from zero. Exact for any int64.

    This treats both signs alike: negating every update negates the aggregate. Raises ValueError unless
    1 <= denominator < 2**63.

    >>> divide_rounded(np.array([5, -5, 4]), 2).tolist()
    [3, -3, 2]
    """
    if not 1 <= denominator < 2**63:
        raise ValueError(f"denominator {denominator} is not in 1..2**63-1")
    divisor = np.int64(denominator)
    quotient: WideVector = np.floor_divide(numerator, divisor)
    remainder = numerator - quotient * divisor
    # Doubling the remainder could overflow, so compare it with what is missing to the next multiple.
    missing = divisor - remainder
    quotient += (remainder > missing) | ((remainder == missing) & (numerator > 0))
    return quotient


def encode_vector(values: ModelVector) -> bytes:
    """Return the canonical bytes of (P,) int32: 4 P bytes, little-endian, in order. This is what gets hashed.

    >>> encode_vector(np.array([1, -1], dtype=np.int32)).hex()
    '01000000ffffffff'
    """
    return values.astype(_WIRE_DTYPE).tobytes()


def decode_vector(data: bytes, parameters_count: int) -> ModelVector:
    """Return a copy of the vector that `encode_vector` wrote.

    Raises MalformedUpdate for another length or for -2**31.
    """
    if len(data) != VALUE_BYTES * parameters_count:
        raise MalformedUpdate(f"{len(data)} bytes for {parameters_count} parameters of {VALUE_BYTES} bytes")
    values = np.frombuffer(data, dtype=_WIRE_DTYPE).astype(np.int32)
    if values.size and int(values.min()) < -LIMIT:
        raise MalformedUpdate("-2**31 is outside the symmetric fixed-point range")
    return values
