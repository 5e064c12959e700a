"""Map a sender's own times to our boot clock: its intervals are kept, its clock is not trusted."""

from __future__ import annotations

RESYNC_US = 10_000_000
"""A sender whose time is further from arrival than this had its clock set, was restarted, or was cut off."""
DRIFT = 200e-6
"""How fast the shift may grow, us a us: two cheap crystals drift apart more slowly, and delays vary faster."""


class SenderClock:
    """The shift from the sender's clock to ours: the least delay so far, slowly raised so that it follows drift.

    The least delay is the best estimate of the way without queueing: a queue makes messages later, never earlier.
    """

    def __init__(self) -> None:
        self._shift_us: float | None = None
        self._arrived_us = 0

    def date(self, said_s: float, arrived_us: int) -> int:
        """Return the instant on our clock of a message dated `said_s` (sender's seconds) that came at arrived_us."""
        shift_us = arrived_us - said_s * 1e6
        if self._shift_us is None or abs(shift_us - self._shift_us) > RESYNC_US:
            self._shift_us = shift_us
        else:
            self._shift_us = min(shift_us, self._shift_us + (arrived_us - self._arrived_us) * DRIFT)
        self._arrived_us = arrived_us
        return min(arrived_us, round(said_s * 1e6 + self._shift_us))
