"""Whole steps of the change, the step as coarse as a budget of bytes requires (error feedback keeps the rest).

`level` holds the two numbers that the genesis agrees on: 100 * bytes + e. No update is longer than `bytes`; the sender
may have less, depending on its link and the round's deadline (`compute_bytes_wanted`). 2**e (in units of 2**-20) is the
finest step. Change and carried error are rounded together to the nearest multiples of the step, so a parameter is sent
once half a step has accumulated: updates are long while the model moves and short when it has settled, which reaches an
accuracy with fewer bytes than a fixed share of parameters does (a hard threshold: Sahu et al. 2021, arXiv 2108.00951).
An update that does not fit takes the next coarser step with which it does: fewer parameters, fewer levels each; or as
many of the largest as fit. Only one level is sent where more would not be worth their bits; that difference, too, is
carried.

The payload says what was chosen, so all nodes decode alike. With n sent of P parameters, numbers little-endian:

    1 to 4 bytes  n, in as many bytes as P takes
    1 byte        the step, a minifloat code with 2 bits of fraction, 0 if and only if n is 0; the top bit is set if
                  some multiple is not +-1
    one level:
    bits          positions and signs, as in `sparse_signs`
    more levels:
    1 byte        m
    bits          as in `sparse_integers`; the multiples have no common divisor

So a vector has exactly one payload.
"""

from __future__ import annotations

import numpy as np

from flchain.base import fixedpoint
from flchain.base.errors import MalformedUpdate
from flchain.base.types import ModelVector
from flchain.codecs.bits import golomb, minifloat, sparse_integers, sparse_signs
from flchain.codecs.bits.selection import check_level, select_largest
from flchain.codecs.bits.sparse_integers import SparseIntegers
from flchain.codecs.codec import NO_SEED, Codec, Encoded

STEP_BITS_MAX = 30
BYTES_MIN, BYTES_MAX = 16, 1 << 24
FRACTION_BITS = 2
MULTIPLE_MAX = 1 << 12
PARAMETERS_PER_EXTRA_LEVEL = 8
"""More than one level is worth its bits once the levels above 1 add up to one in this many parameters: the squared
error of a step, against about a bit for each parameter (d(error) / d(bits) = -2 ln 2 step**2 / 12: Gish and Pierce
1968)."""
_MORE_LEVELS = 1 << 7
_STEP_CODE_MAX = minifloat.compute_code_max(FRACTION_BITS)


def pack_level(bytes_max: int, step_bits: int) -> int:
    """Return ChainParams' integer for a budget in bytes and a finest step of 2**step_bits.

    >>> pack_level(bytes_max=4_000, step_bits=17)
    400017
    """
    return 100 * bytes_max + step_bits


def unpack_level(parameters_count: int, level: int) -> tuple[int, int]:
    """Return the budget in bytes, and e. Raises ValueError for an integer that is no level."""
    check_level(parameters_count, level // 100, BYTES_MIN, BYTES_MAX)
    if level % 100 > STEP_BITS_MAX:
        raise ValueError(f"the last two digits of level {level}, a power of two, are above {STEP_BITS_MAX}")
    return level // 100, level % 100


def compute_bytes_wanted(link_bytes_per_s: int, deadline_ms: int, overhead_bytes: int) -> int:
    """Return what a link of `link_bytes_per_s` carries until the deadline, less envelopes; at least BYTES_MIN.

    >>> compute_bytes_wanted(link_bytes_per_s=1_000, deadline_ms=2_500, overhead_bytes=500)
    2000
    """
    return max(BYTES_MIN, link_bytes_per_s * deadline_ms // 1000 - overhead_bytes)


def encode(
    delta: ModelVector,
    residual: ModelVector,
    level: int,
    seed: bytes = NO_SEED,
    bytes_wanted: int | None = None,
) -> Encoded:
    """Return the payload of delta + residual (saturated), with the finest step that fits budget and `bytes_wanted`."""
    budget, step_bits = unpack_level(delta.size, level)
    if bytes_wanted is not None:
        budget = max(BYTES_MIN, min(budget, bytes_wanted))
    corrected = fixedpoint.add(delta, residual)
    magnitudes = np.abs(corrected)
    code, values = _choose(corrected, magnitudes, _encode_step(1 << step_bits), budget)
    if values is None:
        return Encoded(bytes(_compute_header_bytes(delta.size)), corrected)
    sent = values.get_values() * _decode_step(code)
    corrected[values.positions] = fixedpoint.saturate(corrected[values.positions] - sent)
    return Encoded(_build_payload(values, code, delta.size), corrected)


def _choose(
    corrected: ModelVector, magnitudes: ModelVector, finest: int, budget: int
) -> tuple[int, SparseIntegers | None]:
    """Return the code of the step, and the multiples that are sent, if any."""
    # A payload has no larger multiples than MULTIPLE_MAX: a finer step would cut the largest off.
    finest = max(finest, _encode_step(2 * (int(magnitudes.max()) // MULTIPLE_MAX) + 1))
    candidates = np.flatnonzero(magnitudes >= _get_threshold(_decode_step(finest)))
    low, high, code = finest, _STEP_CODE_MAX, finest
    fitting: tuple[int, SparseIntegers | None] = (_STEP_CODE_MAX + 1, None)
    # A binary search: a coarser step takes fewer bytes, with rare exceptions of a few bytes.
    while low <= high:
        values = _round_to_steps(corrected, magnitudes, candidates, code)
        if values is not None and _count_bytes(values, magnitudes.size) > budget:
            low = code + 1
        else:
            fitting, high = (code, values), code - 1
        code = (low + high) // 2
    if low == finest or (fitting[1] is not None and int(fitting[1].magnitudes.max()) > 1):
        return fitting
    # The next finer step sends too many: send as many of its largest as are sure to fit, one step each.
    largest = select_largest(magnitudes, _compute_certain(magnitudes.size, budget))
    return low - 1, SparseIntegers(largest, corrected[largest] > 0, np.ones(largest.size, dtype=np.int64))


def _round_to_steps(
    corrected: ModelVector, magnitudes: ModelVector, candidates: golomb.Positions, code: int
) -> SparseIntegers | None:
    """Return the nearest multiples, halves away from zero; None if all are zero."""
    step = _decode_step(code)
    positions = candidates[magnitudes[candidates] >= _get_threshold(step)]
    if positions.size == 0:
        return None
    most = min(MULTIPLE_MAX, fixedpoint.LIMIT // step)
    multiples = np.clip((magnitudes[positions].astype(np.int64) + step // 2) // step, 1, most)
    pays = PARAMETERS_PER_EXTRA_LEVEL * int((multiples - 1).sum()) >= positions.size
    # With a common divisor there would be a shorter form, whose step may have no code.
    if not pays or int(np.gcd.reduce(multiples)) != 1:
        multiples = np.ones_like(multiples)
    return SparseIntegers(positions, corrected[positions] > 0, multiples)


def _get_threshold(step: int) -> int:
    return step - step // 2


def _encode_step(step: int) -> int:
    return int(minifloat.encode(np.array([step], dtype=np.int32), FRACTION_BITS)[0])


def _decode_step(code: int) -> int:
    return int(minifloat.decode(np.array([code], dtype=np.int64), FRACTION_BITS)[0])


def _compute_count_bytes(parameters_count: int) -> int:
    return (parameters_count.bit_length() + 7) // 8


def _compute_header_bytes(parameters_count: int) -> int:
    return _compute_count_bytes(parameters_count) + 1


def _compute_certain(parameters_count: int, budget: int) -> int:
    """Return the most parameters whose positions and signs are sure to fit into `budget` bytes; at least 1."""
    low, high, header = 1, parameters_count, _compute_header_bytes(parameters_count)
    while low < high:
        middle = (low + high + 1) // 2
        if header + (golomb.compute_bits_max(middle, parameters_count, 1) + 7) // 8 <= budget:
            low = middle
        else:
            high = middle - 1
    return low


def _count_bytes(values: SparseIntegers, parameters_count: int) -> int:
    """Return the exact length of the payload."""
    count = values.positions.size
    bits = count + golomb.count_bits(values.positions, golomb.compute_rice_parameter(count, parameters_count))
    ends = np.cumsum(values.magnitudes) - 1
    if int(ends[-1]) + 1 == count:
        return _compute_header_bytes(parameters_count) + (bits + 7) // 8
    bits += golomb.count_bits(ends, golomb.compute_rice_parameter(count, int(ends[-1]) + 1))
    return _compute_header_bytes(parameters_count) + 1 + (bits + 7) // 8


def _build_payload(values: SparseIntegers, code: int, parameters_count: int) -> bytes:
    head = values.positions.size.to_bytes(_compute_count_bytes(parameters_count), "little")
    if int(values.magnitudes.max()) == 1:
        body = sparse_signs.build_body(values.positions, values.is_positive, parameters_count)
        return head + bytes([code]) + body
    rice, body = sparse_integers.build_body(values, parameters_count)
    return head + bytes([code | _MORE_LEVELS, rice]) + body


def decode(payload: bytes, parameters_count: int, level: int, seed: bytes = NO_SEED) -> ModelVector:
    """Return the multiples times the step. Raises MalformedUpdate for anything that `encode` could not have written."""
    bytes_max, header = payload_bytes_max(parameters_count, level), _compute_header_bytes(parameters_count)
    if not header <= len(payload) <= bytes_max:
        raise MalformedUpdate(f"{len(payload)} bytes, not {header} to {bytes_max}")
    count, first = int.from_bytes(payload[: header - 1], "little"), payload[header - 1]
    code, has_levels = first % _MORE_LEVELS, first >= _MORE_LEVELS
    if count > parameters_count or (count == 0) != (code == 0) or code > _STEP_CODE_MAX or (count == 0 and has_levels):
        raise MalformedUpdate(f"{count} of {parameters_count} parameters with a step of code {first}")
    step, body = _decode_step(code), memoryview(payload)[header:]
    if has_levels:
        values = _read_levels(body, count, parameters_count, min(MULTIPLE_MAX, fixedpoint.LIMIT // step))
        positions, sent = values.positions, values.get_values() * step
    else:
        positions, is_positive = sparse_signs.read_body(body, count, parameters_count)
        sent = np.where(is_positive, step, -step)
    vector = np.zeros(parameters_count, dtype=np.int32)
    vector[positions] = sent
    return vector


def _read_levels(body: memoryview, count: int, parameters_count: int, multiple_max: int) -> SparseIntegers:
    if not body:
        raise MalformedUpdate("levels without a Rice parameter")
    values = sparse_integers.read_body(body[1:], count, body[0], parameters_count, multiple_max)
    if int(values.magnitudes.max()) == 1 or int(np.gcd.reduce(values.magnitudes)) != 1:
        raise MalformedUpdate("multiples that have a shorter form with another step")
    return values


def payload_bytes_max(parameters_count: int, level: int) -> int:
    """Return the budget, or less where every parameter at every level would take fewer bytes."""
    budget, _ = unpack_level(parameters_count, level)
    bits = sparse_integers.compute_bits_max(parameters_count, parameters_count, MULTIPLE_MAX)
    return min(budget, _compute_header_bytes(parameters_count) + 1 + (bits + 7) // 8)


ADAPTIVE = Codec(
    encode,
    decode,
    payload_bytes_max,
    "100 * bytes + e: at most that many bytes, in steps of at least 2**e units of 2**-20",
    pack_level(4_000, 17),
)
