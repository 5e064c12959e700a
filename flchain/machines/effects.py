"""Effects that every machine asks for, on either side. What only one side asks for stands in its own `values.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic

from flchain.base.types import ModelVector, Round
from flchain.machines.events import TimerT_co
from flchain.rules.score_words import Subject
from flchain.wire.chunks import Ranges


@dataclass(frozen=True)
class Publish:
    """Send a packet, in chunks if it is long."""

    topic: str
    packet: bytes
    retain: bool = False
    qos: int = 1
    """0 for a miner's votes and scores: gossip repeats them until the height is final, so no broker need store them."""
    is_pulled: bool = False
    """A miner's answer to one device: only the first chunks of a long packet are sent, the device asks for the others
    at the pace of its link."""
    is_again: bool = False
    """A device has sent it before, perhaps in an earlier process: only the last chunk of a long packet goes out, to ask
    which others are missing."""


@dataclass(frozen=True)
class SendChunks:
    """Send these chunks of a long packet that was sent from here, if it is still kept."""

    topic: str
    digest: bytes
    ranges: Ranges


@dataclass(frozen=True)
class StartTimer(Generic[TimerT_co]):
    """Bring `timer` back as `TimerFired` after `delay_ms`. Starting one again replaces it."""

    timer: TimerT_co
    delay_ms: int


@dataclass(frozen=True, eq=False)
class ComputeScore:
    """Test a model, shape (P,), on this node's own data, and answer with `ScoreComputed`.

    `subject` is None for the base model, a device for its update, a miner for the aggregate of its devices' updates.
    """

    round: Round
    subject: Subject
    model: ModelVector


@dataclass(frozen=True)
class Refuse:
    """A peer's message was dropped and changed nothing: count it under `code`."""

    code: str
    detail: str


@dataclass(frozen=True)
class Note:
    """A log line for the operator, with its fields; `is_fault` if somebody should look into it."""

    text: str
    fields: dict[str, object] = field(default_factory=dict)
    is_fault: bool = False
