"""Which of several brokers a link connects to: the next after a failure, the preferred one again when it is back."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Callable

from flchain_edge.mqtt.settings import Endpoint
from flchain_edge.newer_python import timeout

BACKOFF_MIN_S = 0.25
BACKOFF_MAX_S = 30.0
STABLE_S = 5.0
"""A connection that lasted this long resets the back-off; a shorter one does not, or two nodes with one client id
would throw each other out at full speed."""
PROBE_TIMEOUT_S = 5.0
RETURN_FACTOR_MAX = 16
"""After each failed return the next one waits longer, up to this many times `return_s`."""


def compute_backoff_s(failures: int, draw: float) -> float:
    """Return the seconds to wait after the n-th failure in a row (from 1): doubling, capped, jittered.

    `draw` is in [0, 1). Half of the delay is jitter: after a broker's restart not all boards must come back at once.
    """
    ceiling = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2.0 ** min(failures - 1, 16))
    return ceiling * (0.5 + 0.5 * draw)


class BrokerChoice:
    """The endpoints in order of preference, and where in that order the link is. `draw` gives numbers of [0, 1)."""

    def __init__(
        self, endpoints: tuple[Endpoint, ...], return_s: int, draw: Callable[[], float] = random.random
    ) -> None:
        self._endpoints = endpoints
        self._return_s = return_s
        self._draw = draw
        self._index = 0
        self._failures = 0
        self._returns_failed = 0
        self._is_return = False

    @property
    def current(self) -> Endpoint:
        """Return where to connect now."""
        return self._endpoints[self._index]

    @property
    def preferred(self) -> Endpoint:
        """Return the first of the list."""
        return self._endpoints[0]

    @property
    def is_stand_in(self) -> bool:
        """Return whether the present broker is not the preferred one."""
        return self._index > 0

    def compute_return_s(self) -> float:
        """Return the seconds on a stand-in before looking for the preferred broker again, jittered like a back-off."""
        return self._return_s * min(RETURN_FACTOR_MAX, 2.0**self._returns_failed) * (1 + self._draw())

    def stay(self) -> float:
        """Choose the same broker again, after a connection that we ended ourselves; return the seconds to wait."""
        return 0.0

    def go_back(self) -> float:
        """Choose the preferred broker, which answers again; return the seconds to wait before it is tried."""
        self._index, self._failures, self._is_return = 0, 0, True
        return 0.0

    def turn(self, lasted_s: float) -> float:
        """Choose the next broker after a connection that failed or ended; return the seconds to wait before trying it.

        The wait grows only after all brokers have failed.
        """
        is_stable = lasted_s >= STABLE_S
        if self._is_return:
            self._returns_failed = 0 if is_stable else self._returns_failed + 1
        self._is_return = False
        self._failures = 1 if is_stable else self._failures + 1
        self._index = (self._index + 1) % len(self._endpoints)
        return compute_backoff_s(1 + (self._failures - 1) // len(self._endpoints), self._draw())


async def is_listening(endpoint: Endpoint, context: ssl.SSLContext | None) -> bool:
    """Return whether a server accepts a connection there and, with TLS, proves to be a broker of ours."""
    try:
        async with timeout(PROBE_TIMEOUT_S):
            _, writer = await asyncio.open_connection(endpoint.host, endpoint.port, ssl=context)
    except (OSError, ValueError):  # a time-out is an OSError
        return False
    writer.transport.abort()
    return True
