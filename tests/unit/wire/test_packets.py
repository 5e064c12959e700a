"""Packets: read back as they were written, and nothing else is one."""

from __future__ import annotations

import pytest

from flchain.base.errors import InvalidMessage, MalformedMessage, NotCanonical
from flchain.wire.envelope import encode
from flchain.wire.packets import Packet, PacketType, decode_packet, encode_packet

EXAMPLES: dict[PacketType, tuple[object, ...]] = {
    PacketType.MESSAGE: (b"m",),
    PacketType.PROPOSAL: (b"m", b"h", b"b"),
    PacketType.HEAD: (b"h", b"c", b"s"),
    PacketType.BODY: (7, b"b"),
    PacketType.MODEL: (b"h", b"c", b"s", b"v", b"r"),
    PacketType.BLOCK: (b"h", b"c", b"b"),
    PacketType.STATE: (b"h", b"c", b"s", b"t"),
    PacketType.LIGHT_BODY: (7, b"c"),
    PacketType.PAYLOADS: (b"h", b"c", b"s", 3, [b"d", b""]),
    PacketType.CHUNK: (b"d" * 32, 0, 2, b"p"),
}


@pytest.mark.parametrize("kind", PacketType)
def test_packets_are_read_back(kind: PacketType) -> None:
    """Each type of packet is read back with its fields, and refused with one more, one less or one of another type."""
    fields = EXAMPLES[kind]
    assert decode_packet(encode_packet(kind, *fields)) == Packet(kind, fields)
    for changed in (fields[:-1], (*fields, b""), (*fields[:-1], "text"), (None, *fields[1:])):
        with pytest.raises(MalformedMessage):
            decode_packet(encode_packet(kind, *changed))


@pytest.mark.parametrize(
    "value", [[], [6], [10, b""], [-1], [True, b"m"], [None], {}, 0, b"", None, [[0], b"m"]], ids=repr
)
def test_what_is_no_packet(value: object) -> None:
    """Anything that is not a list that starts with a known type is malformed."""
    with pytest.raises(MalformedMessage):
        decode_packet(encode(value))


@pytest.mark.parametrize("size", [0, 1, 23, 24, 25, 255, 256, 257, 65_535, 65_536])
def test_messages_of_every_length_have_one_form(size: int) -> None:
    """A message is read back whatever head its length needs; with a longer head, or one byte more or less, it is not
    read at all."""
    message = bytes(size)
    written = encode_packet(PacketType.MESSAGE, message)
    assert decode_packet(written) == Packet(PacketType.MESSAGE, (message,))
    for longer in (b"\x58", b"\x59", b"\x5a", b"\x5b"):
        length_bytes = 1 << (longer[0] - 0x58)
        head = b"\x82\x00" + longer + size.to_bytes(8, "big")[-length_bytes:]
        if size < 1 << 8 * length_bytes and head + message != written:
            with pytest.raises(NotCanonical):
                decode_packet(head + message)
    for spoiled in (written + b"\0", written[:-1]):
        with pytest.raises(InvalidMessage):
            decode_packet(spoiled)
