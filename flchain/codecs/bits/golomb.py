"""Sorted positions as Golomb-Rice coded gaps (Golomb 1966; Rice 1979; Sattler et al. 2019, arXiv 1903.02891).

A gap is the number of positions skipped before one. With Rice parameter b it is split into a remainder of b bits and
a quotient in unary: that many zeros, then a one. All remainders go in one stream and all quotients in another; the size
is that of the interleaved form, and both directions run without a loop over positions. A stream is an array of uint8,
one bit in each element, most significant first.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flchain.base.errors import MalformedUpdate

Bits = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]

# ln((1 + sqrt(5)) / 2), as a ratio of integers: the rule below is part of the format, and floats may differ by machine.
_LN_PHI_NUMERATOR = 4812
_LN_PHI_DENOMINATOR = 10_000


def compute_rice_parameter(count: int, parameters_count: int) -> int:
    """Return the b that suits `count` positions spread evenly over `parameters_count`; 0 if count is 0.

    Sattler et al. take b = 1 + floor(log2(ln(phi - 1) / ln(1 - p))) with p = count / P and phi the golden ratio. With
    2 p / (2 - p) for -ln(1 - p), right to second order, that is the largest b >= 0 for which
    2**b * count <= ln(phi) * (2 P - count).

    >>> compute_rice_parameter(count=10, parameters_count=1_000)
    6
    """
    if count == 0:
        return 0
    bound = _LN_PHI_NUMERATOR * (2 * parameters_count - count) // (_LN_PHI_DENOMINATOR * count)
    return max(bound.bit_length() - 1, 0)


def compute_bits_max(count_max: int, parameters_count: int, extra_bits: int) -> int:
    """Return the most bits that 1..count_max positions below `parameters_count` can take, with `extra_bits` more for
    each.

    With b fixed, n positions take n (b + 1 + extra) + (P - n) // 2**b bits at worst, which never falls as n grows. So
    only the largest n of each b matters, and there are about log2(P) of these.
    """
    bits_max = 0
    count = count_max
    while count >= 1:
        rice = compute_rice_parameter(count, parameters_count)
        bits_max = max(bits_max, count * (rice + 1 + extra_bits) + ((parameters_count - count) >> rice))
        # The largest count whose parameter is at least rice + 1, from the rule's inequality solved for count.
        weight = (_LN_PHI_DENOMINATOR << (rice + 1)) + _LN_PHI_NUMERATOR
        count = min(count - 1, 2 * _LN_PHI_NUMERATOR * parameters_count // weight)
    return bits_max


def compute_steps_bits_max(count: int, sum_max: int) -> int:
    """Return the most bits that `count` numbers of at least 1 take as steps between positions, if they add up to
    `sum_max`.

    Here the count is fixed and the range is not: with b fixed, count (b + 1) + (sum - count) // 2**b bits at worst, so
    only the largest sum of each b matters.
    """
    bits_max, total = 0, sum_max
    while total >= count:
        rice = compute_rice_parameter(count, total)
        bits_max = max(bits_max, count * (rice + 1) + ((total - count) >> rice))
        if rice == 0:
            break
        # The largest total whose parameter is below `rice`, from the rule's inequality solved for the total.
        least = -(-(count << rice) * _LN_PHI_DENOMINATOR // _LN_PHI_NUMERATOR) + count
        total = min(total, -(-least // 2)) - 1
    return bits_max


def count_bits(positions: Positions, rice: int) -> int:
    """Return the length of both streams of `encode_positions`."""
    gaps = np.diff(positions, prepend=-1) - 1
    return positions.size * (rice + 1) + int((gaps >> rice).sum())


def encode_positions(positions: Positions, rice: int) -> tuple[Bits, Bits]:
    """Return the remainder stream and the quotient stream of strictly increasing positions, at least one.

    The remainder stream has count * rice bits.
    """
    gaps = np.diff(positions, prepend=-1) - 1
    remainders = np.empty((positions.size, rice), dtype=np.uint8)
    for column in range(rice):
        remainders[:, column] = (gaps >> (rice - 1 - column)) & 1
    ends = np.cumsum((gaps >> rice) + 1)
    quotients = np.zeros(int(ends[-1]), dtype=np.uint8)
    quotients[ends - 1] = 1
    return remainders.reshape(-1), quotients


def decode_positions(remainders: Bits, quotients: Bits, count: int, rice: int, parameters_count: int) -> Positions:
    """Return the `count` >= 1 positions. `remainders` has count * rice bits; `quotients` may end in up to 7 zero bits.

    Raises MalformedUpdate unless the quotient stream holds exactly `count` quotients and every position is below
    `parameters_count`. Positions increase strictly whatever the bits are, as a gap is never negative.
    """
    ends = np.flatnonzero(quotients)
    if ends.size != count:
        raise MalformedUpdate(f"{ends.size} quotients for {count} positions")
    if quotients.size - int(ends[-1]) > 8:
        raise MalformedUpdate("a whole byte of padding")
    values = np.zeros(count, dtype=np.int64)
    columns = remainders.reshape(count, rice)
    for column in range(rice):
        values <<= 1
        values |= columns[:, column]
    # The zeros before one number n are the sum of quotients 0..n; position n is the sum of gaps 0..n, plus n.
    order = np.arange(count, dtype=np.int64)
    positions: Positions = ((ends - order) << rice) + np.cumsum(values) + order
    if int(positions[-1]) >= parameters_count:
        raise MalformedUpdate(f"position {int(positions[-1])} of {parameters_count} parameters")
    return positions
