"""The base of both runners: one queue of events, timers by key, and the signals that end a process."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from flchain.base.types import Millis, UnixMillis
from flchain.machines.events import Connected, PacketReceived
from flchain_edge.mqtt.inbox import Inbox, LinkDown, LinkEvent, LinkUp, Received
from flchain_edge.newer_python import assert_never

log = logging.getLogger(__name__)


def read_clocks() -> tuple[Millis, UnixMillis]:
    """Return the present time by the monotonic clock and by the wall clock, which machines get with every event."""
    return Millis(time.monotonic_ns() // 1_000_000), UnixMillis(time.time_ns() // 1_000_000)


EventT = TypeVar("EventT")


class EventQueue(Generic[EventT]):
    """One queue of link events (bounded) and the node's own (timers, results: as many as were asked for).

    Link events come out as the events that both machines know, so that a runner has nothing to sort.

    The node's own come first: a result must not wait behind a burst of messages.
    """

    def __init__(self) -> None:
        self._own: deque[EventT] = deque()
        self._inbox = Inbox()
        self._wake = asyncio.Event()
        self._timers: dict[Hashable, asyncio.TimerHandle] = {}
        self.taken = 0
        """How many events the owner has taken."""
        self.is_awaited = False
        """True while the owner waits for an event, having processed all others."""

    def post(self, event: EventT) -> None:
        """Add one of the node's own events, from the loop's thread."""
        self._own.append(event)
        self._wake.set()

    def on_link_event(self, event: LinkEvent) -> bool:
        """Add an event of the MQTT link, or return False if the inbox is full."""
        is_taken = self._inbox.put(event)
        self._wake.set()
        return is_taken

    def start_timer(self, key: Hashable, delay_ms: int, event: EventT) -> None:
        """Post `event` after `delay_ms`. Replace a timer of the same key."""
        if (running := self._timers.pop(key, None)) is not None:
            running.cancel()
        loop = asyncio.get_running_loop()
        self._timers[key] = loop.call_later(delay_ms / 1000, self._fire, key, event)

    def _fire(self, key: Hashable, event: EventT) -> None:
        self._timers.pop(key, None)
        self.post(event)

    def stop_timers(self) -> None:
        """Cancel all timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    async def get(self) -> EventT | PacketReceived | Connected:
        """Return the next event, waiting for one if there is none."""
        while (event := self._take()) is None:
            self._wake.clear()
            self.is_awaited = True
            try:
                await self._wake.wait()
            finally:
                self.is_awaited = False
        self.taken += 1
        return event

    def _take(self) -> EventT | PacketReceived | Connected | None:
        if self._own:
            return self._own.popleft()
        while (event := self._inbox.get_nowait()) is not None:
            match event:
                case Received(topic, payload):
                    return PacketReceived(topic, payload)
                case LinkUp():
                    return Connected()
                case LinkDown():
                    pass  # no machine acts on it: what is published now is lost, and published again after `Connected`
                case _:
                    assert_never(event)
        return None


class RefusalCounter:
    """Counts refused messages by reason. It logs the 1st, 10th, 100th and so on: a flood must not flood the log."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, code: str, detail: str) -> None:
        """Count one refusal."""
        self.counts[code] += 1
        count = self.counts[code]
        level = logging.WARNING if count == 10 ** (len(str(count)) - 1) else logging.DEBUG
        log.log(level, "message refused", extra={"reason": code, "count": count, "detail": detail})


def on_reload(act: Callable[[], None]) -> None:
    """Call `act` on every SIGHUP (`systemctl reload`) from now on. Without it a SIGHUP ends the process."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, act)


async def run_until_signal(main: asyncio.Task[None]) -> None:
    """Wait for `main`; SIGINT and SIGTERM cancel it, which ends it cleanly. Raise what it raises."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, main.cancel)
    try:
        await main
    except asyncio.CancelledError:
        log.info("stopping on a signal")
