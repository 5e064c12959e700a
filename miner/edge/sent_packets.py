"""Long packets that this node has sent, kept for a while: a node that lacks chunks asks for them by the digest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from flchain.wire.chunks import Ranges, build_chunk, count_chunks, hash_packet, iterate_indices

SENT_PACKETS_MAX = 32
SENT_BYTES_MAX = 64 * 1024 * 1024
"""The most bytes of all kept packets. The one least recently sent or asked for is dropped first; the newest stays."""
CHUNKS_PER_ANSWER_MAX = 64


class SentPackets:
    """A few packets by digest, with the length of their chunks."""

    def __init__(self) -> None:
        self._kept: dict[bytes, tuple[bytes, int]] = {}

    def put(self, packet: bytes, chunk_bytes: int) -> bytes:
        """Keep a packet; return its digest. Its chunks keep their first length, since others may hold some of them."""
        digest = hash_packet(packet)
        known = self._kept.pop(digest, (packet, chunk_bytes))
        self._kept[digest] = known
        total = sum(len(kept) for kept, _ in self._kept.values())
        while len(self._kept) > SENT_PACKETS_MAX or (total > SENT_BYTES_MAX and len(self._kept) > 1):
            oldest = next(iter(self._kept))
            total -= len(self._kept.pop(oldest)[0])
        return digest

    def build_chunks(self, digest: bytes, ranges: Ranges) -> Iterator[bytes]:
        """Yield the MQTT payloads of these chunks, at most CHUNKS_PER_ANSWER_MAX; none of a packet that is not kept."""
        if digest not in self._kept:
            return
        packet, chunk_bytes = self._kept[digest] = self._kept.pop(digest)
        indices: Iterable[int] = iterate_indices(ranges, count_chunks(packet, chunk_bytes), CHUNKS_PER_ANSWER_MAX)
        for index in indices:
            yield build_chunk(packet, digest, index, chunk_bytes)
