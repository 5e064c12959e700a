"""The CBOR (RFC 8949) that messages may be made of, and its one decoder: a single strict pass over the bytes.

A general decoder does what a peer tells it to: it compiles regular expressions, computes fractions, builds numbers of
a million digits and lists of a million lists. None of that is a message, so this one knows 64-bit integers, bytes,
text, arrays, maps, booleans and null, each in the one form that `cbor2` writes with `canonical=True`, and nothing else.
"""

from __future__ import annotations

from typing import Any, NoReturn

import cbor2

from flchain.base.errors import MalformedMessage, NotCanonical, TruncatedMessage

ITEMS_MAX = 16_384
"""Most items in one encoding but a state's; the largest message, the scores of 1024 updates, has about 3,300 (see
`limits`)."""
DEPTH_MAX = 8
COSE_SIGN1_TAG = 18
"""The one tag, and only around everything else."""

_NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _SIMPLE = 1, 2, 3, 4, 5, 7  # 6 is a tag
_CONSTANTS = {20: False, 21: True, 22: None}
_VALUE_MIN = {24: 24, 25: 2**8, 26: 2**16, 27: 2**32}
"""The least number that is written in 1, 2, 4 or 8 bytes: a smaller one has a shorter form."""
_NUMBER_MAX = 23
"""The largest number that the head holds by itself, in one byte."""
_BYTES_HEAD, _ARRAY_HEAD = 0x40, 0x80


def decode_item(data: bytes, items_max: int = ITEMS_MAX) -> Any:
    """Decode `data`, one whole item in its canonical form; maps become dicts, the tag a `cbor2.CBORTag`.

    Raises TruncatedMessage, NotCanonical (a second encoding of the same value, trailing bytes included) or
    MalformedMessage (everything that no message holds). Containers are built only once it is known that all of their
    items fit `items_max`, so that the memory taken is in proportion to the bytes.
    """
    reader = _Reader(data, items_max)
    value = reader.read(depth=1)
    if reader.offset != len(data):
        raise NotCanonical("bytes after the end")
    return value


class _Reader:
    """The position of the pass: the next byte, and how many items the heads so far have promised."""

    __slots__ = ("data", "items_max", "offset", "promised")

    def __init__(self, data: bytes, items_max: int) -> None:
        self.data, self.items_max, self.offset, self.promised = data, items_max, 0, 1

    def read(self, depth: int) -> Any:
        """Return the item at `offset`, which is inside `depth` - 1 others."""
        major, value = self._read_head()
        if major == _BYTES:
            return self._take(value)
        if major == 0:
            return value
        if major == _ARRAY:
            return self._read_array(value, depth)
        return self._read_other(major, value, depth)

    def _read_array(self, count: int, depth: int) -> list[Any]:
        self._enter(count, depth)
        data, size, offset = self.data, len(self.data), self.offset
        items: list[Any] = []
        for _ in range(count):
            # Nearly all items are small numbers, byte strings of up to 255 bytes, or short arrays: read here.
            head = data[offset] if offset < size else _raise_truncated()
            if head <= _NUMBER_MAX:
                items.append(head)
                offset += 1
                continue
            if _ARRAY_HEAD <= head <= _ARRAY_HEAD + _NUMBER_MAX:
                self.offset = offset + 1
                items.append(self._read_array(head - _ARRAY_HEAD, depth + 1))
                offset = self.offset
                continue
            if _BYTES_HEAD <= head <= _BYTES_HEAD + _NUMBER_MAX:
                start, end = offset + 1, offset + 1 + head - _BYTES_HEAD
            elif head == _BYTES_HEAD + 24 and offset + 1 < size and data[offset + 1] > _NUMBER_MAX:
                start, end = offset + 2, offset + 2 + data[offset + 1]
            else:
                self.offset = offset
                items.append(self.read(depth + 1))
                offset = self.offset
                continue
            if end > size:
                _raise_truncated()
            items.append(data[start:end])
            offset = end
        self.offset = offset
        return items

    def _read_other(self, major: int, value: int, depth: int) -> Any:
        if major == _NEGATIVE:
            return -1 - value
        if major == _TEXT:
            return _decode_text(self._take(value))
        if major == _MAP:
            return self._read_map(value, depth)
        if major == _SIMPLE:
            return _CONSTANTS[value]
        if value != COSE_SIGN1_TAG or depth > 1:
            raise MalformedMessage(f"tag {value}")
        self._enter(1, depth)
        return cbor2.CBORTag(value, self.read(depth + 1))

    def _read_map(self, count: int, depth: int) -> dict[Any, Any]:
        self._enter(2 * count, depth)
        items: dict[Any, Any] = {}
        last = (0, b"")
        for _ in range(count):
            start = self.offset
            key = self.read(depth + 1)
            encoded = self.data[start : self.offset]
            if isinstance(key, list | dict) or key in items:
                raise MalformedMessage("a key that is a container, or appears twice")
            # The order of cbor2's canonical form (RFC 7049, 3.9): shorter keys first, then by their bytes.
            if (len(encoded), encoded) < last:
                raise NotCanonical("keys that are not in order")
            last = len(encoded), encoded
            items[key] = self.read(depth + 1)
        return items

    def _enter(self, count: int, depth: int) -> None:
        """Check what a container promises before any of it is built."""
        if self.offset + count > len(self.data):  # each item that is still to come takes a byte at least
            _raise_truncated()
        self.promised += count
        if self.promised > self.items_max or (count and depth >= DEPTH_MAX):
            raise MalformedMessage("more items, or deeper, than any message")

    def _take(self, size: int) -> bytes:
        end = self.offset + size
        if end > len(self.data):
            _raise_truncated()
        taken = self.data[self.offset : end]
        self.offset = end
        return taken

    def _read_head(self) -> tuple[int, int]:
        """Return the major type and its number."""
        data, offset = self.data, self.offset
        if offset >= len(data):
            _raise_truncated()
        major, value = data[offset] >> 5, data[offset] & 31
        self.offset = offset = offset + 1
        if value <= _NUMBER_MAX and major != _SIMPLE:
            return major, value
        if major == _SIMPLE:
            if value not in _CONSTANTS:
                raise MalformedMessage("a float or a simple value that no message holds")
            return major, value
        if value not in _VALUE_MIN:
            raise MalformedMessage("an item of indefinite length")
        value_min = _VALUE_MIN[value]
        value = int.from_bytes(self._take(1 << (value - 24)), "big")
        if value < value_min:
            raise NotCanonical("a number that has a shorter form")
        return major, value


def _decode_text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise MalformedMessage(f"text that is no UTF-8: {error.reason}") from error


def _raise_truncated() -> NoReturn:
    raise TruncatedMessage("the bytes end too early")
