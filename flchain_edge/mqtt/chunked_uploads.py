"""Long packets on their way from a device: in chunks, few under way at once, continued where a broken link left off.

There is no input or output here: the link asks what to send next. An acknowledged chunk is not sent again unless a
miner asks for it. A packet that may have been sent before, by this or another process, starts with its last chunk:
miners answer that with a receipt, or with a list of what they lack.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from flchain.wire.chunks import DEVICE_CHUNK_BYTES, Ranges, build_chunk, count_chunks, hash_packet, iterate_indices

UPLOADS_MAX = 4
"""Packets kept, whether under way or done. A further one displaces the oldest that is done, or the oldest."""
PROBE_S = 10.0
"""Shortest time before the last chunk of a packet that was sent whole is sent again, to ask what miners lack."""
AGAIN_S = 3.0
"""A chunk that was sent less than this long ago is not sent again: four miners ask for the same ones."""


@dataclass(frozen=True)
class Chunk:
    """One MQTT payload to send now."""

    topic: str
    payload: bytes
    digest: bytes
    index: int


@dataclass
class _Upload:
    topic: str
    packet: bytes
    digest: bytes
    waiting: dict[int, None] = field(default_factory=dict)
    """Indices to send, in this order."""
    under_way: dict[int, int] = field(default_factory=dict)
    """Sizes in bytes by index, not acknowledged yet."""
    sent_s: dict[int, float] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return count_chunks(self.packet, DEVICE_CHUNK_BYTES)

    @property
    def is_done(self) -> bool:
        return not self.waiting and not self.under_way


class ChunkedUploads:
    """The long packets of one process."""

    def __init__(self) -> None:
        self._uploads: dict[bytes, _Upload] = {}

    def __bool__(self) -> bool:
        """Whether any packet is kept here."""
        return bool(self._uploads)

    def begin(self, topic: str, packet: bytes, now_s: float, *, is_again: bool = False) -> None:
        """Send a packet, unless it is on its way already. `is_again`: another process may have sent it before."""
        digest = hash_packet(packet)
        known = self._uploads.get(digest)
        if known is None:
            known = _Upload(topic, packet, digest)
            first = known.count - 1 if is_again else 0
            known.waiting = dict.fromkeys(range(first, known.count))
            self._make_room()
            self._uploads[digest] = known
        elif known.is_done and now_s - known.sent_s.get(known.count - 1, now_s) >= PROBE_S:
            known.waiting = {known.count - 1: None}

    def cancel(self, packet: bytes) -> None:
        """Send no more of a packet; what is under way cannot be called back."""
        self._uploads.pop(hash_packet(packet), None)

    def want(self, digest: bytes, ranges: Ranges, now_s: float) -> None:
        """Send these chunks again, which a miner lacks; but none of an unknown packet, and none that was just sent."""
        upload = self._uploads.get(digest)
        if upload is None:
            return
        for index in iterate_indices(ranges, upload.count, upload.count):
            is_new = now_s - upload.sent_s.get(index, -AGAIN_S) >= AGAIN_S
            if index not in upload.under_way and is_new:
                upload.waiting[index] = None

    def take(self, window_bytes: int, now_s: float) -> Chunk | None:
        """Return the next chunk if it fits into `window_bytes` under way, or if nothing else is under way."""
        under_way = sum(sum(upload.under_way.values()) for upload in self._uploads.values())
        for upload in self._uploads.values():
            for index in upload.waiting:
                payload = build_chunk(upload.packet, upload.digest, index, DEVICE_CHUNK_BYTES)
                if under_way and under_way + len(payload) > window_bytes:
                    return None
                del upload.waiting[index]
                upload.under_way[index], upload.sent_s[index] = len(payload), now_s
                return Chunk(upload.topic, payload, upload.digest, index)
        return None

    def on_acked(self, chunk: Chunk) -> None:
        """Note that the broker has acknowledged a chunk."""
        if chunk.digest in self._uploads:
            self._uploads[chunk.digest].under_way.pop(chunk.index, None)

    def on_lost(self, chunks: Iterable[Chunk]) -> None:
        """Send these first once the link is back: it broke before they were acknowledged."""
        for chunk in chunks:
            upload = self._uploads.get(chunk.digest)
            if upload is not None and upload.under_way.pop(chunk.index, None) is not None:
                upload.waiting = dict.fromkeys(sorted({chunk.index, *upload.waiting}))

    def _make_room(self) -> None:
        while len(self._uploads) >= UPLOADS_MAX:
            done = (digest for digest, upload in self._uploads.items() if upload.is_done)
            del self._uploads[next(done, next(iter(self._uploads)))]
