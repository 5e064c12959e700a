"""What travels in MQTT payloads, on which topic: packets, which may go in chunks (see `chunks`), and topics.

Whatever a node publishes is under its own address, so a broker's rules are one line a node. A packet is a canonical
CBOR array that starts with its type. Signed messages and certified blocks prove themselves; a packet adds no trust.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from flchain.base.errors import MalformedMessage
from flchain.base.types import ADDRESS_BYTES, Address
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
    LIGHT_BODY = 7  # height, what light devices take in the place of a settlement's body (see `light_body.LightBody`)
    DELTAS = 8  # header, certificate, validators, the first round, the payloads of it and of each later one
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
    PacketType.DELTAS: (bytes, bytes, bytes, int, list),
    PacketType.CHUNK: (bytes, int, int, bytes),
}


@dataclass(frozen=True)
class Packet:
    """A decoded packet: its type and its fields, typed as FIELD_TYPES says."""

    type: PacketType
    fields: tuple[Any, ...]


def encode_packet(type: PacketType, *fields: object) -> bytes:
    """The bytes of a packet, of any length."""
    return encode([int(type), *fields])


def decode_packet(data: bytes) -> Packet:
    """Raises InvalidMessage's subclasses: wrong size, form, type or fields."""
    value = decode(data, PACKET_BYTES_MAX)
    if not isinstance(value, list) or not value or type(value[0]) is not int or value[0] not in FIELD_TYPES:
        raise MalformedMessage("not a packet")
    kind, fields = PacketType(value[0]), tuple(value[1:])
    if tuple(type(item) for item in fields) != FIELD_TYPES[kind]:
        raise MalformedMessage(f"fields of the wrong type for {kind.name}")
    return Packet(kind, fields)


@dataclass(frozen=True)
class Topics:
    """The topics of one chain: `flchain/v1/<chain>/<role>/<address>/<channel>`, levels of [a-z0-9] only."""

    prefix: str

    @classmethod
    def of_chain(cls, chain: bytes) -> Topics:
        """Topics of the chain with this 32-byte id; 8 bytes of it are enough to tell chains apart on one broker."""
        return cls(f"flchain/v1/{chain[:8].hex()}")

    def device_up(self, device: bytes) -> str:
        """A device's messages to all miners."""
        return f"{self.prefix}/device/{device.hex()}/up"

    def device_status(self, device: bytes) -> str:
        """A device's newest status, retained."""
        return f"{self.prefix}/device/{device.hex()}/status"

    def miner_bft(self, miner: bytes) -> str:
        """A miner's proposals, votes, scores and questions, for the other miners."""
        return f"{self.prefix}/miner/{miner.hex()}/bft"

    def miner_head(self, miner: bytes) -> str:
        """A miner's newest header and certificate, retained."""
        return f"{self.prefix}/miner/{miner.hex()}/head"

    def miner_body(self, miner: bytes) -> str:
        """Bodies that devices need: updates and settlements."""
        return f"{self.prefix}/miner/{miner.hex()}/body"

    def miner_light(self, miner: bytes) -> str:
        """All that light devices need: the newest header that is news for them, retained, and light bodies."""
        return f"{self.prefix}/miner/{miner.hex()}/light"

    def news_of(self, miner: bytes, is_full: bool) -> tuple[str, ...]:
        """What a device that follows this miner listens to."""
        return (self.miner_head(miner), self.miner_body(miner)) if is_full else (self.miner_light(miner),)

    def miner_to(self, miner: bytes, node: bytes) -> str:
        """A miner's answers to one node."""
        return f"{self.prefix}/miner/{miner.hex()}/to/{node.hex()}"

    def all_devices(self, channel: str) -> str:
        """Filter for a channel of every device."""
        return f"{self.prefix}/device/+/{channel}"

    def all_miners(self, channel: str) -> str:
        """Filter for a channel of every miner."""
        return f"{self.prefix}/miner/+/{channel}"

    def answers_to(self, node: bytes) -> str:
        """Filter for every miner's answers to one node."""
        return f"{self.prefix}/miner/+/to/{node.hex()}"


def read_topic_owner(topic: str) -> Address:
    """The address under which a topic was published. Raises MalformedMessage for a topic that is none of ours."""
    levels = topic.split("/")
    try:
        owner = bytes.fromhex(levels[4])
    except (IndexError, ValueError) as error:
        raise MalformedMessage(f"not a topic of ours: {topic[:80]!r}") from error
    # A broker's rules name the one spelling: under another one a stranger could pass for the owner.
    if len(owner) != ADDRESS_BYTES or owner.hex() != levels[4]:
        raise MalformedMessage(f"not a topic of ours: {topic[:80]!r}")
    return Address(owner)


def read_topic_channel(topic: str) -> str:
    """The channel of a topic: up, status, bft, head, body, light or to."""
    levels = topic.split("/")
    return levels[5] if len(levels) > 5 else ""
