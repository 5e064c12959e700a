"""Tell systemd about a service over NOTIFY_SOCKET (sd_notify(3)): ready, status, watchdog, stopping.

The watchdog is fed only while the node makes progress: a loop that turns for an owner that hangs is dead, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, MutableMapping
from typing import Any

from flchain_edge.mqtt.inbox import LinkDown, LinkEvent, LinkUp
from flchain_edge.process.event_loop import EventQueue

log = logging.getLogger(__name__)

STATUS_BYTES_MAX = 512
"""Longest status line; a longer one is cut."""
TICK_S_MAX = 10.0
START_EXTENSION_S = 60
"""A board without network waits for its broker as long as it takes: the time allowed for the start is extended while
the loop turns."""
_US_PER_S = 1_000_000


class Notifier:
    """Sends datagrams to the service manager, if there is one. Never raises and never blocks."""

    def __init__(self, environ: MutableMapping[str, str] | None = None) -> None:
        """Take NOTIFY_SOCKET and WATCHDOG_* out of the environment: a child process must not speak for this one."""
        environ = os.environ if environ is None else environ
        address = environ.pop("NOTIFY_SOCKET", "")
        watchdog_us, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        is_for_us = not pid or pid == str(os.getpid())
        self.watchdog_s = int(watchdog_us) / _US_PER_S if watchdog_us.isdigit() and is_for_us else 0.0
        """Seconds of silence after which this process is killed; 0 without a watchdog."""

    @property
    def is_heard(self) -> bool:
        """Return whether a service manager listens."""
        return bool(self._address)

    def send(self, *assignments: str) -> bool:
        """Send lines of NAME=value as one datagram; return False if nobody took it."""
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(assignments).encode(), self._address)
        except OSError as error:  # a manager that does not read must not stop a node
            log.debug("the service manager did not listen", extra={"cause": error})
            return False
        return True


def _clean(status: str) -> str:
    """Return the status as one line of the allowed length."""
    line = "".join(mark if mark.isprintable() else " " for mark in status)
    return line.encode()[:STATUS_BYTES_MAX].decode(errors="ignore")


class ServiceReport:
    """Tells the manager about one node: ready at the first connection, then its status, and that it makes progress.

    `describe`, given to `reporting`, makes the status line at every tick. Progress means that events are taken from the
    queue, or that none waits: a node that does not fetch its next event is fed no more, and is killed and restarted.
    """

    def __init__(self, notifier: Notifier, queue: EventQueue[Any]) -> None:
        self._notifier = notifier
        self._queue = queue
        self._describe: Callable[[], str] = lambda: "starting"
        self._is_ready = False
        """Whether the manager has heard it: a datagram that finds it too busy is lost."""
        self._is_connected = False
        self._was_connected = False
        self._taken = -1
        self._said = ""

    def relay(self, deliver: Callable[[LinkEvent], bool]) -> Callable[[LinkEvent], bool]:
        """Return a handler of link events that notes connections and passes all events on to `deliver`."""

        def on_link_event(event: LinkEvent) -> bool:
            is_taken = deliver(event)
            if isinstance(event, LinkUp | LinkDown):
                self._is_connected = isinstance(event, LinkUp)
                self._was_connected |= self._is_connected
                self.tell()
            return is_taken

        return on_link_event

    def tell(self) -> None:
        """Send READY until it is heard, the status if it has changed, and a feed if the node makes progress."""
        if self._was_connected and not self._is_ready:
            self._is_ready = self._notifier.send("READY=1")
        where = "" if self._is_connected else "no broker; "
        status = _clean(where + self._describe())
        lines = [f"STATUS={status}"] if status != self._said else []
        if self.is_getting_on():
            lines.append("WATCHDOG=1" if self._is_ready else f"EXTEND_TIMEOUT_USEC={START_EXTENSION_S * _US_PER_S}")
        if lines and self._notifier.send(*lines):
            self._said = status

    def is_getting_on(self) -> bool:
        """Return whether the node waits for events, or has taken some since the last call."""
        before, self._taken = self._taken, self._queue.taken
        return self._queue.is_awaited or self._taken != before

    async def run(self) -> None:
        """Report until cancelled, at least four times in the watchdog's time."""
        if not self._notifier.is_heard:
            return
        tick_s = min(TICK_S_MAX, self._notifier.watchdog_s / 4) if self._notifier.watchdog_s else TICK_S_MAX
        while True:
            self.tell()
            await asyncio.sleep(tick_s)

    @contextlib.asynccontextmanager
    async def reporting(self, describe: Callable[[], str]) -> AsyncIterator[None]:
        """Report while the block runs; at its end, that the node is stopping."""
        self._describe = describe
        task = asyncio.create_task(self.run(), name="service-report")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait((task,))
            self._notifier.send("STOPPING=1", "STATUS=stopping")
