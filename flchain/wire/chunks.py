"""Packets in chunks, for packets that are too long for one MQTT payload or would block a slow link for too long.

A packet's chunks are named by its digest, so that the missing ones can be asked for in a few bytes and sent by
themselves: after a broken link, a restart of either side, or a broker that forgot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from flchain.base.errors import MalformedMessage, OversizedMessage
from flchain.base.frozen import Growing, replace
from flchain.wire.fields import RANGES_MAX
from flchain.wire.packets import PACKET_BYTES_MAX, Packet, PacketType, decode_packet, encode_packet

CHUNK_BYTES = 131_072
"""Longest piece of a packet in one MQTT payload; brokers are asked for 1,000,000."""
DEVICE_CHUNK_BYTES = 4_096
"""Piece of a packet on the way from or to one device: half a second on a link of 64 kbit/s. Only the last piece of a
packet may be shorter: otherwise a stranger could make a node keep many tiny pieces."""
PUSHED_CHUNK_BYTES_MIN, PUSHED_CHUNKS_MAX = 16_384, 256
"""A packet that is sent to all is cut into no more pieces than brokers and clients queue, and no shorter ones than
necessary."""
FIRST_CHUNKS = 4
"""Chunks of a long answer that are sent unasked; the asker pulls the rest as fast as its link can take them."""
PARTIAL_PACKETS_MAX = 4
"""Unfinished packets kept for one sender; a fifth displaces the oldest."""

Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""(first index, count) each, rising."""


def hash_packet(packet: bytes) -> bytes:
    """Return the digest by which its chunks name a packet."""
    return hashlib.sha256(packet).digest()


def count_chunks(packet: bytes, chunk_bytes: int) -> int:
    """Return how many chunks carry a packet.

    >>> count_chunks(bytes(10_000), chunk_bytes=4_096)
    3
    """
    return -(-len(packet) // chunk_bytes)


def compute_pushed_chunk_bytes(packet_bytes: int) -> int:
    """Return how long the chunks of a packet are that is sent to all."""
    return min(CHUNK_BYTES, max(PUSHED_CHUNK_BYTES_MIN, -(-packet_bytes // PUSHED_CHUNKS_MAX)))


def build_chunk(packet: bytes, digest: bytes, index: int, chunk_bytes: int) -> bytes:
    """Return the MQTT payload with one piece of a packet."""
    piece = packet[index * chunk_bytes : (index + 1) * chunk_bytes]
    return encode_packet(PacketType.CHUNK, digest, index, count_chunks(packet, chunk_bytes), piece)


def split_packet(packet: bytes, chunk_bytes: int = CHUNK_BYTES) -> tuple[bytes, ...]:
    """Return the MQTT payloads that carry a packet: itself, or chunks of at most `chunk_bytes`."""
    if len(packet) <= chunk_bytes:
        return (packet,)
    digest = hash_packet(packet)
    return tuple(build_chunk(packet, digest, index, chunk_bytes) for index in range(count_chunks(packet, chunk_bytes)))


@dataclass(frozen=True)
class Partial:
    """An unfinished packet: how many pieces it has, and those that are here, by index."""

    count: int
    pieces: Mapping[int, bytes] = field(default_factory=Growing)
    bytes: int = 0
    """The length of all pieces together."""


@dataclass(frozen=True)
class Assembly:
    """Unfinished packets of one sender by digest, oldest first, and the one that was whole last."""

    partial: dict[bytes, Partial] = field(default_factory=dict)
    done: tuple[bytes, Packet | None] | None = None
    """Its digest; and itself, if a late chunk of it is to mean that it comes again."""


def process_chunk(
    assembly: Assembly, packet: Packet, packet_bytes_max: int = PACKET_BYTES_MAX, *, is_kept: bool = False
) -> tuple[Assembly, Packet | None]:
    """Add a chunk, in any order and possibly a repeat; return the packet once it is whole.

    Raises InvalidMessage's subclasses.

    `packet_bytes_max` is the longest honest packet of this sender (see `limits`): a longer one is not gathered at all.
    Of the packet that was whole last, late chunks do nothing until its first begins it anew; if it `is_kept`, its last
    chunk returns it again.
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
    known = Partial(count, _add_piece(known.pieces, index, piece), gathered)
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


def _add_piece(pieces: Mapping[int, bytes], index: int, piece: bytes) -> Mapping[int, bytes]:
    """The pieces with one more; without a copy, for a packet may have thousands."""
    if pieces.get(index) == piece:
        return pieces
    return (pieces if isinstance(pieces, Growing) else Growing(pieces)).with_item(index, piece)


def _check_chunk(digest: bytes, index: int, count: int, piece: bytes, bytes_max: int) -> None:
    if not 0 <= index < count or len(digest) != hashlib.sha256().digest_size:
        raise MalformedMessage("a chunk out of range")
    if (count - 1) * DEVICE_CHUNK_BYTES > bytes_max:
        raise OversizedMessage(f"a packet of {count} chunks")
    is_short = not piece or (index < count - 1 and len(piece) < DEVICE_CHUNK_BYTES)
    if is_short or len(piece) > CHUNK_BYTES:
        raise MalformedMessage("a piece out of range")


def get_missing_ranges(partial: Partial, first: int = 0, count_max: int | None = None) -> Ranges:
    """Return the missing chunks from index `first` on, at most `count_max`, in at most RANGES_MAX ranges.

    >>> get_missing_ranges(Partial(6, {0: b"", 3: b""}))
    ((1, 2), (4, 2))
    """
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
    """Yield at most `count_max` indices below `count` from ranges that a stranger gave, rising or not.

    >>> list(iterate_indices(((4, 9), (0, 2)), count=6, count_max=3))
    [4, 5, 0]
    """
    for first, length in ranges:
        for index in range(first, min(first + length, count)):
            if count_max <= 0:
                return
            count_max -= 1
            yield index
