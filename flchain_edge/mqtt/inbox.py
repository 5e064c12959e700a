"""The events that a link hands to its owner, and a bounded queue for them."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TypeAlias

INBOX_MESSAGES_MAX = 4096
"""Messages that may wait for the owner. When full, the arriving message is dropped and counted: what already waits is
older, so nearer to its deadline, and peers repeat what got no receipt."""
INBOX_BYTES_MAX = 32 * 1024 * 1024
"""Payload bytes that may wait, so that a few thousand large bodies do not exhaust a small board."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message from the broker. `retained`: the broker had stored it, so it may be old."""

    topic: str
    payload: bytes
    retained: bool


@dataclass(frozen=True, slots=True)
class LinkUp:
    """The broker has accepted the connection and the subscriptions are on their way; publishing works from now on."""


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The connection is lost, and with it every message that had no receipt: repeat those after `LinkUp`."""

    reason: str


LinkEvent: TypeAlias = Received | LinkUp | LinkDown


class Inbox:
    """A bounded first-in-first-out queue of link events, for one loop."""

    def __init__(self, messages_max: int = INBOX_MESSAGES_MAX, bytes_max: int = INBOX_BYTES_MAX) -> None:
        self._events: deque[LinkEvent] = deque()
        self._filled = asyncio.Event()
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._messages = 0
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: LinkEvent) -> bool:
        """Append an event, or return False if a message does not fit. Other events always fit (`_is_flapping`)."""
        if isinstance(event, Received):
            if self._messages >= self._messages_max or self._bytes + len(event.payload) > self._bytes_max:
                return False
            self._messages += 1
            self._bytes += len(event.payload)
        elif self._is_flapping(event):
            self._events.pop()
            return True
        self._events.append(event)
        self._filled.set()
        return True

    def _is_flapping(self, event: LinkEvent) -> bool:
        """Return whether the queue ends with "down, up" and the link is down again: then the older "down" is enough.

        This bounds connection events to three between two messages, even if the owner never reads.
        """
        return (
            isinstance(event, LinkDown)
            and len(self._events) >= 2
            and isinstance(self._events[-1], LinkUp)
            and isinstance(self._events[-2], LinkDown)
        )

    def get_nowait(self) -> LinkEvent | None:
        """Return the oldest event, or None."""
        if not self._events:
            return None
        event = self._events.popleft()
        if isinstance(event, Received):
            self._messages -= 1
            self._bytes -= len(event.payload)
        return event

    async def get(self) -> LinkEvent:
        """Return the oldest event, waiting for one if there is none."""
        while (event := self.get_nowait()) is None:
            self._filled.clear()
            await self._filled.wait()
        return event
