"""Sorted positions with a sign each, as bits: the common part of sparse codecs.

For n positions below P, with b the Rice parameter that `golomb` gives for (n, P):

    n b bits  remainders of the gaps
    n bits    signs, 1 for positive
    bits      quotients of the gaps, unary; the last byte is padded with zeros
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flchain.base.errors import MalformedUpdate
from flchain.codecs.bits import golomb

Flags = npt.NDArray[np.bool_]


def build_body(positions: golomb.Positions, is_positive: Flags, parameters_count: int) -> bytes:
    """Return the bits of at least one position."""
    rice = golomb.compute_rice_parameter(positions.size, parameters_count)
    remainders, quotients = golomb.encode_positions(positions, rice)
    return np.packbits(np.concatenate((remainders, is_positive.astype(np.uint8), quotients))).tobytes()


def read_body(body: bytes | memoryview, count: int, parameters_count: int) -> tuple[golomb.Positions, Flags]:
    """Return the `count` positions and signs that `build_body` wrote; none take no bytes.

    Raises MalformedUpdate otherwise.

    The caller has bounded count and the body's length: memory follows these.
    """
    rice = golomb.compute_rice_parameter(count, parameters_count)
    # Each position takes at least a remainder, a sign and the one bit that ends its quotient.
    if len(body) * 8 < count * (rice + 2) or (count == 0 and len(body) != 0):
        raise MalformedUpdate(f"{len(body)} bytes after the header for {count} positions")
    if count == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.bool_)
    bits = np.unpackbits(np.frombuffer(body, dtype=np.uint8))
    signs = count * rice
    positions = golomb.decode_positions(bits[:signs], bits[signs + count :], count, rice, parameters_count)
    return positions, bits[signs : signs + count] == 1
