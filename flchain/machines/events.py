"""Events that every machine takes, on either side. What only one side takes stands in its own `values.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from flchain.base.types import Round
from flchain.rules.score_words import Subject

TimerT_co = TypeVar("TimerT_co", covariant=True)
"""The side's own names for its timers."""


@dataclass(frozen=True)
class PacketReceived:
    """An MQTT payload as it arrived."""

    topic: str
    payload: bytes


@dataclass(frozen=True)
class TimerFired(Generic[TimerT_co]):
    """The delay of a `StartTimer` is over."""

    timer: TimerT_co


@dataclass(frozen=True)
class Connected:
    """The link to the broker is up (again): whatever was under way on the old one is lost."""


@dataclass(frozen=True)
class ScoreComputed:
    """The scorer's answer to `ComputeScore`: accuracy in basis points, on data that this node does not train on."""

    round: Round
    subject: Subject
    score: int
