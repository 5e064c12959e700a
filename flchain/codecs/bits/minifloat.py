"""Magnitudes as small floating-point codes, in integers only: an exponent and the leading bits, as bfloat16 has them.

With F fraction bits the codes below 2**(F + 1) are the magnitudes themselves; above, code = (shift << F) + (magnitude
>> shift), where shift leaves F + 1 leading bits. Codes rise with magnitudes, and each decodes to another one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flchain.base.fixedpoint import LIMIT

Wide = npt.NDArray[np.int64]
MAGNITUDE_BITS = 31


def compute_code_max(fraction_bits: int) -> int:
    """Return the code of the largest magnitude, fixedpoint.LIMIT cut to its leading bits."""
    shift = MAGNITUDE_BITS - fraction_bits - 1
    return (shift << fraction_bits) + (LIMIT >> shift)


def encode(magnitudes: npt.NDArray[np.int32], fraction_bits: int) -> Wide:
    """Return the nearest codes of magnitudes 0..LIMIT, halves up; off by at most 1 part in 2**(F + 1).

    >>> codes = encode(np.array([5, 100, 1000], dtype=np.int32), fraction_bits=3)
    >>> decode(codes, fraction_bits=3).tolist()
    [5, 104, 1024]
    """
    wide = magnitudes.astype(np.int64)
    # frexp is exact: its exponent is the number of bits of an integer below 2**53
    bits = np.frexp(wide.astype(np.float64))[1].astype(np.int64)
    shifts = np.maximum(bits - (fraction_bits + 1), 0)
    halves = (np.int64(1) << shifts) >> 1
    codes = (shifts << fraction_bits) + ((wide + halves) >> shifts)
    nearest: Wide = np.minimum(codes, compute_code_max(fraction_bits))
    return nearest


def decode(codes: Wide, fraction_bits: int) -> Wide:
    """Return the magnitudes, 0..LIMIT, of codes 0..compute_code_max."""
    shifts = np.maximum((codes >> fraction_bits) - 1, 0)
    magnitudes: Wide = (codes - (shifts << fraction_bits)) << shifts
    return magnitudes
