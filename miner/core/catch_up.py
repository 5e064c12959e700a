"""What a miner does while it is silent (see `miner.edge.ledger.resync`): it only asks for final blocks and takes them.

It ignores votes and proposals, and its consensus has no timers, so it cannot decide anything either.
"""

from __future__ import annotations

from flchain.base.errors import InvalidMessage
from flchain.base.types import Hash
from flchain.wire.envelope import open_envelope
from flchain.wire.fields import Kind
from flchain.wire.packets import PacketType, decode_packet
from flchain.wire.topics import read_topic_channel
from miner.core.values import (
    Effect,
    Event,
    Note,
    PacketReceived,
    Publish,
    Refuse,
    SaveBlock,
    SaveState,
    StartTimer,
    Timer,
    TimerFired,
)

CHANNELS = frozenset({"head", "to"})
"""Peers' newest headers, and their answers."""


def is_heard(event: Event) -> bool:
    """True for events that lead to final blocks."""
    match event:
        case PacketReceived(topic):
            try:
                return read_topic_channel(topic) in CHANNELS
            except InvalidMessage:
                return False
        case TimerFired(Timer.ASK):
            return True
    return False


def select_effects(effects: tuple[Effect, ...], chain: Hash) -> tuple[Effect, ...]:
    """Return those of the machine's effects that sign nothing about a block."""
    return tuple(effect for effect in effects if _is_harmless(effect, chain))


def _is_harmless(effect: Effect, chain: Hash) -> bool:
    match effect:
        case SaveBlock() | SaveState() | Refuse() | Note() | StartTimer(Timer.ASK):
            return True
        case Publish(_, packet):
            decoded = decode_packet(packet)
            return decoded.type is PacketType.MESSAGE and open_envelope(decoded.fields[0], chain).kind is Kind.ASK
    return False
