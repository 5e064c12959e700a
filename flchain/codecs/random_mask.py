"""Signs of a random 1/level of the parameters, whose positions cost no bytes (Konečný et al. 2016, arXiv 1610.05492).

Both ends draw the mask from the seed of the update. Here it is stratified: one parameter of each run of `level`, so a
mask takes P / level draws and no sort, and each parameter still has the chance 1/level (up to the draw's 2**-32). The
kept parameters are sent as signs with one magnitude, their mean: for a given number of bytes that leaves less error
than fewer values of more bits. What was not sent stays on the device (error feedback), so nothing is scaled up.

Payload, always 4 + (n + 7) // 8 bytes for the n = ceil(P / level) parameters of the mask:

    4 bytes  mu, little-endian, 0 to 2**31 - 1
    n bits   signs, 1 for positive (or 0); all 0 if mu is; the last byte is padded with zeros
"""

from __future__ import annotations

import struct

import numpy as np

from flchain.base import fixedpoint
from flchain.base.errors import MalformedUpdate
from flchain.base.types import ModelVector
from flchain.codecs.bits.golomb import Positions
from flchain.codecs.bits.selection import check_level
from flchain.codecs.bits.uniform import draw_uniform
from flchain.codecs.codec import LEVEL_MAX, NO_SEED, Codec, Encoded

_HEADER = struct.Struct("<I")


def compute_mask(parameters_count: int, level: int, seed: bytes) -> Positions:
    """Return the mask's ascending positions, one in each run of `level` parameters.

    Raises ValueError without a seed.
    """
    starts = np.arange(0, parameters_count, level, dtype=np.int64)
    sizes = np.minimum(level, parameters_count - starts)
    draws = draw_uniform(seed, "random-mask", starts.size).astype(np.int64)
    positions: Positions = starts + (draws * sizes >> 32)
    return positions


def encode(
    delta: ModelVector,
    residual: ModelVector,
    level: int,
    seed: bytes = NO_SEED,
    bytes_wanted: int | None = None,
) -> Encoded:
    """Return signs and mean magnitude of delta + residual on the mask. The new residual is saturated."""
    check_level(delta.size, level, 1, LEVEL_MAX)
    corrected = fixedpoint.add(delta, residual)
    positions = compute_mask(delta.size, level, seed)
    kept = corrected[positions]
    total = np.abs(kept).sum(keepdims=True, dtype=np.int64)
    mu = int(fixedpoint.divide_rounded(total, positions.size)[0])
    is_positive = (kept >= 0) & (mu > 0)
    sent = np.where(is_positive, mu, -mu).astype(np.int64)
    corrected[positions] = fixedpoint.saturate(kept - sent)
    return Encoded(_HEADER.pack(mu) + np.packbits(is_positive).tobytes(), corrected)


def decode(payload: bytes, parameters_count: int, level: int, seed: bytes = NO_SEED) -> ModelVector:
    """Return +mu or -mu on the mask, 0 elsewhere. Raises MalformedUpdate for what `encode` could not have written."""
    bytes_wanted = payload_bytes_max(parameters_count, level)
    if len(payload) != bytes_wanted:
        raise MalformedUpdate(f"{len(payload)} bytes, not {bytes_wanted}")
    (mu,) = _HEADER.unpack_from(payload)
    positions = compute_mask(parameters_count, level, seed)
    bits = np.unpackbits(np.frombuffer(payload, dtype=np.uint8, offset=_HEADER.size))
    signs, padding = bits[: positions.size], bits[positions.size :]
    if mu > fixedpoint.LIMIT or padding.any() or (mu == 0 and signs.any()):
        raise MalformedUpdate(f"magnitude {mu}, or bits that mean nothing")
    vector = np.zeros(parameters_count, dtype=np.int32)
    vector[positions] = np.where(signs == 1, mu, -mu)
    return vector


def payload_bytes_max(parameters_count: int, level: int) -> int:
    """Return the length of a payload, which is always the same."""
    check_level(parameters_count, level, 1, LEVEL_MAX)
    return _HEADER.size + (-(-parameters_count // level) + 7) // 8


RANDOM_MASK = Codec(encode, decode, payload_bytes_max, "the sign of one parameter in this many is sent", 8)
