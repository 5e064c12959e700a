"""Values of the rules as JSON and back: bytes as "0x..." with long runs of one byte shortened, vectors as integers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

RUN_MIN = 48
"""Runs of at least so many equal bytes are written as (xx*count)."""
TEXTS_CACHED_MAX = 1 << 15
"""Addresses and keys come again in every state."""
_RUNS = re.compile(rb"(.)\1{%d,}" % (RUN_MIN - 1), re.DOTALL)
_WRITTEN_RUNS = re.compile(r"\(([0-9a-f]{2})\*([0-9]+)\)")


def pack(value: Any) -> Any:
    """A value as JSON: tuples and sets as lists (sets sorted), bytes and arrays as text and tagged lists."""
    packed: Any
    match value:
        case bytes():
            packed = "0x" + _shorten(value)
        case bool() | None:
            packed = value
        case str():
            assert not value.startswith("0x"), "that would be read as bytes"
            packed = str(value)
        case int() | np.integer():
            packed = int(value)
        case np.ndarray():
            packed = {value.dtype.str[1:]: [v.hex() if value.dtype.kind == "f" else v for v in value.tolist()]}
        case Mapping():
            packed = {pack(name): pack(item) for name, item in value.items()}
        case frozenset() | set():
            packed = sorted(pack(item) for item in value)
        case tuple() | list():
            packed = [pack(item) for item in value]
        case _:
            raise TypeError(f"no form for {type(value).__name__}")
    return packed


@lru_cache(TEXTS_CACHED_MAX)
def _shorten(data: bytes) -> str:
    written, place = "", 0
    for run in _RUNS.finditer(data):
        count = run.end() - run.start()
        written += data[place : run.start()].hex() + f"({run.group(1).hex()}*{count})"
        place = run.end()
    return written + data[place:].hex()


@lru_cache(TEXTS_CACHED_MAX)
def _read_bytes(text: str) -> bytes:
    return bytes.fromhex(_WRITTEN_RUNS.sub(lambda run: run.group(1) * int(run.group(2)), text[2:]))


def unpack(value: Any) -> Any:
    """What `pack` has written; lists come back as tuples."""
    match value:
        case str() if value.startswith("0x"):
            return _read_bytes(value)
        case {"i4": listed}:
            return np.array(listed, dtype=np.int32)
        case {"i8": listed}:
            return np.array(listed, dtype=np.int64)
        case {"f4": listed}:
            return np.array([float.fromhex(v) for v in listed], dtype=np.float32)
        case dict():
            return {unpack(name): unpack(item) for name, item in value.items()}
        case list():
            return tuple(unpack(item) for item in value)
        case _:
            return value
