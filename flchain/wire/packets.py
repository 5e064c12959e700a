"""What travels in MQTT payloads: packets, whole or in chunks (see `chunks`). On which topic: see `topics`.

A packet is a canonical CBOR array that starts with its type. Signed messages and certified blocks prove themselves; a
packet adds no trust.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from flchain.base.errors import MalformedMessage
from flchain.wire.envelope import BODY_BYTES_MAX, CERTIFICATE_BYTES_MAX, HEADER_BYTES_MAX, decode, encode

PAYLOAD_BYTES_MAX = 1_000_000
"""Of one MQTT message. A larger one would make the broker hang up; `chunks` cuts longer packets."""
PACKET_BYTES_MAX = BODY_BYTES_MAX + HEADER_BYTES_MAX + CERTIFICATE_BYTES_MAX + 4_096


class PacketType(IntEnum):
    """First field of a packet."""

    MESSAGE = 0  # signed message
    PROPOSAL = 1  # signed proposal, header, body
    HEAD = 2  # header, certificate, validators (see `trust.encode_sets`; empty where they did not change)
    BODY = 3  # height, body of the block at that height
    MODEL = 4  # header, certificate, validators, the model it names, what is carried with its proof or nothing
    BLOCK = 5  # header, certificate, body
    STATE = 6  # header, certificate, validators, the state after that block (see `snapshot`)
    LIGHT_BODY = 7  # height, what light devices take instead of a settlement's body (see `light.body`)
    PAYLOADS = 8  # header, certificate, validators, the first round, the payloads of it and of each later one
    CHUNK = 9  # digest of the packet, index, count, piece


FIELD_TYPES: dict[PacketType, tuple[type, ...]] = {
    PacketType.MESSAGE: (bytes,),
    PacketType.PROPOSAL: (bytes, bytes, bytes),
    PacketType.HEAD: (bytes, bytes, bytes),
    PacketType.BODY: (int, bytes),
    PacketType.MODEL: (bytes, bytes, bytes, bytes, bytes),
    PacketType.BLOCK: (bytes, bytes, bytes),
    PacketType.STATE: (bytes, bytes, bytes, bytes),
    PacketType.LIGHT_BODY: (int, bytes),
    PacketType.PAYLOADS: (bytes, bytes, bytes, int, list),
    PacketType.CHUNK: (bytes, int, int, bytes),
}


@dataclass(frozen=True)
class Packet:
    """A decoded packet: its type and its fields, typed as FIELD_TYPES says."""

    type: PacketType
    fields: tuple[Any, ...]


def encode_packet(type: PacketType, *fields: object) -> bytes:
    """Return the bytes of a packet, of any length."""
    return encode([int(type), *fields])


_MESSAGE_HEAD = encode([int(PacketType.MESSAGE), b""])[:-1]


def _read_short_message(data: bytes) -> Packet | None:
    """Return a packet with a signed message of 24 to 65,535 bytes, None for anything else. Nearly all are of this kind.

    The canonical form of a value is the only one, so the bytes before the message are compared with what they must be.
    """
    start, size = 4, len(data) - 4
    if size < 2**8:
        head = bytes((0x58, size)) if size > 23 else b""
    else:
        start, size = 5, size - 1
        head = b"\x59" + size.to_bytes(2, "big") if 2**8 <= size < 2**16 else b""
    if not head or data[:start] != _MESSAGE_HEAD + head:
        return None
    return Packet(PacketType.MESSAGE, (data[start:],))


def decode_packet(data: bytes) -> Packet:
    """Decode a packet. Raises InvalidMessage's subclasses for a wrong size, form, type or field."""
    if (short := _read_short_message(data)) is not None:
        return short
    value = decode(data, PACKET_BYTES_MAX)
    if not isinstance(value, list) or not value or type(value[0]) is not int or value[0] not in FIELD_TYPES:
        raise MalformedMessage("not a packet")
    kind, fields = PacketType(value[0]), tuple(value[1:])
    if tuple(type(item) for item in fields) != FIELD_TYPES[kind]:
        raise MalformedMessage(f"fields of the wrong type for {kind.name}")
    return Packet(kind, fields)
