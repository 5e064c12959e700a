"""How fast the way to the broker is, by what it acknowledges: bytes a second, and how much may be under way at once.

Delivery rate as in BBR (Cardwell et al. 2016, ACM Queue 14.5): what was acknowledged between the sending of a message
and its own acknowledgement, over that time. Short messages tell little of the rate and do not count.
"""

from __future__ import annotations

from dataclasses import dataclass, field

SAMPLE_BYTES_MIN = 1_024
"""Shorter messages measure the delay of the way, not its rate."""
NEW_SHARE = 0.25
"""Of a new sample in the estimate."""
WINDOW_BYTES_MIN = 8_192
WINDOW_BYTES_MAX = 1_048_576
QUEUE_S = 0.25
"""What may wait beyond what fills the way, in seconds: a message that matters waits behind no more."""


@dataclass
class UplinkRate:
    """The estimate of one process; it outlives connections, since they go the same way."""

    bytes_per_s: float | None = None
    """None before the first sample."""
    delay_s: float | None = None
    """The shortest time from sending to acknowledgement that was seen."""
    _acked_bytes: int = 0
    _sent: dict[int, tuple[int, float, int]] = field(default_factory=dict)

    def on_sent(self, message: int, size: int, now_s: float) -> None:
        """A message of this many bytes was handed to the connection; `message` names it until it is acknowledged."""
        self._sent[message] = (size, now_s, self._acked_bytes)

    def on_acked(self, message: int, now_s: float) -> None:
        """The broker has it. Unknown ones are ignored."""
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
        """The connection is gone, and with it what was under way."""
        self._sent.clear()

    def compute_window_bytes(self) -> int:
        """How much that can wait may be under way: what the way holds, and QUEUE_S more, since it may hold more."""
        if self.bytes_per_s is None or self.delay_s is None:
            return WINDOW_BYTES_MIN
        window = self.bytes_per_s * (self.delay_s + QUEUE_S)
        return int(min(WINDOW_BYTES_MAX, max(WINDOW_BYTES_MIN, window)))
