"""Which CBOR (RFC 8949) a message may be made of, checked on the bytes before any value is built from them.

A general decoder does what a peer tells it to: it compiles regular expressions, computes fractions, builds numbers of
a million digits and lists of a million lists. None of that is a message, so none of it reaches the decoder.
"""

from __future__ import annotations

from typing import NoReturn

from flchain.base.errors import MalformedMessage, NotCanonical, TruncatedMessage

ITEMS_MAX = 16_384
"""Most items in one encoding; the largest message, the scores of 1024 updates, has about 3,300 (see `limits`)."""
DEPTH_MAX = 8
COSE_SIGN1_TAG = 18
"""The one tag, and only around everything else."""

_BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = 2, 3, 4, 5, 6, 7
_FALSE, _TRUE, _NULL = 20, 21, 22
_VALUE_MIN = {24: 24, 25: 2**8, 26: 2**16, 27: 2**32}
"""What a number written in 1, 2, 4 or 8 bytes is at least: a smaller one has a shorter form."""


def check_form(data: bytes) -> None:
    """Check that `data` is one whole item of 64-bit integers, bytes, text, arrays, maps, booleans and null.

    Raises TruncatedMessage, NotCanonical (numbers and lengths not in their shortest form, trailing bytes) or
    MalformedMessage. The order of map keys and the text's UTF-8 are for the decoder. Takes no memory.
    """
    offset = items = 0
    left = [1]  # how many items each open container still waits for
    while left:
        if left[-1] == 0:
            left.pop()
            continue
        left[-1] -= 1
        items += 1
        if items > ITEMS_MAX or len(left) > DEPTH_MAX:
            raise MalformedMessage("more items, or deeper, than any message")
        major, value, offset = _read_head(data, offset)
        if major in (_BYTES, _TEXT):
            offset += value
        elif major == _ARRAY:
            left.append(value)
        elif major == _MAP:
            left.append(2 * value)
        elif major == _TAG:
            if value != COSE_SIGN1_TAG or items > 1:
                raise MalformedMessage(f"tag {value}")
            left.append(1)
        # Each item that is still to come takes a byte at least.
        if offset + left[-1] > len(data):
            _raise_truncated()
    if offset != len(data):
        raise NotCanonical("bytes after the end")


def _read_head(data: bytes, offset: int) -> tuple[int, int, int]:
    """Major type, its number, and where the next byte is."""
    if offset >= len(data):
        _raise_truncated()
    major, value = data[offset] >> 5, data[offset] & 31
    offset += 1
    if major == _SIMPLE:
        if value not in (_FALSE, _TRUE, _NULL):
            raise MalformedMessage("a float or a simple value that no message holds")
        return major, value, offset
    if value in _VALUE_MIN:
        value_min, end = _VALUE_MIN[value], offset + (1 << (value - 24))
        if end > len(data):
            _raise_truncated()
        value, offset = int.from_bytes(data[offset:end], "big"), end
        if value < value_min:
            raise NotCanonical("a number that has a shorter form")
    elif value > 27:
        raise MalformedMessage("an item of indefinite length")
    return major, value, offset


def _raise_truncated() -> NoReturn:
    raise TruncatedMessage("the bytes end too early")
