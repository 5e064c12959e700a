"""What a device sends when: control before chunks, few chunks under way, nothing twice that the broker has."""

from __future__ import annotations

import random

from flchain.wire.chunks import DEVICE_CHUNK_BYTES, Assembly, process_chunk
from flchain.wire.packets import PacketType, decode_packet, encode_packet
from flchain_edge.mqtt.chunked_uploads import AGAIN_S, PROBE_S, UPLOADS_MAX, Chunk, ChunkedUploads
from flchain_edge.mqtt.uplink_rate import QUEUE_S, WINDOW_BYTES_MAX, WINDOW_BYTES_MIN, UplinkRate
from miner.edge.sent_packets import CHUNKS_PER_ANSWER_MAX, SENT_PACKETS_MAX, SentPackets

COUNT = 10
PACKET = encode_packet(PacketType.MESSAGE, random.Random(1).randbytes(COUNT * DEVICE_CHUNK_BYTES - 100))
WINDOW = 3 * DEVICE_CHUNK_BYTES


def take_all(uploads: ChunkedUploads, now_s: float = 0.0, window: int = 10**9) -> list[Chunk]:
    taken = []
    while chunk := uploads.take(window, now_s):
        taken.append(chunk)
    return taken


def begin(packet: bytes = PACKET, *, is_again: bool = False) -> ChunkedUploads:
    uploads = ChunkedUploads()
    uploads.begin("up", packet, 0.0, is_again=is_again)
    return uploads


def test_all_chunks_go_out_in_order_and_make_the_packet() -> None:
    """Each once, and together they are what was to be sent."""
    taken = take_all(begin())
    assert [chunk.index for chunk in taken] == list(range(COUNT))
    assembly, whole = Assembly(), None
    for chunk in taken:
        assembly, whole = process_chunk(assembly, decode_packet(chunk.payload))
    assert whole == decode_packet(PACKET)


def test_no_more_is_under_way_than_the_window_holds() -> None:
    """Each acknowledgement makes room for as much; a window that is too small for any chunk still lets one go."""
    uploads = begin()
    taken = take_all(uploads, window=WINDOW)
    assert [chunk.index for chunk in taken] == [0, 1]  # a chunk is a little longer than its piece
    uploads.on_acked(taken[0])
    assert [chunk.index for chunk in take_all(uploads, window=WINDOW)] == [2]
    assert [chunk.index for chunk in take_all(begin(), window=1)] == [0]


def test_after_a_break_only_what_was_not_acknowledged_goes_again() -> None:
    """And it goes first, in order, with nothing before it."""
    uploads = begin()
    taken = take_all(uploads, window=6 * DEVICE_CHUNK_BYTES)
    for chunk in (taken[0], taken[2], taken[3]):
        uploads.on_acked(chunk)
    uploads.on_lost([taken[1], taken[4]])
    assert [chunk.index for chunk in take_all(uploads)] == [1, 4, 5, 6, 7, 8, 9]


def test_a_packet_on_its_way_is_not_begun_again() -> None:
    """An owner without a receipt repeats the packet: once all of it is out, its last chunk asks what miners lack."""
    uploads = begin()
    first = uploads.take(WINDOW, 0.0)
    uploads.begin("up", PACKET, 60.0, is_again=True)
    rest = take_all(uploads, 1.0)
    assert first is not None and [chunk.index for chunk in (first, *rest)] == list(range(COUNT))
    for chunk in (first, *rest):
        uploads.on_acked(chunk)
    uploads.begin("up", PACKET, PROBE_S, is_again=True)
    assert take_all(uploads, PROBE_S) == []
    uploads.begin("up", PACKET, 1.0 + PROBE_S, is_again=True)
    assert [chunk.index for chunk in take_all(uploads, 1.0 + PROBE_S)] == [COUNT - 1]


def test_what_another_process_may_have_sent_begins_with_its_last_chunk() -> None:
    """After a restart the miners say what they lack, and only that is sent."""
    uploads = begin(is_again=True)
    assert [chunk.index for chunk in take_all(uploads)] == [COUNT - 1]
    uploads.want(take_digest(), ((2, 3),), 0.1)
    assert [chunk.index for chunk in take_all(uploads)] == [2, 3, 4]


def take_digest() -> bytes:
    chunk = begin().take(WINDOW, 0.0)
    assert chunk is not None
    return chunk.digest


def test_what_four_miners_lack_is_sent_once() -> None:
    """A chunk that is under way, or was sent a moment ago, is not sent for the next miner that asks; later it is."""
    uploads = begin()
    taken = take_all(uploads, 0.0)
    digest = taken[0].digest
    uploads.want(digest, ((0, COUNT),), AGAIN_S + 1)  # all under way
    assert take_all(uploads, AGAIN_S + 1) == []
    for chunk in taken:
        uploads.on_acked(chunk)
    for now_s, wanted in ((AGAIN_S / 2, []), (AGAIN_S, [4, 5]), (AGAIN_S + 1, [])):
        uploads.want(digest, ((4, 2),), now_s)
        again = take_all(uploads, now_s)
        assert [chunk.index for chunk in again] == wanted
        for chunk in again:
            uploads.on_acked(chunk)


def test_ranges_that_are_none_of_ours_send_nothing() -> None:
    """Another packet's, and chunks beyond the end."""
    uploads = begin(is_again=True)
    take_all(uploads)
    uploads.want(b"d" * 32, ((0, 5),), 9.0)
    uploads.want(take_digest(), ((COUNT, 2**53),), 9.0)
    assert take_all(uploads, 9.0) == []


def test_a_packet_that_is_of_no_use_any_more_is_not_sent_on() -> None:
    """Its round is over: what is left of it leaves the link to what matters."""
    uploads = begin()
    first = uploads.take(WINDOW, 0.0)
    uploads.cancel(PACKET)
    assert first is not None
    uploads.on_acked(first)
    uploads.on_lost([first])
    assert take_all(uploads) == []


def test_few_packets_are_kept() -> None:
    """Packets that are done make room first; without any the oldest goes."""
    uploads = ChunkedUploads()
    packets = [PACKET + bytes((number,)) for number in range(UPLOADS_MAX + 2)]
    for packet in packets[:2]:
        uploads.begin("up", packet, 0.0)
    for chunk in take_all(uploads):
        if chunk.index == COUNT - 1 and chunk.payload.endswith(b"\1"):
            digest = chunk.digest
        uploads.on_acked(chunk)
    for packet in packets[2:]:
        uploads.begin("up", packet, 0.0)
    assert {chunk.payload[-1] for chunk in take_all(uploads) if chunk.index == COUNT - 1} == {2, 3, 4, 5}
    uploads.want(digest, ((0, 1),), 99.0)
    assert take_all(uploads, 99.0) == []


# ------------------------------------------------------------------------------------------------- the link's rate


def run_link(rate: UplinkRate, bytes_per_s: float, delay_s: float, seconds: float) -> float:
    """A way that carries so much, with a queue before it, kept filled up to the window; the longest wait in it."""
    now_s, free_s, number, longest, sent_bytes = 0.0, 0.0, 0, 0.0, 0
    under_way: list[tuple[float, int, int]] = []
    size = DEVICE_CHUNK_BYTES
    while now_s < seconds:
        while not under_way or sent_bytes + size <= rate.compute_window_bytes():
            rate.on_sent(number, size, now_s)
            free_s = max(free_s, now_s) + size / bytes_per_s
            longest = max(longest, free_s - now_s) if now_s > seconds / 2 else 0.0
            under_way.append((free_s + delay_s, number, size))
            sent_bytes, number = sent_bytes + size, number + 1
        arrived_s, acked, _ = under_way.pop(0)
        now_s, sent_bytes = arrived_s, sent_bytes - size
        rate.on_acked(acked, now_s)
    return longest


def test_the_rate_of_a_way_is_found_and_its_queue_stays_short() -> None:
    """Slow or fast, near or far: within a quarter of what it carries, and little waits beyond what fills it."""
    for bytes_per_s, delay_s in ((8_000, 0.05), (8_000, 0.6), (125_000, 0.05), (1_250_000, 0.3), (12_500_000, 0.001)):
        rate = UplinkRate()
        longest_s = run_link(rate, bytes_per_s, delay_s, 30.0)
        most = min(bytes_per_s, WINDOW_BYTES_MAX / delay_s)
        assert rate.bytes_per_s is not None and 0.75 * most <= rate.bytes_per_s <= 1.25 * most, (bytes_per_s, delay_s)
        assert longest_s <= WINDOW_BYTES_MIN / bytes_per_s + 2 * QUEUE_S + 2 * DEVICE_CHUNK_BYTES / bytes_per_s


def test_a_break_is_no_measurement() -> None:
    """What was under way when the link broke says nothing about its rate, nor do unknown acknowledgements."""
    rate = UplinkRate()
    assert rate.compute_window_bytes() == WINDOW_BYTES_MIN
    rate.on_sent(1, 10_000, 0.0)
    rate.on_lost()
    rate.on_acked(1, 100.0)
    assert rate.bytes_per_s is None


# ------------------------------------------------------------------------------------------- what miners have sent


def test_sent_packets_are_found_by_digest_while_there_is_room() -> None:
    """Chunks as they were cut at first, a bounded number an answer; of too many packets the oldest is forgotten."""
    sent = SentPackets()
    digest = sent.put(PACKET, DEVICE_CHUNK_BYTES)
    assert sent.put(PACKET, 2 * DEVICE_CHUNK_BYTES) == digest
    assert [decode_packet(payload).fields[1:3] for payload in sent.build_chunks(digest, ((8, 99),))] == [
        (8, COUNT),
        (9, COUNT),
    ]
    assert len(list(sent.build_chunks(digest, ((0, 10),) * 8))) == CHUNKS_PER_ANSWER_MAX
    assert list(sent.build_chunks(b"d" * 32, ((0, 1),))) == []
    for number in range(SENT_PACKETS_MAX):
        sent.put(b"%d" % number, DEVICE_CHUNK_BYTES)
    assert list(sent.build_chunks(digest, ((0, 1),))) == []
