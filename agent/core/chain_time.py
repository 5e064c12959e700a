"""What time it is, by the chain: boards have no clock of their own, and after a boot theirs may say anything.

The rule, in one place:
- Until a certified header was heard in this life of the process, nothing is trained and nothing is said about a round;
  a question (Ask) is the exception, as it is how a header is asked for. It holds no time and decides nothing.
- From then on it is never earlier than that header's time and what has passed since, by the monotonic clock. A clock
  that is behind is wrong and is not asked. One that is ahead looks like a long absence: trust has expired then.
- Ages that matter (`flchain.light.trust`, the renewal of certificates) are judged by this time only.
"""

from __future__ import annotations

from dataclasses import dataclass

from flchain.base.types import Millis, UnixMillis


@dataclass(frozen=True)
class ChainTime:
    """The newest certified header's time, and when it was heard by this machine's monotonic clock."""

    header_ms: UnixMillis
    heard_ms: Millis


def compute_time(known: ChainTime | None, clock_ms: UnixMillis, now_ms: Millis) -> UnixMillis:
    """The world's time as far as it is known: the clock's, unless the chain proves that it is later."""
    if known is None:
        return clock_ms
    return UnixMillis(max(clock_ms, known.header_ms + max(0, now_ms - known.heard_ms)))
