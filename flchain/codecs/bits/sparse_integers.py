"""A sparse vector of small integers as bits: Golomb-Rice coded gaps, a sign each, Golomb-Rice coded magnitudes.

For n values that are not zero, among P, with b and m the Rice parameters of gaps and of magnitudes:

    n b bits  remainders of the gaps
    n bits    signs, 1 for positive
    n m bits  remainders of the magnitudes less 1
    bits      quotients of the gaps, unary
    bits      quotients of the magnitudes less 1, unary; the last byte is padded with zeros

b follows from n and P. m follows from the magnitudes, so it travels, and is checked: a vector has exactly one form.
Magnitudes are coded as `golomb` codes positions: they are the steps between rising numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flchain.base.errors import MalformedUpdate
from flchain.codecs.bits import golomb

Wide = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class SparseIntegers:
    """n values that are not zero: positions rise strictly, magnitudes are at least 1. Arrays of shape (n,)."""

    positions: golomb.Positions
    is_positive: Flags
    magnitudes: Wide

    def get_values(self) -> Wide:
        """Return the values."""
        return np.where(self.is_positive, self.magnitudes, -self.magnitudes)


def build_body(values: SparseIntegers, parameters_count: int) -> tuple[int, bytes]:
    """Return m and the bits of at least one value."""
    count = values.positions.size
    rice = golomb.compute_rice_parameter(count, parameters_count)
    ends = np.cumsum(values.magnitudes) - 1
    magnitude_rice = golomb.compute_rice_parameter(count, int(ends[-1]) + 1)
    remainders, quotients = golomb.encode_positions(values.positions, rice)
    magnitude_remainders, magnitude_quotients = golomb.encode_positions(ends, magnitude_rice)
    streams = (remainders, values.is_positive, magnitude_remainders, quotients, magnitude_quotients)
    bits = np.concatenate([stream.astype(np.uint8, copy=False) for stream in streams])
    return magnitude_rice, np.packbits(bits).tobytes()


def read_body(
    body: bytes | memoryview, count: int, magnitude_rice: int, parameters_count: int, magnitude_max: int
) -> SparseIntegers:
    """Return the `count` >= 1 values that `build_body` wrote. Raises MalformedUpdate for anything else.

    The caller has bounded count (by P) and the body's length (by `compute_bits_max`): memory follows these.
    """
    rice = golomb.compute_rice_parameter(count, parameters_count)
    # A remainder, a sign and a quotient's end for each gap, a remainder and a quotient's end for each magnitude.
    if magnitude_rice > magnitude_max.bit_length() or len(body) * 8 < count * (rice + magnitude_rice + 3):
        raise MalformedUpdate(f"{len(body)} bytes for {count} values, Rice parameters {rice} and {magnitude_rice}")
    bits = np.unpackbits(np.frombuffer(body, dtype=np.uint8))
    signs = count * rice
    magnitudes = signs + count
    quotients = magnitudes + count * magnitude_rice
    ends = np.flatnonzero(bits[quotients:])
    if ends.size != 2 * count:
        raise MalformedUpdate(f"{ends.size} quotients for {count} values")
    middle = quotients + int(ends[count - 1]) + 1
    positions = golomb.decode_positions(bits[:signs], bits[quotients:middle], count, rice, parameters_count)
    sums = golomb.decode_positions(
        bits[magnitudes:quotients], bits[middle:], count, magnitude_rice, count * magnitude_max
    )
    if magnitude_rice != golomb.compute_rice_parameter(count, int(sums[-1]) + 1):
        raise MalformedUpdate(f"Rice parameter {magnitude_rice} for magnitudes of {int(sums[-1]) + 1} together")
    steps = np.diff(sums, prepend=-1)
    if int(steps.max()) > magnitude_max:
        raise MalformedUpdate(f"magnitude {int(steps.max())}, at most {magnitude_max}")
    return SparseIntegers(positions, bits[signs:magnitudes] == 1, steps)


def compute_bits_max(count_max: int, parameters_count: int, magnitude_max: int) -> int:
    """Return the bits that no body of 1..count_max values exceeds.

    Gaps and magnitudes are each at their worst, which cannot always happen together.
    """
    gaps = golomb.compute_bits_max(count_max, parameters_count, extra_bits=1)
    return gaps + golomb.compute_steps_bits_max(count_max, count_max * magnitude_max)
