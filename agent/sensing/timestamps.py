"""A sender's own times, put on our boot clock: its steps are kept, its clock is not believed."""

from __future__ import annotations

RESYNC_US = 2_000_000
"""A sender whose time is further from arrival than this has been set, started anew, or was cut off."""
LEAK = 1 / 64
"""How fast the shift follows: drift of two crystals is parts in a million, so much slower than any delay changes."""


class SenderClock:
    """Shift from the sender's clock to ours: its least delay so far, slowly raised so that it follows drift.

    The least delay is the best guess of the way without waiting: what waited in a queue came later, not earlier.
    """

    def __init__(self) -> None:
        self._shift_us: float | None = None

    def date(self, said_s: float, arrived_us: int) -> int:
        """The instant on our clock of what the sender dates `said_s` (its seconds) and we got at arrived_us."""
        shift_us = arrived_us - said_s * 1e6
        if self._shift_us is None or abs(shift_us - self._shift_us) > RESYNC_US or shift_us < self._shift_us:
            self._shift_us = shift_us
        else:
            self._shift_us += (shift_us - self._shift_us) * LEAK
        return min(arrived_us, round(said_s * 1e6 + self._shift_us))
