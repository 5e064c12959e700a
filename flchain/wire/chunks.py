"""Packets in chunks: too long for one MQTT payload, or for a slow link to be held up by; sent on where they broke off.

A packet's chunks are named by its digest, so that what is missing of it can be told in a few bytes and sent by itself:
after a broken link, a restart of either side, or a broker that forgot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from flchain.base.errors import MalformedMessage, OversizedMessage
from flchain.base.frozen import replace
from flchain.wire.messages import RANGES_MAX
from flchain.wire.packets import PACKET_BYTES_MAX, Packet, PacketType, decode_packet, encode_packet

CHUNK_BYTES = 131_072
"""Longest piece of a packet in one MQTT payload; brokers are asked for 1,000,000."""
DEVICE_CHUNK_BYTES = 4_096
"""Piece of a packet on the way from or to one device: half a second on a link of 64 kbit/s. No other may be shorter,
but for the last of a packet, or a stranger could make a node keep many pieces of nothing."""
PUSHED_CHUNK_BYTES_MIN, PUSHED_CHUNKS_MAX = 16_384, 256
"""What is sent to all is cut into no more pieces than brokers and clients queue, and no shorter than need be."""
FIRST_CHUNKS = 4
"""So many chunks of a long answer are sent unasked; the asker draws the rest as fast as its link takes them."""
PARTIAL_PACKETS_MAX = 4
"""Unfinished packets kept for one sender; the oldest is dropped for a fifth."""

Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""(first index, count) each, rising."""


def hash_packet(packet: bytes) -> bytes:
    """What its chunks call a packet."""
    return hashlib.sha256(packet).digest()


def count_chunks(packet: bytes, chunk_bytes: int) -> int:
    """How many chunks carry a packet."""
    return -(-len(packet) // chunk_bytes)


def compute_pushed_chunk_bytes(packet_bytes: int) -> int:
    """How long the pieces are of a packet that is sent to all."""
    return min(CHUNK_BYTES, max(PUSHED_CHUNK_BYTES_MIN, -(-packet_bytes // PUSHED_CHUNKS_MAX)))


def build_chunk(packet: bytes, digest: bytes, index: int, chunk_bytes: int) -> bytes:
    """The MQTT payload with one piece of a packet."""
    piece = packet[index * chunk_bytes : (index + 1) * chunk_bytes]
    return encode_packet(PacketType.CHUNK, digest, index, count_chunks(packet, chunk_bytes), piece)


def split_packet(packet: bytes, chunk_bytes: int = CHUNK_BYTES) -> tuple[bytes, ...]:
    """The MQTT payloads that carry a packet: itself, or chunks of at most `chunk_bytes`."""
    if len(packet) <= chunk_bytes:
        return (packet,)
    digest = hash_packet(packet)
    return tuple(build_chunk(packet, digest, index, chunk_bytes) for index in range(count_chunks(packet, chunk_bytes)))


@dataclass(frozen=True)
class Partial:
    """An unfinished packet: how many pieces it has, and those that are here, by index."""

    count: int
    pieces: dict[int, bytes] = field(default_factory=dict)
    bytes: int = 0
    """Of all pieces together."""


@dataclass(frozen=True)
class Assembly:
    """Unfinished packets of one sender by digest, oldest first, and the one that was whole last."""

    partial: dict[bytes, Partial] = field(default_factory=dict)
    done: tuple[bytes, Packet | None] | None = None
    """Its digest; and itself, if a late chunk of it is to mean that it comes again."""


def process_chunk(
    assembly: Assembly, packet: Packet, packet_bytes_max: int = PACKET_BYTES_MAX, *, is_kept: bool = False
) -> tuple[Assembly, Packet | None]:
    """Add a chunk in any order, repeats included; the packet when it is whole. Raises InvalidMessage's subclasses.

    `packet_bytes_max` is what this sender can honestly have to say (see `limits`): more is not gathered at all. Of the
    packet that was whole last, late chunks give nothing until its first begins it anew; if it `is_kept`, its last gives
    it again.
    """
    digest, index, count, piece = packet.fields
    _check_chunk(digest, index, count, piece, min(packet_bytes_max, PACKET_BYTES_MAX))
    if assembly.done is not None and assembly.done[0] == digest:
        if assembly.done[1] is not None or index > 0:
            return assembly, assembly.done[1] if index == count - 1 else None
        assembly = replace(assembly, done=None)
    known = assembly.partial.get(digest, Partial(count))
    if known.count != count:
        raise MalformedMessage("chunks of one packet disagree on their count")
    gathered = known.bytes + len(piece) - len(known.pieces.get(index, b""))
    if gathered > min(packet_bytes_max, PACKET_BYTES_MAX):
        raise OversizedMessage(f"chunks of {gathered} bytes")
    known = Partial(count, {**known.pieces, index: piece}, gathered)
    others = {key: value for key, value in assembly.partial.items() if key != digest}
    if len(known.pieces) < count:
        kept = list(others.items())[-(PARTIAL_PACKETS_MAX - 1) :]
        return replace(assembly, partial={**dict(kept), digest: known}), None
    whole = b"".join(known.pieces[i] for i in range(count))
    assembly = replace(assembly, partial=others)
    if hash_packet(whole) != digest:
        raise MalformedMessage("chunks that do not make the packet they name")
    inner = decode_packet(whole)
    if inner.type is PacketType.CHUNK:
        raise MalformedMessage("a chunk inside chunks")
    return replace(assembly, done=(digest, inner if is_kept else None)), inner


def _check_chunk(digest: bytes, index: int, count: int, piece: bytes, bytes_max: int) -> None:
    if not 0 <= index < count or len(digest) != hashlib.sha256().digest_size:
        raise MalformedMessage("a chunk out of range")
    if (count - 1) * DEVICE_CHUNK_BYTES > bytes_max:
        raise OversizedMessage(f"a packet of {count} chunks")
    is_short = not piece or (index < count - 1 and len(piece) < DEVICE_CHUNK_BYTES)
    if is_short or len(piece) > CHUNK_BYTES:
        raise MalformedMessage("a piece out of range")


def list_missing(partial: Partial, first: int = 0, count_max: int | None = None) -> Ranges:
    """The chunks from index `first` on that are not here, at most so many, in at most RANGES_MAX ranges."""
    left = partial.count if count_max is None else count_max
    ranges: list[tuple[int, int]] = []
    for index in range(first, partial.count):
        if left <= 0:
            break
        if index in partial.pieces:
            continue
        if ranges and sum(ranges[-1]) == index:
            ranges[-1] = (ranges[-1][0], ranges[-1][1] + 1)
        elif len(ranges) == RANGES_MAX:
            break
        else:
            ranges.append((index, 1))
        left -= 1
    return tuple(ranges)


def iterate_indices(ranges: Ranges, count: int, count_max: int) -> Iterable[int]:
    """The indices below `count` in ranges that a stranger gave, rising or not, at most so many."""
    for first, length in ranges:
        for index in range(first, min(first + length, count)):
            if count_max <= 0:
                return
            count_max -= 1
            yield index
