"""As many parameters, and as many levels each, as leave the least error behind within a budget of bytes.

`level` is the budget that the genesis agrees on, in bytes: no update is longer. The sender may have less, by its link
and the round's deadline (`compute_bytes_wanted`), and spends less while it owes little: half of what it may while the
error that it carries is below half of its new change, all of it from an error as large as the change on. Compression
raises the error floor, and the levels that strike the best balance differ by device and round: for each of LEVELS the
sender takes as many parameters as fit, and sends the choice that leaves the smallest squared error. What was chosen is
in the payload, so all nodes decode alike. What was not sent stays on the device (error feedback).

Magnitudes are base + (q - 1) step for q = 1, 2, ...: a threshold and uniform bins above it. With one level this is
`sparse_ternary`.

Payload, with n kept of P parameters, numbers little-endian:

    1 to 4 bytes  n, in as many bytes as P takes
    2 bytes       base, a minifloat code with 10 bits of fraction, 0 if and only if n is 0; the top bit is set for more
                  levels than one
    one level:
    bits          positions and signs, as in `sparse_signs`
    more levels:
    2 bytes       step, a minifloat code with 10 bits of fraction, not 0
    1 byte        m
    bits          as in `sparse_integers`; 1 occurs, and the q - 1 have no common divisor
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flchain import fixedpoint
from flchain.codecs import golomb, minifloat, sparse_integers, sparse_signs
from flchain.codecs.codec import NO_SEED, Codec, Encoded
from flchain.codecs.selection import check_level, select_largest
from flchain.codecs.sparse_integers import SparseIntegers
from flchain.errors import MalformedUpdate
from flchain.types import ModelVector

_BASE, _LEVELS = struct.Struct("<H"), struct.Struct("<HB")
_MORE_LEVELS = 1 << 15
BYTES_MIN, BYTES_MAX = 16, 1 << 30
FRACTION_BITS = 10
LEVELS = (1, 2, 4, 8, 16, 64, 256)
LEVELS_MAX = 1 << 12
"""Of a payload: more levels than these would say more than the fraction of base and step can hold."""
FITS_MAX = 8
"""Attempts to fill the budget with one number of levels; the best so far is taken."""

Wide = npt.NDArray[np.int64]


def compute_bytes_wanted(link_bytes_per_s: int, deadline_ms: int, overhead_bytes: int) -> int:
    """What a link of so many bytes a second carries until the deadline, less envelopes; at least BYTES_MIN."""
    return max(BYTES_MIN, link_bytes_per_s * deadline_ms // 1000 - overhead_bytes)


def compute_budget(delta: ModelVector, residual: ModelVector, bytes_max: int) -> int:
    """The part of `bytes_max` to spend: half to all of it, by how the carried error compares with the change."""
    owed, new = (int(np.abs(vector).sum(dtype=np.int64)) for vector in (residual, delta))
    share_bp = 10_000 if owed >= new else max(5_000, 10_000 * owed // new)
    return max(BYTES_MIN, bytes_max * share_bp // 10_000)


def encode(
    delta: ModelVector,
    residual: ModelVector,
    level: int,
    seed: bytes = NO_SEED,
    bytes_wanted: int | None = None,
) -> Encoded:
    """The best payload of delta + residual (saturated) within min(level, bytes_wanted) bytes."""
    check_level(delta.size, level, BYTES_MIN, BYTES_MAX)
    corrected = fixedpoint.add(delta, residual)
    budget = compute_budget(
        delta, residual, min(level, max(BYTES_MIN, level if bytes_wanted is None else bytes_wanted))
    )
    candidates = _rank(np.abs(corrected), budget)
    if candidates.positions.size == 0:
        return Encoded(bytes(compute_header_bytes(delta.size)), corrected)
    best = min((_fill(candidates, levels, budget) for levels in LEVELS), key=lambda choice: choice.error)
    is_positive = corrected[best.positions] > 0
    payload = _build_payload(best, is_positive)
    sent = best.base + (best.multiples - 1) * best.step
    corrected[best.positions] = fixedpoint.saturate(
        corrected[best.positions] - np.where(is_positive, sent, -sent).astype(np.int64)
    )
    return Encoded(payload, corrected)


@dataclass(frozen=True, eq=False)
class _Candidates:
    """The parameters that may be sent: positions ascending, their magnitudes, and their rank by magnitude, from 0."""

    parameters_count: int
    positions: golomb.Positions
    magnitudes: Wide
    ranks: Wide
    certain: int
    """So many surely fit, in one level."""


@dataclass(frozen=True, eq=False)
class _Choice:
    parameters_count: int
    positions: golomb.Positions
    multiples: Wide
    base: int
    step: int
    error: int
    """What is left of the sum of squares, less that sum: negative, the lower the better."""


def _rank(magnitudes: ModelVector, budget: int) -> _Candidates:
    certain = compute_kept_max(magnitudes.size, budget)
    # What surely fits has every gap at its worst; on average a sixteenth more does.
    positions = select_largest(magnitudes, min(magnitudes.size, certain + certain // 16))
    values = magnitudes[positions]
    ranks = np.empty(positions.size, dtype=np.int64)
    # Largest first, of equals the lowest position first.
    ranks[np.argsort(-values, kind="stable")] = np.arange(positions.size)
    return _Candidates(magnitudes.size, positions, values.astype(np.int64), ranks, min(certain, positions.size))


def compute_header_bytes(parameters_count: int) -> int:
    """Count and base."""
    return _compute_count_bytes(parameters_count) + _BASE.size


def _compute_count_bytes(parameters_count: int) -> int:
    return (parameters_count.bit_length() + 7) // 8


def compute_kept_max(parameters_count: int, budget: int) -> int:
    """The most parameters whose positions and signs surely fit into `budget` bytes, in one level; at least 1."""
    low, high, header = 1, parameters_count, compute_header_bytes(parameters_count)
    while low < high:
        middle = (low + high + 1) // 2
        if header + (golomb.compute_bits_max(middle, parameters_count, 1) + 7) // 8 <= budget:
            low = middle
        else:
            high = middle - 1
    return low


def _fill(candidates: _Candidates, levels: int, budget: int) -> _Choice:
    """As many as fit in `levels` levels, by halving FITS_MAX times; if none are found, what surely fits in one."""
    best, low, high = _quantise(candidates, candidates.certain, 1), 0, candidates.positions.size
    count = high
    for _ in range(FITS_MAX):
        choice = _quantise(candidates, count, levels)
        if _count_bytes(choice) <= budget:
            best, low = choice, count
        else:
            high = count - 1
        if low >= high:
            break
        count = (low + high + 1) // 2
    return best


def _quantise(candidates: _Candidates, count: int, levels: int) -> _Choice:
    """The `count` largest in uniform bins from the smallest to the largest, base and step as they will travel."""
    kept = candidates.ranks < count
    positions, values = candidates.positions[kept], candidates.magnitudes[kept]
    least, largest = int(values.min()), int(values.max())
    multiples, step = np.ones(count, dtype=np.int64), 0
    if levels > 1:
        width = _encode_magnitude((largest - least) // levels + 1)
        binned = 1 + (values - least) // _decode_magnitude(width)
        # Bins that are all empty but each n-th would have a shorter form: then one level has to do.
        if int(np.gcd.reduce(binned - 1)) == 1:
            multiples, step = binned, _decode_magnitude(width)
    offsets = (multiples - 1) * step
    mean = int(fixedpoint.divide_rounded((values - offsets).sum(keepdims=True), count)[0])
    base = _fit_base(mean, int(offsets.max()))
    error = _compare_squares(values, base + offsets, largest)
    return _Choice(candidates.parameters_count, positions, multiples, base, step, error)


def _compare_squares(values: Wide, sent: Wide, largest: int) -> int:
    """sum((values - sent)**2 - values**2), all cut to the leading bits of the largest so that the sum fits int64."""
    shift = max(0, largest.bit_length() + 1 - (61 - values.size.bit_length()) // 2)
    cut, cut_sent = values >> shift, sent >> shift
    return int((cut_sent * (cut_sent - 2 * cut)).sum()) << (2 * shift)


def _fit_base(mean: int, offset_max: int) -> int:
    """The nearest base that can travel, 1 or more, with which the largest magnitude stays in the range."""
    code = _encode_magnitude(max(1, mean))
    while _decode_magnitude(code) + offset_max > fixedpoint.LIMIT:
        code -= 1
    return _decode_magnitude(code)


def _encode_magnitude(magnitude: int) -> int:
    return int(minifloat.encode(np.array([magnitude], dtype=np.int32), FRACTION_BITS)[0])


def _count_bytes(choice: _Choice) -> int:
    """The exact length of the choice's payload."""
    count, parameters_count = choice.positions.size, choice.parameters_count
    rice = golomb.compute_rice_parameter(count, parameters_count)
    bits = golomb.count_bits(choice.positions, rice) + count
    if choice.step == 0:
        return compute_header_bytes(parameters_count) + (bits + 7) // 8
    ends = np.cumsum(choice.multiples) - 1
    bits += golomb.count_bits(ends, golomb.compute_rice_parameter(count, int(ends[-1]) + 1))
    return compute_header_bytes(parameters_count) + _LEVELS.size + (bits + 7) // 8


def _build_payload(choice: _Choice, is_positive: npt.NDArray[np.bool_]) -> bytes:
    parameters_count, base = choice.parameters_count, _encode_magnitude(choice.base)
    head = choice.positions.size.to_bytes(_compute_count_bytes(parameters_count), "little")
    if choice.step == 0:
        return head + _BASE.pack(base) + sparse_signs.build_body(choice.positions, is_positive, parameters_count)
    values = SparseIntegers(choice.positions, is_positive, choice.multiples)
    rice, body = sparse_integers.build_body(values, parameters_count)
    return head + _BASE.pack(base | _MORE_LEVELS) + _LEVELS.pack(_encode_magnitude(choice.step), rice) + body


def decode(payload: bytes, parameters_count: int, level: int, seed: bytes = NO_SEED) -> ModelVector:
    """The (P,) vector. Raises MalformedUpdate for anything that `encode` could not have written."""
    bytes_max, header = payload_bytes_max(parameters_count, level), compute_header_bytes(parameters_count)
    if not header <= len(payload) <= bytes_max:
        raise MalformedUpdate(f"{len(payload)} bytes, not {header} to {bytes_max}")
    count = int.from_bytes(payload[: header - _BASE.size], "little")
    (code,) = _BASE.unpack_from(payload, header - _BASE.size)
    has_levels, code = code >= _MORE_LEVELS, code % _MORE_LEVELS
    if count > parameters_count or (count == 0) != (code == 0) or (count == 0 and has_levels):
        raise MalformedUpdate(f"{count} of {parameters_count} parameters with base {code}")
    base = _decode_magnitude(code)
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


def _decode_magnitude(code: int) -> int:
    if code > minifloat.compute_code_max(FRACTION_BITS):
        raise MalformedUpdate(f"{code} is the code of no magnitude")
    return int(minifloat.decode(np.array([code], dtype=np.int64), FRACTION_BITS)[0])


def _read_levels(body: memoryview, count: int, parameters_count: int) -> tuple[int, SparseIntegers]:
    if len(body) < _LEVELS.size:
        raise MalformedUpdate("levels without a step")
    code, rice = _LEVELS.unpack_from(body)
    step = _decode_magnitude(code)
    values = sparse_integers.read_body(body[_LEVELS.size :], count, rice, parameters_count, LEVELS_MAX)
    multiples = values.magnitudes - 1
    if step == 0 or int(multiples.min()) != 0 or int(np.gcd.reduce(multiples)) != 1:
        raise MalformedUpdate("levels that a larger base or step would say more shortly")
    return step, values


def payload_bytes_max(parameters_count: int, level: int) -> int:
    """The budget, or less where even every parameter in every level is shorter."""
    check_level(parameters_count, level, BYTES_MIN, BYTES_MAX)
    bits = sparse_integers.compute_bits_max(parameters_count, parameters_count, LEVELS_MAX)
    return min(level, compute_header_bytes(parameters_count) + _LEVELS.size + (bits + 7) // 8)


ADAPTIVE = Codec(encode, decode, payload_bytes_max, f"bytes of an update at most, from {BYTES_MIN} on")
