"""Sparse ternary compression (Sattler et al. 2019, arXiv 1903.02891, Alg. 1): the largest 1/level of the changes.

The kept ones all take the same magnitude mu, so an update is positions, signs and one number. What was not sent stays
on the device and is added to the next update (error feedback).

Payload, with n kept of P parameters and b the Rice parameter that `golomb` gives for (n, P):

    4 bytes  n, little-endian, 0 to k = max(1, P // level)
    4 bytes  mu, little-endian, 1 to 2**31 - 1; 0 if and only if n is 0
    1 byte   b
    n b bits remainders of the gaps       bits fill each byte from the most significant;
    n bits   signs, 1 for positive        the last byte is padded with zeros
    bits     quotients of the gaps, unary

A ternary tensor has exactly one payload: any other is refused, so equal updates have equal hashes.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from flchain import fixedpoint
from flchain.codecs import golomb
from flchain.codecs.codec import Codec, Encoded
from flchain.errors import MalformedUpdate
from flchain.types import ModelVector

_HEADER = struct.Struct("<IIB")
HEADER_BYTES = _HEADER.size


def compute_kept_max(parameters_count: int, level: int) -> int:
    """k = max(1, P // level): the most parameters an update may change. Raises ValueError unless both are positive."""
    if parameters_count < 1 or level < 1:
        raise ValueError(f"no sparse ternary update of {parameters_count} parameters at level {level}")
    return max(1, parameters_count // level)


def select_largest(magnitudes: npt.NDArray[np.int32], kept_max: int) -> golomb.Positions:
    """Positions, ascending, of the `kept_max` largest of (P,) magnitudes, without zeros; of equals the lowest win.

    By value, not with argpartition: which of the equals argpartition takes is numpy's affair and differs by CPU.
    """
    place = magnitudes.size - kept_max
    threshold = np.partition(magnitudes, place)[place]
    if threshold == 0:
        return np.flatnonzero(magnitudes)
    is_kept = magnitudes > threshold
    equals = np.flatnonzero(magnitudes == threshold)
    is_kept[equals[: kept_max - int(np.count_nonzero(is_kept))]] = True
    return np.flatnonzero(is_kept)


def encode(delta: ModelVector, residual: ModelVector, level: int) -> Encoded:
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
    """The one payload of a ternary tensor: +mu or -mu at `positions` (ascending, at least one), 0 elsewhere."""
    rice = golomb.compute_rice_parameter(positions.size, parameters_count)
    remainders, quotients = golomb.encode_positions(positions, rice)
    bits = np.concatenate((remainders, is_positive.astype(np.uint8), quotients))
    return _HEADER.pack(positions.size, mu, rice) + np.packbits(bits).tobytes()


def decode(payload: bytes, parameters_count: int, level: int) -> ModelVector:
    """The (P,) ternary tensor. Raises MalformedUpdate for anything that `encode` could not have written."""
    count, mu, rice = _read_header(payload, parameters_count, level)
    tensor = np.zeros(parameters_count, dtype=np.int32)
    if count == 0:
        return tensor
    bits = np.unpackbits(np.frombuffer(payload, dtype=np.uint8, offset=HEADER_BYTES))
    signs_start = count * rice
    signs_end = signs_start + count
    positions = golomb.decode_positions(bits[:signs_start], bits[signs_end:], count, rice, parameters_count)
    tensor[positions] = np.where(bits[signs_start:signs_end] == 1, mu, -mu)
    return tensor


def _read_header(payload: bytes, parameters_count: int, level: int) -> tuple[int, int, int]:
    """Count, mu and Rice parameter, once they and the payload's length fit each other: nothing is allocated before."""
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
    body_bytes = len(payload) - HEADER_BYTES
    # Each position takes at least a remainder, a sign and the one bit that ends its quotient.
    if body_bytes * 8 < count * (rice + 2) or (count == 0 and body_bytes != 0):
        raise MalformedUpdate(f"{body_bytes} bytes after the header for {count} positions")
    return count, mu, rice


def payload_bytes_max(parameters_count: int, level: int) -> int:
    """The exact longest payload: positions at their worst, and a sign for each."""
    kept_max = compute_kept_max(parameters_count, level)
    return HEADER_BYTES + (golomb.compute_bits_max(kept_max, parameters_count, extra_bits=1) + 7) // 8


SPARSE_TERNARY = Codec(encode, decode, payload_bytes_max)
