"""As many parameters, and as many levels each, as are worth their bytes, within a budget of bytes.

`level` holds the two numbers that the genesis agrees on: 100 * bytes + e. No update is longer than `bytes`; the sender
may have less, by its link and the round's deadline (`compute_bytes_wanted`). Within that, 2**e (in units of 2**-20) is
the step of the uniform quantiser whose trade of squared error for bits every sender makes: d(error) / d(bits) =
-2 ln 2 step**2 / 12 (Gish and Pierce 1968). A parameter is sent if its change and the error carried so far are
together worth the bits, so updates are long while the model moves and short when it has settled, which spends bytes
better than a fixed share does (hard threshold: Sahu et al. 2021, arXiv 2108.00951). Compression raises the error floor,
and the levels that strike the best balance differ by device and round: of LEVELS the cheapest is taken. What was
chosen is in the payload (`leveled`), so all nodes decode alike. What was not sent stays on the device (error feedback).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from flchain import fixedpoint
from flchain.codecs import golomb, leveled
from flchain.codecs.codec import NO_SEED, Codec, Encoded
from flchain.codecs.leveled import Leveled
from flchain.codecs.selection import check_level, select_largest
from flchain.types import ModelVector

STEP_BITS_MAX = 30
BYTES_MIN, BYTES_MAX = 16, 1 << 24
LEVELS = (1, 2, 4, 8, 16, 64, 256)
FITS_MAX = 8
"""Attempts to fill the budget with one number of levels; the best so far is taken."""
_BIT_WORTH_NUMERATOR, _BIT_WORTH_DENOMINATOR = 473, 4096
"""2 ln 2 / 12: the squared error that one bit must save, in squared steps."""

Wide = npt.NDArray[np.int64]


def pack_level(bytes_max: int, step_bits: int) -> int:
    """ChainParams' integer for a budget in bytes and a step of 2**step_bits."""
    return 100 * bytes_max + step_bits


def unpack_level(parameters_count: int, level: int) -> tuple[int, int]:
    """Budget in bytes, and e. Raises ValueError for a level that is none."""
    check_level(parameters_count, level // 100, BYTES_MIN, BYTES_MAX)
    if level % 100 > STEP_BITS_MAX:
        raise ValueError(f"the last two digits of level {level}, a power of two, are above {STEP_BITS_MAX}")
    return level // 100, level % 100


def compute_bytes_wanted(link_bytes_per_s: int, deadline_ms: int, overhead_bytes: int) -> int:
    """What a link of so many bytes a second carries until the deadline, less envelopes; at least BYTES_MIN."""
    return max(BYTES_MIN, link_bytes_per_s * deadline_ms // 1000 - overhead_bytes)


def encode(
    delta: ModelVector,
    residual: ModelVector,
    level: int,
    seed: bytes = NO_SEED,
    bytes_wanted: int | None = None,
) -> Encoded:
    """The payload of delta + residual (saturated) of the least cost, within the budget and `bytes_wanted`."""
    budget, step_bits = unpack_level(delta.size, level)
    if bytes_wanted is not None:
        budget = max(BYTES_MIN, min(budget, bytes_wanted))
    corrected = fixedpoint.add(delta, residual)
    magnitudes = np.abs(corrected)
    positions = _find_worthy(magnitudes, step_bits, compute_kept_max(delta.size, budget))
    if positions.size == 0:
        return Encoded(bytes(leveled.compute_header_bytes(delta.size)), corrected)
    choices = _list_choices(magnitudes, positions, budget)
    best = min(choices, key=lambda choice: _compute_cost(choice, magnitudes, step_bits))
    is_positive = corrected[best.positions] > 0
    sent = best.get_sent()
    corrected[best.positions] = fixedpoint.saturate(corrected[best.positions] - np.where(is_positive, sent, -sent))
    return Encoded(leveled.build_payload(best, is_positive), corrected)


def compute_kept_max(parameters_count: int, budget: int) -> int:
    """The most parameters whose positions and signs surely fit into `budget` bytes, in one level; at least 1."""
    low, high, header = 1, parameters_count, leveled.compute_header_bytes(parameters_count)
    while low < high:
        middle = (low + high + 1) // 2
        if header + (golomb.compute_bits_max(middle, parameters_count, 1) + 7) // 8 <= budget:
            low = middle
        else:
            high = middle - 1
    return low


def _find_worthy(magnitudes: ModelVector, step_bits: int, certain: int) -> golomb.Positions:
    """Where a value's square is above the worth of its bits; at most about as many as can fit."""
    worthy = np.flatnonzero(magnitudes >= 1 << step_bits)
    for _ in range(2):
        if worthy.size == 0:
            return worthy
        # A remainder, a quotient of 1.5 bits on average, a sign.
        bits = golomb.compute_rice_parameter(worthy.size, magnitudes.size) + 2.5
        worth = (_BIT_WORTH_NUMERATOR * int(2 * bits) << (2 * step_bits)) // (2 * _BIT_WORTH_DENOMINATOR)
        worthy = np.flatnonzero(magnitudes > math.isqrt(worth))
    # What surely fits has every gap at its worst; on average a sixteenth more does.
    most = certain + certain // 16
    return worthy if worthy.size <= most else select_largest(magnitudes, most)


def _list_choices(magnitudes: ModelVector, positions: golomb.Positions, budget: int) -> list[Leveled]:
    """For each of LEVELS as many of the positions as fit."""
    values = magnitudes[positions]
    ranks = np.empty(positions.size, dtype=np.int64)
    # Largest first, of equals the lowest position first.
    ranks[np.argsort(-values, kind="stable")] = np.arange(positions.size)
    certain = min(positions.size, compute_kept_max(magnitudes.size, budget))
    kept = ranks < certain
    fallback = _quantise(magnitudes, positions[kept], 1)
    return [fallback, *(_fill(magnitudes, positions, ranks, levels, budget) or fallback for levels in LEVELS)]


def _fill(
    magnitudes: ModelVector, positions: golomb.Positions, ranks: Wide, levels: int, budget: int
) -> Leveled | None:
    """As many of the largest as fit, by halving FITS_MAX times; None if none were found."""
    best, low, high = None, 0, positions.size
    count = high
    for _ in range(FITS_MAX):
        choice = _quantise(magnitudes, positions[ranks < count], levels)
        if leveled.count_bits(choice) <= 8 * budget:
            best, low = choice, count
        else:
            high = count - 1
        if low >= high:
            break
        count = (low + high + 1) // 2
    return best


def _quantise(magnitudes: ModelVector, positions: golomb.Positions, levels: int) -> Leveled:
    """Uniform bins from the smallest to the largest magnitude, base and step as they will travel."""
    values = magnitudes[positions].astype(np.int64)
    least, largest = int(values.min()), int(values.max())
    multiples, step = np.ones(values.size, dtype=np.int64), 0
    if levels > 1:
        width = leveled.decode_magnitude(leveled.encode_magnitude((largest - least) // levels + 1))
        binned = 1 + (values - least) // width
        # Bins that are all empty but each n-th would have a shorter form: then one level has to do.
        if int(np.gcd.reduce(binned - 1)) == 1:
            multiples, step = binned, width
    offsets = (multiples - 1) * step
    mean = int(fixedpoint.divide_rounded((values - offsets).sum(keepdims=True), values.size)[0])
    return Leveled(magnitudes.size, positions, multiples, _fit_base(mean, int(offsets.max())), step)


def _fit_base(mean: int, offset_max: int) -> int:
    """The nearest base that can travel, 1 or more, with which the largest magnitude stays in the range."""
    code = leveled.encode_magnitude(max(1, mean))
    while leveled.decode_magnitude(code) + offset_max > fixedpoint.LIMIT:
        code -= 1
    return leveled.decode_magnitude(code)


def _compute_cost(choice: Leveled, magnitudes: ModelVector, step_bits: int) -> int:
    """Squared error, less the squares of the whole vector, and the worth of the bits; in integers, for every node to
    choose alike. Squares are of leading bits, so that their sum fits int64."""
    values, sent = magnitudes[choice.positions].astype(np.int64), choice.get_sent()
    shift = max(0, int(values.max()).bit_length() + 1 - (61 - values.size.bit_length()) // 2)
    cut, cut_sent = values >> shift, sent >> shift
    error = int((cut_sent * (cut_sent - 2 * cut)).sum()) << (2 * shift)
    return _BIT_WORTH_DENOMINATOR * error + (_BIT_WORTH_NUMERATOR * leveled.count_bits(choice) << (2 * step_bits))


def decode(payload: bytes, parameters_count: int, level: int, seed: bytes = NO_SEED) -> ModelVector:
    """The (P,) vector. Raises MalformedUpdate for anything that `encode` could not have written."""
    return leveled.read_payload(payload, parameters_count, payload_bytes_max(parameters_count, level))


def payload_bytes_max(parameters_count: int, level: int) -> int:
    """The budget, or less where even every parameter in every level is shorter."""
    budget, _ = unpack_level(parameters_count, level)
    return min(budget, leveled.compute_dense_bytes_max(parameters_count))


ADAPTIVE = Codec(
    encode,
    decode,
    payload_bytes_max,
    "100 * bytes + e: so many bytes at most, for a step of 2**e units of 2**-20",
    pack_level(4_000, 17),
)
