"""Measure the rate to the broker by what it acknowledges, in bytes a second, and how much may be under way at once.

Delivery rate as in BBR (Cardwell et al. 2016, ACM Queue 14.5): what was acknowledged between the sending of a message
and its own acknowledgement, over that time. Short messages say little about the rate and do not count.
"""

from __future__ import annotations

from dataclasses import dataclass, field

SAMPLE_BYTES_MIN = 1_024
"""Shorter messages measure the delay of the path, not its rate."""
NEW_SHARE = 0.25
"""Weight of a new sample in the estimate."""
WINDOW_BYTES_MIN = 8_192
WINDOW_BYTES_MAX = 1_048_576
QUEUE_S = 0.25
"""Queue beyond what fills the path, in seconds of sending: an urgent message waits behind no more than this."""


@dataclass
class UplinkRate:
    """The estimate of one process. It outlives connections, which all take the same path."""

    bytes_per_s: float | None = None
    """None before the first sample."""
    delay_s: float | None = None
    """The shortest time from sending to acknowledgement that was seen."""
    _acked_bytes: int = 0
    _sent: dict[int, tuple[int, float, int]] = field(default_factory=dict)

    def on_sent(self, message: int, size: int, now_s: float) -> None:
        """Note that a message of this many bytes was handed to the connection under the number `message`."""
        self._sent[message] = (size, now_s, self._acked_bytes)

    def on_acked(self, message: int, now_s: float) -> None:
        """Note that the broker has acknowledged a message. Ignore unknown ones."""
        if message not in self._sent:
            return
        size, sent_s, acked_before = self._sent.pop(message)
        self._acked_bytes += size
        took_s = max(now_s - sent_s, 1e-6)
        if size < SAMPLE_BYTES_MIN:
            return
        self.delay_s = took_s if self.delay_s is None else min(self.delay_s, took_s)
        sample = (self._acked_bytes - acked_before) / took_s
        before = sample if self.bytes_per_s is None else self.bytes_per_s
        self.bytes_per_s = before + NEW_SHARE * (sample - before)

    def on_lost(self) -> None:
        """Forget what was under way: the connection is lost."""
        self._sent.clear()

    def compute_window_bytes(self) -> int:
        """Return how many bytes of patient traffic may be under way: what fills the path, and QUEUE_S of queue."""
        if self.bytes_per_s is None or self.delay_s is None:
            return WINDOW_BYTES_MIN
        window = self.bytes_per_s * (self.delay_s + QUEUE_S)
        return int(min(WINDOW_BYTES_MAX, max(WINDOW_BYTES_MIN, window)))
