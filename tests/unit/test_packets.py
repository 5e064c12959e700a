"""Packets and chunks: whole packets come out of chunks in any order, and strangers' chunks stay bounded."""

from __future__ import annotations

import hashlib
import itertools

import pytest

from flchain.chunks import CHUNK_BYTES, PARTIAL_PACKETS_MAX, Assembly, process_chunk, split_packet
from flchain.errors import InvalidMessage, MalformedMessage, OversizedMessage
from flchain.packets import (
    PACKET_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    Packet,
    PacketType,
    Topics,
    decode_packet,
    encode_packet,
    read_topic_channel,
    read_topic_owner,
)
from flchain.wire import encode

LONG = encode_packet(PacketType.BODY, 7, bytes(range(256)) * (3 * CHUNK_BYTES // 256))
EXAMPLES: dict[PacketType, tuple[object, ...]] = {
    PacketType.MESSAGE: (b"m",),
    PacketType.PROPOSAL: (b"m", b"h", b"b"),
    PacketType.HEAD: (b"h", b"c", b"s"),
    PacketType.BODY: (7, b"b"),
    PacketType.MODEL: (b"h", b"c", b"s", b"v", b"r"),
    PacketType.BLOCK: (b"h", b"c", b"b"),
    PacketType.STATE: (b"h", b"c", b"s", b"t"),
    PacketType.LIGHT_BODY: (7, b"c"),
    PacketType.DELTAS: (b"h", b"c", b"s", 3, [b"d", b""]),
    PacketType.CHUNK: (b"d" * 32, 0, 2, b"p"),
}


def chunks_of(packet: bytes) -> list[Packet]:
    return [decode_packet(payload) for payload in split_packet(packet)]


def chunk(digest: bytes, index: int = 0, count: int = 2, piece: bytes = b"p") -> Packet:
    return Packet(PacketType.CHUNK, (digest, index, count, piece))


def digest_of(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


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
        (-1, 2, b"p", digest_of(0)),
        (2, 2, b"p", digest_of(0)),
        (0, 0, b"p", digest_of(0)),
        (0, -1, b"p", digest_of(0)),
        (0, 2, b"", digest_of(0)),
        (0, 2, bytes(CHUNK_BYTES + 1), digest_of(0)),
        (0, 2, b"p", b""),
        (0, 2, b"p", digest_of(0)[:31]),
    ],
)
def test_chunks_out_of_range(index: int, count: int, piece: bytes, digest: bytes) -> None:
    """A chunk whose index, count, piece or digest is out of range is malformed."""
    with pytest.raises(MalformedMessage):
        process_chunk(Assembly(), chunk(digest, index, count, piece))


def test_a_packet_of_too_many_chunks() -> None:
    """A count that would make more than the longest packet is oversized with the first chunk already."""
    count_max = -(-PACKET_BYTES_MAX // CHUNK_BYTES)
    process_chunk(Assembly(), chunk(digest_of(0), count=count_max))
    for count in (count_max + 2, 2**63):
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
            assembly, _ = process_chunk(assembly, chunk(digest_of(number), index, 480, bytes(100)))
        assert len(assembly.partial) <= PARTIAL_PACKETS_MAX
        assert sum(len(pieces) for _, pieces in assembly.partial.values()) <= 3 * PARTIAL_PACKETS_MAX


def test_an_assembly_is_a_value() -> None:
    """Adding a chunk leaves the assembly that was given as it was."""
    before, _ = process_chunk(Assembly(), chunk(digest_of(0)))
    kept = dict(before.partial[digest_of(0)][1])
    with pytest.raises(InvalidMessage):
        process_chunk(before, chunk(digest_of(0), index=1))
    process_chunk(before, chunk(digest_of(1)))
    assert list(before.partial) == [digest_of(0)]
    assert before.partial[digest_of(0)][1] == kept


def test_topics_name_their_owner() -> None:
    """Every topic that a node publishes under gives its address and channel back."""
    topics, node = Topics.of_chain(bytes(range(32))), bytes(range(20))
    for topic, channel in (
        (topics.device_up(node), "up"),
        (topics.device_status(node), "status"),
        (topics.miner_bft(node), "bft"),
        (topics.miner_head(node), "head"),
        (topics.miner_body(node), "body"),
        (topics.miner_to(node, b"other" * 4), "to"),
    ):
        assert topic.startswith("flchain/v1/0001020304050607/")
        assert (read_topic_owner(topic), read_topic_channel(topic)) == (node, channel)


@pytest.mark.parametrize("owner", ["", "00" * 19, "00" * 21, "AB" * 20, "ab " * 20, "xy" * 20, "+", "ab" * 19 + " ab"])
def test_one_spelling_of_an_owner(owner: str) -> None:
    """A topic whose owner is not 40 lower-case hex digits is refused: to a broker's rules it is another topic."""
    with pytest.raises(MalformedMessage):
        read_topic_owner(f"flchain/v1/0001020304050607/device/{owner}/up")
