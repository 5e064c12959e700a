"""Every change rounded to multiples of a step, and the multiples entropy coded (a dead-zone quantiser).

`level` is the step, in units of 2**-20. The rounding error stays on the device (error feedback). Most changes round to
zero, so the code is a sparse one: Golomb-Rice coded gaps and magnitudes (`sparse_integers`). No range coder: the one
well-kept library (`constriction`) has no aarch64 wheel, and a model of probabilities in floats need not decode alike
on two machines.

Payload:

    4 bytes  n, little-endian: multiples that are not zero
    1 byte   m, the Rice parameter of their magnitudes, 0 if n is 0
    bits     as in `sparse_integers`, if n is not 0
"""

from __future__ import annotations

import struct

import numpy as np

from flchain.base import fixedpoint
from flchain.base.errors import MalformedUpdate
from flchain.base.types import ModelVector
from flchain.codecs.bits.selection import check_level
from flchain.codecs.bits.sparse_integers import SparseIntegers, build_body, compute_bits_max, read_body
from flchain.codecs.codec import NO_SEED, Codec, Encoded

LEVEL_MAX = 1 << 30
"""A step of 1024, half of the range: a value can still round to it without leaving the range."""
_HEADER = struct.Struct("<IB")


def encode(
    delta: ModelVector,
    residual: ModelVector,
    level: int,
    seed: bytes = NO_SEED,
    bytes_wanted: int | None = None,
) -> Encoded:
    """Return the multiples of the step nearest to delta + residual (saturated), halves away from zero."""
    check_level(delta.size, level, 1, LEVEL_MAX)
    corrected = fixedpoint.add(delta, residual)
    magnitudes = np.abs(corrected)
    positions = np.flatnonzero(magnitudes >= level - level // 2)
    if positions.size == 0:
        return Encoded(_HEADER.pack(0, 0), corrected)
    kept = magnitudes[positions].astype(np.int64)
    # The largest multiple may lie beyond the range: the one below it is then the nearest that can be sent.
    multiples = np.minimum((kept + level // 2) // level, fixedpoint.LIMIT // level)
    values = SparseIntegers(positions, corrected[positions] > 0, multiples)
    rice, body = build_body(values, delta.size)
    # At most one step away, so the difference fits.
    corrected[positions] -= (values.get_values() * level).astype(np.int32)
    return Encoded(_HEADER.pack(positions.size, rice) + body, corrected)


def decode(payload: bytes, parameters_count: int, level: int, seed: bytes = NO_SEED) -> ModelVector:
    """Return the (P,) multiples times the step. Raises MalformedUpdate for what `encode` could not have written."""
    bytes_max = payload_bytes_max(parameters_count, level)
    if not _HEADER.size <= len(payload) <= bytes_max:
        raise MalformedUpdate(f"{len(payload)} bytes, not {_HEADER.size} to {bytes_max}")
    count, rice = _HEADER.unpack_from(payload)
    body = memoryview(payload)[_HEADER.size :]
    if count > parameters_count or (count == 0 and (rice or body)):
        raise MalformedUpdate(f"{count} multiples of {parameters_count} parameters")
    vector = np.zeros(parameters_count, dtype=np.int32)
    if count:
        values = read_body(body, count, rice, parameters_count, fixedpoint.LIMIT // level)
        vector[values.positions] = values.get_values() * level
    return vector


def payload_bytes_max(parameters_count: int, level: int) -> int:
    """Return the length that no payload exceeds: every parameter sent, magnitudes at their worst."""
    check_level(parameters_count, level, 1, LEVEL_MAX)
    bits = compute_bits_max(parameters_count, parameters_count, fixedpoint.LIMIT // level)
    return _HEADER.size + (bits + 7) // 8


DELTA_ENTROPY = Codec(encode, decode, payload_bytes_max, "the step, in units of 2**-20", 1 << 16)
