"""Encode samples for the ring: blocks of one stream, times and values by column, compressed.

A row for each sample would take three times the bytes and, on an SD card, cause three times the wear.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

SAMPLES_PER_BLOCK_MAX = 4096
WIDE_UNITS = frozenset({"deg"})
"""float32 holds a position only to a metre; all other sensor values fit into its 24 bits."""


class DamagedBlock(ValueError):
    """The bytes are not those that were written."""


def _get_types(units: Sequence[str]) -> list[np.dtype[Any]]:
    return [np.dtype("<f8" if unit in WIDE_UNITS else "<f4") for unit in units]


def encode_block(times_us: Sequence[int], columns: Sequence[Sequence[float]], units: Sequence[str]) -> bytes:
    """Encode times (n,) as differences, and one column of n values for each unit; 1 <= n <= SAMPLES_PER_BLOCK_MAX."""
    times = np.asarray(times_us, "<i8")
    parts = [np.diff(times, prepend=np.int64(0)).astype("<i8").tobytes()]
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which no example uses
        parts += [np.asarray(c, "<f8").astype(t).tobytes() for c, t in zip(columns, _get_types(units), strict=True)]
    return zlib.compress(b"".join(parts), 1)


def decode_block(
    data: bytes, samples: int, units: Sequence[str]
) -> tuple[npt.NDArray[np.int64], list[npt.NDArray[Any]]]:
    """Return times (n,) and the columns, float32 or float64 as they were stored. Raises DamagedBlock."""
    types = _get_types(units)
    size = samples * (8 + sum(kind.itemsize for kind in types))
    if not 1 <= samples <= SAMPLES_PER_BLOCK_MAX:
        raise DamagedBlock(f"{samples} samples")
    try:
        inflater = zlib.decompressobj()
        raw = inflater.decompress(data, size + 1)
    except zlib.error as error:
        raise DamagedBlock(str(error)) from error
    if len(raw) != size or not inflater.eof:
        raise DamagedBlock(f"{len(raw)} bytes for {samples} samples, expected {size}")
    times = np.cumsum(np.frombuffer(raw, "<i8", samples))
    columns, position = [], samples * 8
    for kind in types:
        columns.append(np.frombuffer(raw, kind, samples, position))
        position += samples * kind.itemsize
    return times, columns
