"""Virtual time: what is to happen, in order."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial


class Timeline:
    """A clock in ms that jumps from one planned call to the next. Nothing in it depends on the machine's own clock."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.events = 0
        """How many calls were made so far."""
        self._planned: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0

    def at(self, delay_ms: int, do: Callable[..., None], *arguments: object) -> None:
        """Plan a call; calls of the same instant are made in the order in which they were planned."""
        self._sequence += 1
        planned = partial(do, *arguments) if arguments else do
        heapq.heappush(self._planned, (self.now_ms + delay_ms, self._sequence, planned))

    def run(self, is_over: Callable[[], bool], *, end_ms: int, events_max: int) -> bool:
        """Make the planned calls until `is_over` or none is left.

        Return False if that takes longer than `end_ms` or more than `events_max` calls: the network has stalled.
        """
        while self._planned and not is_over():
            self.now_ms, _, do = heapq.heappop(self._planned)
            self.events += 1
            if self.now_ms > end_ms or self.events > events_max:
                return False
            do()
        return True
