"""A sender's own times, put on our boot clock: its steps are kept, its clock is not believed."""

from __future__ import annotations

RESYNC_US = 10_000_000
"""A sender whose time is further from arrival than this has been set, started anew, or was cut off."""
DRIFT = 200e-6
"""How fast the shift may grow, us for each us: two cheap crystals drift apart by less, and delays change by more."""


class SenderClock:
    """Shift from the sender's clock to ours: its least delay so far, slowly raised so that it follows drift.

    The least delay is the best guess of the way without waiting: what waited in a queue came later, not earlier.
    """

    def __init__(self) -> None:
        self._shift_us: float | None = None
        self._arrived_us = 0

    def date(self, said_s: float, arrived_us: int) -> int:
        """The instant on our clock of what the sender dates `said_s` (its seconds) and we got at arrived_us."""
        shift_us = arrived_us - said_s * 1e6
        if self._shift_us is None or abs(shift_us - self._shift_us) > RESYNC_US:
            self._shift_us = shift_us
        else:
            self._shift_us = min(shift_us, self._shift_us + (arrived_us - self._arrived_us) * DRIFT)
        self._arrived_us = arrived_us
        return min(arrived_us, round(said_s * 1e6 + self._shift_us))
