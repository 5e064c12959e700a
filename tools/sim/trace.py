"""What happened in a run: a hash over every event, by which two runs are compared, and the newest refusals."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import agent.core.values as av
import miner.core.values as mv

LINES_MAX = 50


class Trace:
    """Two runs with the same `hash` had the same events in the same order."""

    def __init__(self) -> None:
        self._hash = sha256()
        self.lines: list[str] = []
        """The newest refusals, for a person who looks for the cause of a failure."""

    @property
    def hash(self) -> str:
        """Return the SHA-256 over every event so far, as hex digits."""
        return self._hash.hexdigest()

    def record(self, now_ms: int, *what: object) -> None:
        """Put an event into the hash."""
        self._hash.update(f"{now_ms} {what}\n".encode())

    def add_line(self, line: str) -> None:
        """Keep a line; only the newest LINES_MAX are kept."""
        self.lines.append(line)
        del self.lines[:-LINES_MAX]


def describe_event(event: Any) -> str:
    """Return what tells this event from any other, the same in every process."""
    match event:
        case mv.PacketReceived(topic, payload) | av.PacketReceived(topic, payload):
            return f"{topic} {sha256(payload).hexdigest()}"
        case mv.TimerFired(timer) | av.TimerFired(timer):
            return str(timer)
        case av.TrainingDone():
            return f"trained {event.round} {sha256(event.delta.tobytes()).hexdigest()}"
    return repr(event)
