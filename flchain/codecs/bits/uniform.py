"""Uniform numbers from a public seed: SHAKE-128 (FIPS 202), the same on every machine and with every numpy."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

_DRAW = np.dtype("<u4")


def draw_uniform(seed: bytes, tag: str, count: int) -> npt.NDArray[np.uint32]:
    """Return `count` draws of 32 bits. Raises ValueError without a seed: nobody could repeat such a draw."""
    if not seed:
        raise ValueError("this codec draws random numbers: it needs the seed of the update (compute_codec_seed)")
    name = b"flchain/v1/" + tag.encode()
    stream = hashlib.shake_128(bytes((len(name),)) + name + seed).digest(count * _DRAW.itemsize)
    return np.frombuffer(stream, dtype=_DRAW).astype(np.uint32)
