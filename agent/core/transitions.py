"""Which event does what in which phase: everything that the machine may do stands in these two tables.

A row of TRANSITIONS is an event; its columns are all phases of the one sub-state that decides what the event may do
(see `state`). An event that has no meaning in a phase has `ignore`, or a handler that says so. A packet means the same
in every phase: PACKET_RULES says which are known on which channel, and all others are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, TypeAlias

from agent.core import chain_news, downloads, following, releases, scoring, update
from agent.core.state import AgentState, Resync, Scorer, Standing, Transition, UpdatePhase, compute_standing
from agent.core.values import (
    Connected,
    Event,
    LeavePlanned,
    MiningAllowed,
    PacketReceived,
    ScoreComputed,
    ScoringFailed,
    Timer,
    TimerFired,
    TrainingDone,
    TrainingFailed,
    WorkHeld,
)
from flchain.base.errors import MalformedMessage, UnknownSender
from flchain.base.types import Address
from flchain.wire.packets import Packet, PacketType, decode_packet
from flchain.wire.topics import Channel, Listener, list_accepted, read_topic_channel, read_topic_owner

EventKind: TypeAlias = type[object] | Timer
"""An event's class; of TimerFired, the timer."""
Handler: TypeAlias = Callable[[AgentState, Any], Transition]
"""Takes the event of its row. Raises InvalidMessage's subclasses for what a peer sent."""
Row: TypeAlias = dict[Enum, Handler]
PacketHandler: TypeAlias = Callable[[AgentState, Address, Packet], Transition]


def ignore(state: AgentState, event: Event) -> Transition:
    """Do nothing: in this phase the event means nothing, or comes from what is over."""
    return state, ()


def on_packet(state: AgentState, event: PacketReceived) -> Transition:
    """Find the handler of a miner's packet, or of an operator's; a chunk counts once its packet is whole."""
    owner, channel = read_topic_owner(event.topic), read_topic_channel(event.topic)
    if channel == Channel.RELEASE:
        packet = decode_packet(event.payload)
        return _find_handler(channel, packet)(state, owner, packet)
    if owner not in state.miners:
        raise UnknownSender(f"{owner.hex()} is no miner of this chain")
    packet = decode_packet(event.payload)
    if packet.type is PacketType.CHUNK:
        before, (state, whole, pulled) = state, downloads.on_chunk(state, owner, packet, is_answer=channel == "to")
        if whole is None:
            is_news = state.downloads.running is not before.downloads.running
            return following.hear(state, owner) if is_news else state, pulled
        packet = whole
    state, effects = _find_handler(channel, packet)(state, owner, packet)
    return following.hear(state, owner), effects


def _find_handler(channel: str, packet: Packet) -> PacketHandler:
    handler = PACKET_RULES.get((channel, packet.type))
    if handler is None:
        raise MalformedMessage(f"a {packet.type.name} on channel {channel[:16]!r}")
    return handler


def _in_every(phases: Iterable[Enum], handler: Handler) -> Row:
    return dict.fromkeys(phases, handler)


TRANSITIONS: dict[EventKind, Row] = {
    PacketReceived: _in_every(Standing, on_packet),
    Connected: {
        Standing.UNHEARD: following.listen,
        Standing.BEHIND: following.listen_and_publish,
        Standing.TAKING_PART: following.listen_and_publish,
        Standing.FINISHED: following.listen,
        Standing.DIVERGED: following.listen_and_publish,
    },
    Timer.RESEND: {
        Standing.UNHEARD: ignore,
        Standing.BEHIND: update.on_resend_timer,
        Standing.TAKING_PART: update.on_resend_timer,
        Standing.FINISHED: ignore,
        Standing.DIVERGED: update.on_resend_timer,
    },
    Timer.SILENCE: {
        Standing.UNHEARD: following.on_silence_timer,
        Standing.BEHIND: following.on_silence_timer,
        Standing.TAKING_PART: following.on_silence_timer,
        Standing.FINISHED: following.keep_listening,
        Standing.DIVERGED: following.keep_listening,
    },
    Timer.RESYNC: {
        Resync.IDLE: ignore,
        Resync.WAITING: following.on_resync_timer,
        Resync.ASKED: following.on_resync_timer,
    },
    TrainingDone: {
        UpdatePhase.IDLE: update.on_unasked_training,
        UpdatePhase.TRAINING: update.on_training_done,
        UpdatePhase.FAILED: update.on_unasked_training,
        UpdatePhase.TRAINED: update.on_unasked_training,
        UpdatePhase.COMMITTED: update.on_unasked_training,
        UpdatePhase.REVEALED: update.on_unasked_training,
    },
    TrainingFailed: _in_every(UpdatePhase, update.on_training_failed),
    ScoreComputed: {
        Scorer.FREE: ignore,
        Scorer.BUSY: scoring.on_score_computed,
    },
    ScoringFailed: {
        Scorer.FREE: ignore,
        Scorer.BUSY: scoring.on_scoring_failed,
    },
    MiningAllowed: _in_every(Standing, scoring.on_mining_allowed),
    WorkHeld: _in_every(Standing, scoring.on_work_held),
    LeavePlanned: _in_every(Standing, releases.on_leave_planned),
}

PHASE_OF: dict[type[Enum], Callable[[AgentState], Enum]] = {
    Standing: compute_standing,
    Resync: lambda state: state.following.resync,
    UpdatePhase: lambda state: state.update.phase,
    Scorer: lambda state: state.scoring.scorer,
}

PACKET_RULES: dict[tuple[str, PacketType], PacketHandler] = {
    ("head", PacketType.HEAD): chain_news.on_head,
    ("body", PacketType.BODY): chain_news.on_body,
    ("light", PacketType.HEAD): chain_news.on_head,
    ("light", PacketType.LIGHT_BODY): chain_news.on_body,
    ("to", PacketType.HEAD): chain_news.on_head,
    ("to", PacketType.BODY): chain_news.on_body,
    ("to", PacketType.LIGHT_BODY): chain_news.on_body,
    ("to", PacketType.MODEL): chain_news.on_snapshot,
    ("to", PacketType.PAYLOADS): chain_news.on_payloads,
    ("to", PacketType.MESSAGE): chain_news.on_message,
    ("release", PacketType.MESSAGE): releases.on_release,
}
"""By channel and type."""
assert PACKET_RULES.keys() == list_accepted(Listener.FULL) == list_accepted(Listener.LIGHT), (
    "as the table of topics says"
)


def get_kind(event: Event) -> EventKind:
    """Return the row that an event belongs to."""
    return event.timer if isinstance(event, TimerFired) else type(event)


def get_phase(state: AgentState, kind: EventKind) -> Enum:
    """Return the phase that decides what an event of this kind may do now."""
    region = type(next(iter(TRANSITIONS[kind])))
    return PHASE_OF[region](state)


def process_event(state: AgentState, event: Event) -> Transition:
    """Return what the tables say. Raises InvalidMessage's subclasses for what a peer sent."""
    kind = get_kind(event)
    assert kind in TRANSITIONS, f"an event that no row names: {event}"
    return TRANSITIONS[kind][get_phase(state, kind)](state, event)
