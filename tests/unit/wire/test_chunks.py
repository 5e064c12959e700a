"""Chunks: whole packets come out of them in any order, what is missing can be told, strangers' chunks stay bounded."""

from __future__ import annotations

import hashlib
import itertools

import pytest

from flchain.base.errors import InvalidMessage, MalformedMessage, OversizedMessage
from flchain.wire.chunks import (
    CHUNK_BYTES,
    DEVICE_CHUNK_BYTES,
    PARTIAL_PACKETS_MAX,
    PUSHED_CHUNKS_MAX,
    Assembly,
    Partial,
    compute_pushed_chunk_bytes,
    get_missing_ranges,
    iterate_indices,
    process_chunk,
    split_packet,
)
from flchain.wire.fields import RANGES_MAX
from flchain.wire.packets import PACKET_BYTES_MAX, PAYLOAD_BYTES_MAX, Packet, PacketType, decode_packet, encode_packet

LONG = encode_packet(PacketType.BODY, 7, bytes(range(256)) * (3 * CHUNK_BYTES // 256))
PIECE = bytes(DEVICE_CHUNK_BYTES)


def chunks_of(packet: bytes, chunk_bytes: int = CHUNK_BYTES) -> list[Packet]:
    return [decode_packet(payload) for payload in split_packet(packet, chunk_bytes)]


def chunk(digest: bytes, index: int = 0, count: int = 2, piece: bytes = PIECE) -> Packet:
    return Packet(PacketType.CHUNK, (digest, index, count, piece))


def digest_of(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def test_a_short_packet_travels_whole() -> None:
    """A packet up to the chunk size is its own payload; a longer one becomes payloads that brokers take."""
    assert split_packet(b"x" * CHUNK_BYTES) == (b"x" * CHUNK_BYTES,)
    payloads = split_packet(LONG)
    assert len(payloads) == 4
    assert all(len(payload) <= PAYLOAD_BYTES_MAX for payload in payloads)


def test_chunks_in_any_order_make_the_packet() -> None:
    """Every order of the chunks gives the packet with the last one, and leaves nothing behind."""
    for order in itertools.permutations(chunks_of(LONG)):
        assembly = Assembly()
        for piece in order[:-1]:
            assembly, whole = process_chunk(assembly, piece)
            assert whole is None
        assembly, whole = process_chunk(assembly, order[-1])
        assert whole == decode_packet(LONG)
        assert assembly.partial == {}


def test_repeated_chunks_change_nothing() -> None:
    """Chunks that come twice neither complete a packet nor spoil it."""
    pieces = chunks_of(LONG)
    assembly = Assembly()
    for piece in (pieces[0], pieces[0], pieces[1], pieces[0], pieces[3], pieces[3]):
        assembly, whole = process_chunk(assembly, piece)
        assert whole is None
    assert process_chunk(assembly, pieces[2])[1] == decode_packet(LONG)


def test_a_packet_can_be_sent_again() -> None:
    """A packet that was whole once is whole again when all its chunks come again."""
    assembly = Assembly()
    for _ in range(2):
        for piece in chunks_of(LONG):
            assembly, whole = process_chunk(assembly, piece)
        assert whole == decode_packet(LONG)


def test_chunks_of_two_packets_do_not_mix() -> None:
    """Chunks of two packets that alternate give both packets."""
    other = encode_packet(PacketType.BODY, 8, bytes(3 * CHUNK_BYTES))
    assembly, found = Assembly(), []
    for piece in itertools.chain.from_iterable(zip(chunks_of(LONG), chunks_of(other), strict=True)):
        assembly, whole = process_chunk(assembly, piece)
        found += [whole] if whole else []
    assert found == [decode_packet(LONG), decode_packet(other)]


def test_chunks_that_disagree_on_their_count() -> None:
    """A chunk that says another count than its packet's first is malformed, and the packet can still be finished."""
    pieces = chunks_of(LONG)
    assembly, _ = process_chunk(Assembly(), pieces[0])
    digest, index, count, piece = pieces[1].fields
    for other in (count - 1, count + 1):
        with pytest.raises(MalformedMessage):
            process_chunk(assembly, chunk(digest, index, other, piece))
    for rest in pieces[1:]:
        assembly, whole = process_chunk(assembly, rest)
    assert whole == decode_packet(LONG)


def test_chunks_that_do_not_make_their_digest() -> None:
    """A packet with one changed chunk is malformed; the right chunk in its place still makes it."""
    pieces = chunks_of(LONG)
    digest, index, count, piece = pieces[1].fields
    assembly = Assembly()
    for each in (pieces[0], chunk(digest, index, count, bytes(len(piece))), pieces[2]):
        assembly, _ = process_chunk(assembly, each)
    with pytest.raises(MalformedMessage):
        process_chunk(assembly, pieces[3])
    assembly, whole = process_chunk(assembly, pieces[1])
    assert whole is None
    assert process_chunk(assembly, pieces[3])[1] == decode_packet(LONG)


def test_chunks_of_garbage_and_chunks_of_chunks() -> None:
    """Chunks whose whole is no packet, or a chunk again, are malformed."""
    nested = encode_packet(PacketType.CHUNK, digest_of(0), 0, 2, bytes(CHUNK_BYTES))
    for whole in (b"\xff" * (CHUNK_BYTES + 1), nested):
        first, last = chunks_of(whole)
        assembly, _ = process_chunk(Assembly(), first)
        with pytest.raises(MalformedMessage):
            process_chunk(assembly, last)


@pytest.mark.parametrize(
    ("index", "count", "piece", "digest"),
    [
        (-1, 2, PIECE, digest_of(0)),
        (2, 2, PIECE, digest_of(0)),
        (0, 0, PIECE, digest_of(0)),
        (0, -1, PIECE, digest_of(0)),
        (0, 2, b"", digest_of(0)),
        (1, 2, b"", digest_of(0)),
        (0, 2, PIECE[1:], digest_of(0)),
        (0, 2, bytes(CHUNK_BYTES + 1), digest_of(0)),
        (0, 2, PIECE, b""),
        (0, 2, PIECE, digest_of(0)[:31]),
    ],
)
def test_chunks_out_of_range(index: int, count: int, piece: bytes, digest: bytes) -> None:
    """A chunk whose index, count, piece or digest is out of range is malformed."""
    with pytest.raises(MalformedMessage):
        process_chunk(Assembly(), chunk(digest, index, count, piece))


def test_a_packet_of_too_many_chunks() -> None:
    """A count that would make more than the longest packet is oversized with the first chunk already."""
    count_max = PACKET_BYTES_MAX // DEVICE_CHUNK_BYTES + 1
    process_chunk(Assembly(), chunk(digest_of(0), count=count_max))
    for count in (count_max + 1, 2**63):
        with pytest.raises(OversizedMessage):
            process_chunk(Assembly(), chunk(digest_of(0), count=count))


def test_the_oldest_unfinished_packet_is_dropped() -> None:
    """Of more unfinished packets than allowed the one whose newest chunk is oldest goes; the others can be finished."""
    assembly = Assembly()
    for number in range(PARTIAL_PACKETS_MAX):
        assembly, _ = process_chunk(assembly, chunk(digest_of(number), count=3))
    assembly, _ = process_chunk(assembly, chunk(digest_of(0), index=1, count=3))
    assembly, _ = process_chunk(assembly, chunk(digest_of(99), count=3))
    assert list(assembly.partial) == [digest_of(2), digest_of(3), digest_of(0), digest_of(99)]


def test_memory_of_one_sender_is_bounded() -> None:
    """However many chunks a sender starts, no more pieces are kept than the allowed packets can have."""
    assembly = Assembly()
    for number in range(200):
        for index in range(3):
            assembly, _ = process_chunk(assembly, chunk(digest_of(number), index, 480))
        assert len(assembly.partial) <= PARTIAL_PACKETS_MAX
        assert sum(len(partial.pieces) for partial in assembly.partial.values()) <= 3 * PARTIAL_PACKETS_MAX


def test_an_assembly_is_a_value() -> None:
    """Adding a chunk leaves the assembly that was given as it was."""
    before, _ = process_chunk(Assembly(), chunk(digest_of(0)))
    kept = dict(before.partial[digest_of(0)].pieces)
    with pytest.raises(InvalidMessage):
        process_chunk(before, chunk(digest_of(0), index=1))
    process_chunk(before, chunk(digest_of(1)))
    assert list(before.partial) == [digest_of(0)]
    assert before.partial[digest_of(0)].pieces == kept


# -------------------------------------------------------------------------------------------- late, again, missing


def test_a_late_repeat_begins_nothing() -> None:
    """Chunks that come again after the packet was whole are no new packet, until its first one comes again."""
    pieces, assembly = chunks_of(LONG), Assembly()
    for piece in (*pieces, pieces[2], pieces[3]):
        assembly, _ = process_chunk(assembly, piece)
    assert assembly.partial == {}
    assembly, _ = process_chunk(assembly, pieces[0])
    assert len(assembly.partial) == 1


def test_the_last_chunk_again_gives_a_kept_packet_again() -> None:
    """So a sender that has no receipt needs one chunk to get it, not all of them; the others give nothing."""
    pieces, assembly = chunks_of(LONG), Assembly()
    for piece in pieces:
        assembly, whole = process_chunk(assembly, piece, is_kept=True)
    for piece in pieces[:-1]:
        assembly, again = process_chunk(assembly, piece, is_kept=True)
        assert again is None
    assert process_chunk(assembly, pieces[-1], is_kept=True) == (assembly, whole)
    assert assembly.partial == {}


def test_more_bytes_than_a_sender_has_to_say() -> None:
    """However the pieces are cut, no more is gathered than the sender's longest packet."""
    limit, assembly = 10 * DEVICE_CHUNK_BYTES, Assembly()
    long = bytes(4 * DEVICE_CHUNK_BYTES)
    for index in range(2):
        assembly, _ = process_chunk(assembly, chunk(digest_of(0), index, 9, long), limit)
    with pytest.raises(OversizedMessage):
        process_chunk(assembly, chunk(digest_of(0), 2, 9, long), limit)
    again, _ = process_chunk(assembly, chunk(digest_of(0), 1, 9, long), limit)
    assert again.partial[digest_of(0)].bytes == 2 * len(long)


def test_what_is_missing_is_told_in_ranges() -> None:
    """From an index on, at most so many chunks, at most so many ranges: the first that are missing."""
    here = {0, 1, 5, 6, 7, 9}
    partial = Partial(12, dict.fromkeys(here, PIECE))
    assert get_missing_ranges(partial) == ((2, 3), (8, 1), (10, 2))
    assert get_missing_ranges(partial, count_max=2) == ((2, 2),)
    assert get_missing_ranges(partial, first=6, count_max=2) == ((8, 1), (10, 1))
    assert get_missing_ranges(Partial(3, dict.fromkeys(range(3), PIECE))) == ()
    comb = Partial(100, dict.fromkeys(range(0, 100, 2), PIECE))
    assert get_missing_ranges(comb) == tuple((index, 1) for index in range(1, 2 * RANGES_MAX, 2))


def test_ranges_of_a_stranger_are_bounded() -> None:
    """Whatever ranges are asked for, the indices exist and are no more than the limit."""
    assert list(iterate_indices(((0, 2), (5, 9)), 7, 100)) == [0, 1, 5, 6]
    assert list(iterate_indices(((2**53, 1), (0, 2**53)), 4, 3)) == [0, 1, 2]
    assert list(iterate_indices(((0, 4), (0, 4)), 4, 6)) == [0, 1, 2, 3, 0, 1]


def test_what_is_sent_to_all_is_cut_into_few_pieces() -> None:
    """Short packets into short pieces, the longest into no more than clients queue."""
    for size in (1, 20_000, 4_000_000, PACKET_BYTES_MAX):
        chunk_bytes = compute_pushed_chunk_bytes(size)
        assert DEVICE_CHUNK_BYTES <= chunk_bytes <= CHUNK_BYTES
        assert -(-size // chunk_bytes) <= max(PUSHED_CHUNKS_MAX, -(-size // CHUNK_BYTES))
