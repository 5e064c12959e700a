"""The largest 1/level of the changes, each with a value of its own (Aji and Heafield 2017, arXiv 1704.05021).

`bits.selection` finds the largest, and settles ties. Values travel as a sign and an 8-bit `minifloat`: 5 bits of
exponent, 3 of fraction, off by at most a 16th. What was not sent, and the rounding error, stay on the device (error
feedback: Stich et al. 2018, arXiv 1809.07599).

Payload, with n kept of P parameters:

    4 bytes  n, little-endian, 0 to k = max(1, P // level)
    n bytes  minifloat codes, 1 to 231, in order of position
    bits     positions and signs, as in `sparse_signs`
"""

from __future__ import annotations

import struct

import numpy as np

from flchain.base import fixedpoint
from flchain.base.errors import MalformedUpdate
from flchain.base.types import ModelVector
from flchain.codecs.bits import golomb, minifloat, sparse_signs
from flchain.codecs.bits.selection import compute_kept_max, select_largest
from flchain.codecs.codec import NO_SEED, Codec, Encoded

_HEADER = struct.Struct("<I")
HEADER_BYTES = _HEADER.size
FRACTION_BITS = 3


def encode(
    delta: ModelVector,
    residual: ModelVector,
    level: int,
    seed: bytes = NO_SEED,
    bytes_wanted: int | None = None,
) -> Encoded:
    """Compress delta + residual (saturated) to its k = max(1, P // level) largest values."""
    kept_max = compute_kept_max(delta.size, level)
    corrected = fixedpoint.add(delta, residual)
    magnitudes = np.abs(corrected)
    positions = select_largest(magnitudes, kept_max)
    if positions.size == 0:
        return Encoded(_HEADER.pack(0), corrected)
    codes = minifloat.encode(magnitudes[positions], FRACTION_BITS)
    is_positive = corrected[positions] > 0
    sent = minifloat.decode(codes, FRACTION_BITS)
    # Both have one sign, so the difference fits.
    corrected[positions] -= np.where(is_positive, sent, -sent).astype(np.int32)
    head = _HEADER.pack(positions.size) + codes.astype(np.uint8).tobytes()
    return Encoded(head + sparse_signs.build_body(positions, is_positive, delta.size), corrected)


def decode(payload: bytes, parameters_count: int, level: int, seed: bytes = NO_SEED) -> ModelVector:
    """Return the (P,) sparse vector. Raises MalformedUpdate for anything that `encode` could not have written."""
    bytes_max = payload_bytes_max(parameters_count, level)
    if not HEADER_BYTES <= len(payload) <= bytes_max:
        raise MalformedUpdate(f"{len(payload)} bytes, not {HEADER_BYTES} to {bytes_max}")
    (count,) = _HEADER.unpack_from(payload)
    if count > min(compute_kept_max(parameters_count, level), len(payload) - HEADER_BYTES):
        raise MalformedUpdate(f"{count} of {parameters_count} parameters at level {level} in {len(payload)} bytes")
    codes = np.frombuffer(payload, dtype=np.uint8, count=count, offset=HEADER_BYTES)
    if count and (int(codes.min()) == 0 or int(codes.max()) > minifloat.compute_code_max(FRACTION_BITS)):
        raise MalformedUpdate("a code of no magnitude")
    body = memoryview(payload)[HEADER_BYTES + count :]
    positions, is_positive = sparse_signs.read_body(body, count, parameters_count)
    values = minifloat.decode(codes.astype(np.int64), FRACTION_BITS)
    vector = np.zeros(parameters_count, dtype=np.int32)
    vector[positions] = np.where(is_positive, values, -values)
    return vector


def payload_bytes_max(parameters_count: int, level: int) -> int:
    """Return the exact longest payload: positions at their worst, a sign and a byte for each."""
    kept_max = compute_kept_max(parameters_count, level)
    return HEADER_BYTES + (golomb.compute_bits_max(kept_max, parameters_count, extra_bits=9) + 7) // 8


TOP_K = Codec(encode, decode, payload_bytes_max, "one parameter in this many is sent", 50)
