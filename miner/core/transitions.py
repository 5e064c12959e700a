"""Which event does what in which phase: everything that the machine may do stands in these two tables.

A row of TRANSITIONS is an event; its columns are all phases of the one sub-state that decides what the event may do
(see `state`). An event that has no meaning in a phase has `ignore`, or a handler that says so. A packet means the same
in every phase: PACKET_RULES says which are known on which channel, and all others are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, TypeAlias

from flchain.base.errors import MalformedMessage
from flchain.base.frozen import replace
from flchain.base.types import Address
from flchain.consensus import bft
from flchain.wire.packets import Packet, PacketType, decode_packet
from flchain.wire.topics import Listener, list_accepted, read_topic_channel, read_topic_owner
from miner.core import agreement, announce, answers, intake, missing_chunks, scoring, state_sync
from miner.core.state import (
    Agreement,
    CatchUpPhase,
    MinerState,
    Patience,
    Scorer,
    Transition,
    compute_agreement,
    compute_catch_up,
    compute_scorer,
)
from miner.core.values import Connected, Event, PacketReceived, ScoreComputed, StartTimer, Timer, TimerFired

EventKind: TypeAlias = type[object] | Timer
"""An event's class; of TimerFired, the timer, or the class of consensus' timeouts."""
Handler: TypeAlias = Callable[[MinerState, Any], Transition]
"""Takes the event of its row. Raises InvalidMessage's subclasses for what a peer sent."""
Row: TypeAlias = dict[Enum, Handler]
PacketHandler: TypeAlias = Callable[[MinerState, Address, Packet], Transition]


def ignore(state: MinerState, event: Event) -> Transition:
    """Do nothing: in this phase the event means nothing, or comes from what is over."""
    return state, ()


def on_packet(state: MinerState, event: PacketReceived) -> Transition:
    """Find the handler of a packet; a chunk counts once its packet is whole. Raises InvalidMessage's subclasses."""
    owner, channel = read_topic_owner(event.topic), read_topic_channel(event.topic)
    if owner == state.config.identity.address and channel != "up":  # on `up` its operator sends the account's orders
        return state, ()  # the broker returns what this node has published
    packet = decode_packet(event.payload)
    if packet.type is PacketType.CHUNK:
        state, whole, asked = missing_chunks.on_chunk(state, owner, packet)
        if whole is None:
            return state, asked
        packet = whole
    handler = PACKET_RULES.get((channel, packet.type))
    if handler is None:
        raise MalformedMessage(f"a {packet.type.name} on channel {channel[:16]!r}")
    return handler(state, owner, packet)


def on_connected(state: MinerState, event: Connected) -> Transition:
    """Repeat what others may have missed, and ask for what was missed here."""
    repeated = scoring.repeat_scores(state)
    tip = announce.publish_tip(state, is_again=True)
    state, scored = scoring.process_phase(state)
    state = replace(state, waiting=replace(state.waiting, gossips=0))
    state, gossip = agreement.on_gossip_timer(state)
    state, begun = agreement.advance_agreement(state)
    state, asked = missing_chunks.ask_every_device(state)
    return state, (*tip, *repeated, *scored, *gossip, *begun, *asked)


def on_gossip_timer(state: MinerState, event: TimerFired[Timer]) -> Transition:
    """Repeat this height's messages and this miner's scores."""
    state, effects = agreement.on_gossip_timer(state)
    return state, effects + (scoring.repeat_scores(state) if effects else ())


def on_stale_patience(state: MinerState, event: TimerFired[Timer]) -> Transition:
    """The wait is of an earlier height, or over: it ends nothing, but the pools may have reason to begin one."""
    return agreement.advance_agreement(state)


def on_patience_timer(state: MinerState, event: TimerFired[Timer]) -> Transition:
    """End the wait, unless a slow link still brings what is awaited; even that has an end."""
    if missing_chunks.is_update_arriving(state):
        waiting = replace(state.waiting, extensions=state.waiting.extensions + 1)
        return replace(state, waiting=waiting), (StartTimer(Timer.PATIENCE, state.chain.params.patience_ms),)
    return agreement.end_patience(state)


def on_propose_timer(state: MinerState, event: TimerFired[Timer]) -> Transition:
    """Propose what has arrived."""
    return agreement.propose_now(state)


def on_ask_timer(state: MinerState, event: TimerFired[Timer]) -> Transition:
    """Ask a peer for blocks, if this node is still behind."""
    return answers.on_ask_timer(state)


def on_consensus_timeout(state: MinerState, event: TimerFired[bft.Timeout]) -> Transition:
    """Let consensus go on without what it waited for; a timeout of an earlier step does nothing."""
    return agreement.run_effects(state, *bft.on_timeout(state.bft, event.timer))


def on_score_computed(state: MinerState, event: ScoreComputed) -> Transition:
    """Take the scorer's answer, if it is about the open round."""
    if event.round != state.chain.round.number:
        return state, ()
    state, effects = scoring.on_score(state, event.subject, event.score)
    state, begun = agreement.advance_agreement(state)
    return state, effects + begun


def _in_every(phases: Iterable[Enum], handler: Handler) -> Row:
    return dict.fromkeys(phases, handler)


TRANSITIONS: dict[EventKind, Row] = {
    PacketReceived: _in_every(Agreement, on_packet),
    Connected: _in_every(Agreement, on_connected),
    bft.Timeout: {
        Agreement.PAUSED: ignore,
        Agreement.NOT_BEGUN: ignore,
        Agreement.UNDER_WAY: on_consensus_timeout,
        Agreement.ABOUT_TO_PROPOSE: on_consensus_timeout,
    },
    Timer.GOSSIP: {
        Agreement.PAUSED: ignore,
        Agreement.NOT_BEGUN: ignore,
        Agreement.UNDER_WAY: on_gossip_timer,
        Agreement.ABOUT_TO_PROPOSE: on_gossip_timer,
    },
    Timer.PROPOSE: {
        Agreement.PAUSED: ignore,
        Agreement.NOT_BEGUN: ignore,
        Agreement.UNDER_WAY: ignore,
        Agreement.ABOUT_TO_PROPOSE: on_propose_timer,
    },
    Timer.PATIENCE: {
        Patience.IDLE: on_stale_patience,
        Patience.RUNNING: on_patience_timer,
        Patience.FOR_DEVICES: on_patience_timer,
        Patience.OVER: on_stale_patience,
    },
    Timer.ASK: {
        CatchUpPhase.IDLE: ignore,
        CatchUpPhase.ASKING: on_ask_timer,
    },
    ScoreComputed: {
        Scorer.FREE: ignore,
        Scorer.BUSY: on_score_computed,
    },
}

PHASE_OF: dict[type[Enum], Callable[[MinerState], Enum]] = {
    Agreement: compute_agreement,
    Patience: lambda state: state.waiting.patience,
    CatchUpPhase: compute_catch_up,
    Scorer: compute_scorer,
}

PACKET_RULES: dict[tuple[str, PacketType], PacketHandler] = {
    ("up", PacketType.MESSAGE): intake.on_device_message,
    ("bft", PacketType.MESSAGE): intake.on_miner_message,
    ("bft", PacketType.PROPOSAL): intake.on_miner_proposal,
    ("head", PacketType.HEAD): answers.on_head,
    ("to", PacketType.BLOCK): answers.on_block,
    ("to", PacketType.MESSAGE): intake.on_receipt,
    ("to", PacketType.HEAD): state_sync.on_change,
    ("to", PacketType.STATE): state_sync.on_state,
}
"""By channel and type."""
assert PACKET_RULES.keys() == list_accepted(Listener.MINER), "a miner accepts what the table of topics says"


def get_kind(event: Event) -> EventKind:
    """Return the row that an event belongs to."""
    if isinstance(event, TimerFired):
        return event.timer if isinstance(event.timer, Timer) else type(event.timer)
    return type(event)


def get_phase(state: MinerState, kind: EventKind) -> Enum:
    """Return the phase that decides what an event of this kind may do now."""
    region = type(next(iter(TRANSITIONS[kind])))
    return PHASE_OF[region](state)


def process_event(state: MinerState, event: Event) -> Transition:
    """Return what the tables say. Raises InvalidMessage's subclasses for what a peer sent."""
    kind = get_kind(event)
    assert kind in TRANSITIONS, f"an event that no row names: {event}"
    return TRANSITIONS[kind][get_phase(state, kind)](state, event)
