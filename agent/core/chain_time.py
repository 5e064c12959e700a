"""What time it is, according to the chain: a board has no clock of its own, and after a boot it may show any time.

The rule, in one place:
- Until this process has received a certified header, nothing is trained and nothing is sent about a round. Questions
  (Ask) are the exception: they are how a header is asked for, hold no time and decide nothing.
- From then on the time is never earlier than that header's time plus what has passed since by the monotonic clock. A
  clock that is behind is wrong and is ignored. One that is ahead looks like a long absence: trust has expired then.
- Ages that matter (`flchain.light.trust`, the renewal of certificates) are judged by this time only.
"""

from __future__ import annotations

from dataclasses import dataclass

from flchain.base.frozen import replace
from flchain.base.types import EARLIEST, Millis, UnixMillis

BEFORE_ANYTHING = Millis(0)


@dataclass(frozen=True)
class ChainTime:
    """The newest certified header's time, and when it arrived by this machine's monotonic clock."""

    header_ms: UnixMillis
    heard_ms: Millis


@dataclass(frozen=True)
class Clock:
    """What the machine knows of time, as of the newest event."""

    now_ms: Millis = BEFORE_ANYTHING
    """By the monotonic clock: it times what waits."""
    time_ms: UnixMillis = EARLIEST
    """The world's time, see `compute_time`."""
    chain: ChainTime | None = None
    """None until this process has received a certified header."""


def compute_time(chain: ChainTime | None, clock_ms: UnixMillis, now_ms: Millis) -> UnixMillis:
    """Return the world's time as far as it is known: the clock's, unless the chain proves that it is later."""
    if chain is None:
        return clock_ms
    return UnixMillis(max(clock_ms, chain.header_ms + max(0, now_ms - chain.heard_ms)))


def advance_clock(clock: Clock, now_ms: Millis, clock_ms: UnixMillis) -> Clock:
    """Return the clock at an event. `clock_ms` is this machine's wall clock and may be wrong."""
    return replace(clock, now_ms=now_ms, time_ms=compute_time(clock.chain, clock_ms, now_ms))


def learn_time(clock: Clock, header_ms: UnixMillis) -> Clock:
    """Return the clock after a certified header: it is no earlier than the header says."""
    chain = ChainTime(header_ms, clock.now_ms)
    return replace(clock, chain=chain, time_ms=compute_time(chain, clock.time_ms, clock.now_ms))
