"""QSGD: stochastic uniform quantisation to `level` steps (Alistarh et al. 2017, arXiv 1610.02132, eq. 4).

Each bucket of 512 parameters is scaled by its largest magnitude (their section 5 prefers it to the 2-norm). A value
becomes one of the two nearest multiples of norm / s, s = min(level, norm), drawn so that its expectation is the value
(except for the last rounding to 2**-20). The codec is unbiased, so nothing is kept: what is not sent is lost, and the
draws of many devices average it out. They come from the seed of the update, which decoding does not need. The multiples
that are not zero travel as `sparse_integers`, near the entropy of the paper's Elias code.

Payload:

    4 bytes  a norm for each bucket, little-endian, 0 to 2**31 - 1
    4 bytes  n, little-endian: multiples that are not zero
    1 byte   m, the Rice parameter of their magnitudes, 0 if n is 0
    bits     as in `sparse_integers`, if n is not 0

Some multiple in each bucket is +-s if the norm is not 0, and steps are at least 1: a vector has exactly one payload.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from flchain.base import fixedpoint
from flchain.base.errors import MalformedUpdate
from flchain.base.types import ModelVector
from flchain.codecs.bits.selection import check_level
from flchain.codecs.bits.sparse_integers import SparseIntegers, build_body, compute_bits_max, read_body
from flchain.codecs.bits.uniform import draw_uniform
from flchain.codecs.codec import NO_SEED, Codec, Encoded

BUCKET = 512
LEVEL_MAX = 1 << 15
_NORM = np.dtype("<u4")
_HEADER = struct.Struct("<IB")

Wide = npt.NDArray[np.int64]


def _count_buckets(parameters_count: int) -> int:
    return -(-parameters_count // BUCKET)


def encode(
    delta: ModelVector,
    residual: ModelVector,
    level: int,
    seed: bytes = NO_SEED,
    bytes_wanted: int | None = None,
) -> Encoded:
    """Quantise delta. A residual (of another codec, for example) is sent with it; the new residual is zero."""
    check_level(delta.size, level, 1, LEVEL_MAX)
    corrected = fixedpoint.add(delta, residual)
    magnitudes = np.abs(corrected)
    norms = np.maximum.reduceat(magnitudes, np.arange(0, delta.size, BUCKET)).astype(np.int64)
    spread = np.repeat(np.maximum(norms, 1), BUCKET)[: delta.size]
    # |v| s / norm, rounded down, or up where the draw is below the fraction that is cut off: all in integers.
    scaled = magnitudes * np.minimum(spread, level)
    multiples = scaled // spread
    fractions = scaled - multiples * spread
    draws = draw_uniform(seed, "qsgd", delta.size).astype(np.int64)
    multiples += (draws * spread >> 32) < fractions
    positions = np.flatnonzero(multiples)
    head = norms.astype(_NORM).tobytes()
    if positions.size == 0:
        return Encoded(head + _HEADER.pack(0, 0), np.zeros_like(corrected))
    values = SparseIntegers(positions, corrected[positions] > 0, multiples[positions])
    rice, body = build_body(values, delta.size)
    return Encoded(head + _HEADER.pack(positions.size, rice) + body, np.zeros_like(corrected))


def decode(payload: bytes, parameters_count: int, level: int, seed: bytes = NO_SEED) -> ModelVector:
    """Return norm * multiple / s, rounded. Raises MalformedUpdate for anything that `encode` could not have written."""
    bytes_max = payload_bytes_max(parameters_count, level)
    buckets = _count_buckets(parameters_count)
    start = buckets * _NORM.itemsize
    if not start + _HEADER.size <= len(payload) <= bytes_max:
        raise MalformedUpdate(f"{len(payload)} bytes, not {start + _HEADER.size} to {bytes_max}")
    count, rice = _HEADER.unpack_from(payload, start)
    body = memoryview(payload)[start + _HEADER.size :]
    if count > parameters_count or (count == 0 and (rice or body)):
        raise MalformedUpdate(f"{count} multiples of {parameters_count} parameters")
    norms = np.frombuffer(payload, dtype=_NORM, count=buckets).astype(np.int64)
    if int(norms.max()) > fixedpoint.LIMIT:
        raise MalformedUpdate("a norm beyond the fixed-point range")
    vector = np.zeros(parameters_count, dtype=np.int32)
    full = np.zeros(buckets, dtype=np.bool_)
    if count:
        values = read_body(body, count, rice, parameters_count, level)
        homes = values.positions // BUCKET
        steps = np.minimum(norms, level)[homes]
        if (values.magnitudes > steps).any():
            raise MalformedUpdate("a value beyond its bucket's norm")
        full[homes[values.magnitudes == steps]] = True
        vector[values.positions] = _divide_by_each(norms[homes] * values.get_values(), steps)
    if (full != (norms > 0)).any():
        raise MalformedUpdate("a bucket whose largest value is not its norm")
    return vector


def _divide_by_each(numerator: Wide, divisors: Wide) -> Wide:
    """Return the nearest integers, halves away from zero, as `fixedpoint.divide_rounded` does for one divisor.

    Numerators are below 2**46.
    """
    magnitudes = (2 * np.abs(numerator) + divisors) // (2 * divisors)
    return np.where(numerator < 0, -magnitudes, magnitudes)


def payload_bytes_max(parameters_count: int, level: int) -> int:
    """Return the length that no payload exceeds: every parameter sent, magnitudes at their worst."""
    check_level(parameters_count, level, 1, LEVEL_MAX)
    bits = compute_bits_max(parameters_count, parameters_count, level)
    return _count_buckets(parameters_count) * _NORM.itemsize + _HEADER.size + (bits + 7) // 8


QSGD = Codec(
    encode,
    decode,
    payload_bytes_max,
    "steps from zero to the largest value of 512",
    4,
    keeps_error=False,
)
