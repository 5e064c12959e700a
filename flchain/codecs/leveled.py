"""The payload of the adaptive codec: kept parameters with magnitudes base + (q - 1) step for q = 1, 2, ...

With one level, q = 1, this is a sparse ternary vector. Payload, with n kept of P parameters, numbers little-endian:

    1 to 4 bytes  n, in as many bytes as P takes
    2 bytes       base, a minifloat code with 10 bits of fraction, 0 if and only if n is 0; the top bit is set for more
                  levels than one
    one level:
    bits          positions and signs, as in `sparse_signs`
    more levels:
    2 bytes       step, a minifloat code with 10 bits of fraction, not 0
    1 byte        m
    bits          as in `sparse_integers`; 1 occurs, and the q - 1 have no common divisor

So a vector has exactly one payload.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flchain import fixedpoint
from flchain.codecs import golomb, minifloat, sparse_integers, sparse_signs
from flchain.codecs.sparse_integers import SparseIntegers
from flchain.errors import MalformedUpdate
from flchain.types import ModelVector

_BASE, _LEVELS = struct.Struct("<H"), struct.Struct("<HB")
_MORE_LEVELS = 1 << 15
FRACTION_BITS = 10
LEVELS_MAX = 1 << 12
"""Of a payload: more levels than these would say more than the fraction of base and step can hold."""

Wide = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Leveled:
    """Kept parameters, at least one, positions rising. `step` is 0 for one level; base and step can travel exactly."""

    parameters_count: int
    positions: golomb.Positions
    multiples: Wide
    base: int
    step: int

    def get_sent(self) -> Wide:
        """The magnitudes."""
        return self.base + (self.multiples - 1) * self.step


def compute_header_bytes(parameters_count: int) -> int:
    """Count and base."""
    return _compute_count_bytes(parameters_count) + _BASE.size


def _compute_count_bytes(parameters_count: int) -> int:
    return (parameters_count.bit_length() + 7) // 8


def count_bits(choice: Leveled) -> int:
    """The exact length of the payload, in bits before the last byte is filled."""
    count, parameters_count = choice.positions.size, choice.parameters_count
    rice = golomb.compute_rice_parameter(count, parameters_count)
    bits = golomb.count_bits(choice.positions, rice) + count
    if choice.step == 0:
        return 8 * compute_header_bytes(parameters_count) + bits
    ends = np.cumsum(choice.multiples) - 1
    bits += golomb.count_bits(ends, golomb.compute_rice_parameter(count, int(ends[-1]) + 1))
    return 8 * (compute_header_bytes(parameters_count) + _LEVELS.size) + bits


def build_payload(choice: Leveled, is_positive: npt.NDArray[np.bool_]) -> bytes:
    """The one payload."""
    parameters_count, base = choice.parameters_count, encode_magnitude(choice.base)
    head = choice.positions.size.to_bytes(_compute_count_bytes(parameters_count), "little")
    if choice.step == 0:
        return head + _BASE.pack(base) + sparse_signs.build_body(choice.positions, is_positive, parameters_count)
    values = SparseIntegers(choice.positions, is_positive, choice.multiples)
    rice, body = sparse_integers.build_body(values, parameters_count)
    return head + _BASE.pack(base | _MORE_LEVELS) + _LEVELS.pack(encode_magnitude(choice.step), rice) + body


def read_payload(payload: bytes, parameters_count: int, bytes_max: int) -> ModelVector:
    """The (P,) vector. Raises MalformedUpdate for anything that `build_payload` could not have written."""
    header = compute_header_bytes(parameters_count)
    if not header <= len(payload) <= bytes_max:
        raise MalformedUpdate(f"{len(payload)} bytes, not {header} to {bytes_max}")
    count = int.from_bytes(payload[: header - _BASE.size], "little")
    (code,) = _BASE.unpack_from(payload, header - _BASE.size)
    has_levels, code = code >= _MORE_LEVELS, code % _MORE_LEVELS
    if count > parameters_count or (count == 0) != (code == 0) or (count == 0 and has_levels):
        raise MalformedUpdate(f"{count} of {parameters_count} parameters with base {code}")
    base = decode_magnitude(code)
    body = memoryview(payload)[header:]
    if has_levels:
        step, values = _read_levels(body, count, parameters_count)
        positions, is_positive, sent = values.positions, values.is_positive, base + (values.magnitudes - 1) * step
    else:
        positions, is_positive = sparse_signs.read_body(body, count, parameters_count)
        sent = np.full(count, base, dtype=np.int64)
    if count and int(sent.max()) > fixedpoint.LIMIT:
        raise MalformedUpdate(f"a magnitude of {int(sent.max())}")
    vector = np.zeros(parameters_count, dtype=np.int32)
    vector[positions] = np.where(is_positive, sent, -sent)
    return vector


def encode_magnitude(magnitude: int) -> int:
    """The nearest code that base and step travel in."""
    return int(minifloat.encode(np.array([magnitude], dtype=np.int32), FRACTION_BITS)[0])


def decode_magnitude(code: int) -> int:
    """Raises MalformedUpdate."""
    if code > minifloat.compute_code_max(FRACTION_BITS):
        raise MalformedUpdate(f"{code} is the code of no magnitude")
    return int(minifloat.decode(np.array([code], dtype=np.int64), FRACTION_BITS)[0])


def _read_levels(body: memoryview, count: int, parameters_count: int) -> tuple[int, SparseIntegers]:
    if len(body) < _LEVELS.size:
        raise MalformedUpdate("levels without a step")
    code, rice = _LEVELS.unpack_from(body)
    step = decode_magnitude(code)
    values = sparse_integers.read_body(body[_LEVELS.size :], count, rice, parameters_count, LEVELS_MAX)
    multiples = values.magnitudes - 1
    if step == 0 or int(multiples.min()) != 0 or int(np.gcd.reduce(multiples)) != 1:
        raise MalformedUpdate("levels that a larger base or step would say more shortly")
    return step, values


def compute_dense_bytes_max(parameters_count: int) -> int:
    """No payload is longer: every parameter kept, every level at its worst."""
    bits = sparse_integers.compute_bits_max(parameters_count, parameters_count, LEVELS_MAX)
    return compute_header_bytes(parameters_count) + _LEVELS.size + (bits + 7) // 8
