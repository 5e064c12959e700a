"""Sparse ternary compression (Sattler et al. 2019, arXiv 1903.02891, Alg. 1): the largest 1/level of the changes.

The kept ones all take the same magnitude mu, so an update is positions, signs and one number. What was not sent stays
on the device and is added to the next update (error feedback).

Payload, with n kept of P parameters and b the Rice parameter that `golomb` gives for (n, P):

    4 bytes  n, little-endian, 0 to k = max(1, P // level)
    4 bytes  mu, little-endian, 1 to 2**31 - 1; 0 if and only if n is 0
    1 byte   b
    bits     positions and signs, as in `sparse_signs`

A ternary tensor has exactly one payload: any other is refused, so equal updates have equal hashes.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from flchain.base import fixedpoint
from flchain.base.errors import MalformedUpdate
from flchain.base.types import ModelVector
from flchain.codecs.bits import golomb, sparse_signs
from flchain.codecs.bits.selection import compute_kept_max, select_largest
from flchain.codecs.codec import NO_SEED, Codec, Encoded

_HEADER = struct.Struct("<IIB")
HEADER_BYTES = _HEADER.size


def encode(
    delta: ModelVector,
    residual: ModelVector,
    level: int,
    seed: bytes = NO_SEED,
    bytes_wanted: int | None = None,
) -> Encoded:
    """Compress delta + residual (saturated) to k = max(1, P // level) changes of one magnitude.

    mu is the mean of the kept magnitudes, rounded as `divide_rounded` does. The new residual never saturates: a kept
    value and its mu have the same sign.
    """
    kept_max = compute_kept_max(delta.size, level)
    corrected = fixedpoint.add(delta, residual)
    magnitudes = np.abs(corrected)
    positions = select_largest(magnitudes, kept_max)
    if positions.size == 0:
        return Encoded(_HEADER.pack(0, 0, 0), corrected)
    total = magnitudes[positions].sum(keepdims=True, dtype=np.int64)
    mu = int(fixedpoint.divide_rounded(total, positions.size)[0])
    is_positive = corrected[positions] > 0
    payload = build_payload(positions, is_positive, mu, delta.size)
    # `corrected` is ours alone: turn it into the residual in place. The difference lies between the two, so it fits.
    corrected[positions] -= np.where(is_positive, mu, -mu).astype(np.int32)
    return Encoded(payload, corrected)


def build_payload(
    positions: golomb.Positions, is_positive: npt.NDArray[np.bool_], mu: int, parameters_count: int
) -> bytes:
    """Return the one payload of a ternary tensor: +mu or -mu at `positions` (ascending, at least one), 0 elsewhere."""
    rice = golomb.compute_rice_parameter(positions.size, parameters_count)
    head = _HEADER.pack(positions.size, mu, rice)
    return head + sparse_signs.build_body(positions, is_positive, parameters_count)


def decode(payload: bytes, parameters_count: int, level: int, seed: bytes = NO_SEED) -> ModelVector:
    """Return the (P,) ternary tensor. Raises MalformedUpdate for anything that `encode` could not have written."""
    count, mu = _read_header(payload, parameters_count, level)
    body = memoryview(payload)[HEADER_BYTES:]
    positions, is_positive = sparse_signs.read_body(body, count, parameters_count)
    tensor = np.zeros(parameters_count, dtype=np.int32)
    tensor[positions] = np.where(is_positive, mu, -mu)
    return tensor


def _read_header(payload: bytes, parameters_count: int, level: int) -> tuple[int, int]:
    """Return count and mu, once they and the payload's length fit each other: nothing is allocated before that."""
    bytes_max = payload_bytes_max(parameters_count, level)
    if not HEADER_BYTES <= len(payload) <= bytes_max:
        raise MalformedUpdate(f"{len(payload)} bytes, not {HEADER_BYTES} to {bytes_max}")
    count, mu, rice = _HEADER.unpack_from(payload)
    if count > compute_kept_max(parameters_count, level):
        raise MalformedUpdate(f"{count} of {parameters_count} parameters at level {level}")
    if (mu == 0) != (count == 0) or mu > fixedpoint.LIMIT:
        raise MalformedUpdate(f"magnitude {mu} with {count} parameters")
    if rice != golomb.compute_rice_parameter(count, parameters_count):
        raise MalformedUpdate(f"Rice parameter {rice} with {count} of {parameters_count} parameters")
    return count, mu


def payload_bytes_max(parameters_count: int, level: int) -> int:
    """Return the exact longest payload: positions at their worst, and a sign for each."""
    kept_max = compute_kept_max(parameters_count, level)
    return HEADER_BYTES + (golomb.compute_bits_max(kept_max, parameters_count, extra_bits=1) + 7) // 8


SPARSE_TERNARY = Codec(encode, decode, payload_bytes_max, "one parameter in this many is sent", 20)
