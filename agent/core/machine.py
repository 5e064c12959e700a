"""The agent as a pure machine: step(state, event, now_ms) -> (state, effects). Nothing here waits, reads or sends."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from agent.core import downloads, scoring, update
from agent.core.chain_time import ChainTime, compute_time
from agent.core.values import (
    AgentConfig,
    AgentState,
    Connected,
    Effect,
    Event,
    Follow,
    MiningAllowed,
    Note,
    PacketReceived,
    Publish,
    Refuse,
    Report,
    SavePosition,
    ScoreComputed,
    Scores,
    ScoringFailed,
    StartTimer,
    Timer,
    TimerFired,
    TrainingDone,
    TrainingFailed,
    Work,
    WorkHeld,
)
from flchain.base.errors import (
    InvalidMessage,
    MalformedMessage,
    ModelMismatch,
    TrustExpired,
    UnknownSender,
    UnknownValidators,
    UntrustedValidators,
    WrongHeight,
)
from flchain.base.frozen import replace
from flchain.base.types import Address, Hash, Millis, ModelVector, Round, UnixMillis
from flchain.ledger.block import hash_header
from flchain.light import follow
from flchain.light.follow import LightState
from flchain.light.trust import Head, encode_sets
from flchain.wire.envelope import open_envelope, seal, verify_envelope
from flchain.wire.messages import Ask, Receipt, Resume, Want
from flchain.wire.packets import Packet, PacketType, decode_packet, encode_packet
from flchain.wire.topics import Listener, Topics, list_accepted, read_topic_channel, read_topic_owner

Transition = tuple[AgentState, tuple[Effect, ...]]


def build_agent_state(
    config: AgentConfig,
    light_state: LightState,
    residual: ModelVector,
    saved_work: Work | None = None,
    outbox: dict[Hash, tuple[Round, bytes]] | None = None,
    *,
    saved_scores: Scores | None = None,
) -> AgentState:
    """The state after a start: what the store holds, or the genesis and an empty residual."""
    return AgentState(
        config=config,
        topics=Topics.of_chain(light_state.chain),
        light=light_state,
        residual=residual,
        followed=config.miners[0][0],
        work=saved_work,
        scores=saved_scores,
        restored=saved_work.round if saved_work is not None else None,
        outbox=outbox or {},
    )


def step(state: AgentState, event: Event, now_ms: Millis, clock_ms: UnixMillis) -> Transition:
    """One event in, the next state and what is wanted out. A peer's fault becomes a Refuse and changes nothing.

    `now_ms` is of a monotonic clock and times what waits; `clock_ms` is this machine's and may be wrong (`chain_time`).
    """
    try:
        time_ms = compute_time(state.chain_time, clock_ms, now_ms)
        return _on_event(replace(state, clock_ms=time_ms, now_ms=now_ms), event, now_ms)
    except InvalidMessage as error:
        return state, (Refuse(error.code, str(error)),)


def _on_event(state: AgentState, event: Event, now_ms: Millis) -> Transition:
    match event:
        case PacketReceived():
            return _on_packet(state, event, now_ms)
        case TrainingDone():
            return update.on_training_done(state, event)
        case TrainingFailed(round_number, reason):
            note = Note("training failed", {"round": round_number, "cause": reason}, is_fault=True)
            return update.end_training(state, round_number), (note,)
        case ScoreComputed():
            return scoring.on_score_computed(state, event)
        case ScoringFailed():
            return scoring.on_scoring_failed(state, event)
        case MiningAllowed() | WorkHeld():
            return scoring.on_decision(state, event)
        case Connected():
            return _on_connected(state, now_ms)
        case TimerFired(Timer.RESEND):
            return update.resend(state)
        case TimerFired(Timer.RESYNC):
            return _on_resync_timer(state)
        case TimerFired(Timer.SILENCE):
            return _on_silence_timer(state, now_ms)
    raise AssertionError(f"an event that nobody handles: {event}")


def _on_connected(state: AgentState, now_ms: Millis) -> Transition:
    """Say what waits, and ask where the chain is; the retained header usually comes first."""
    miner = state.followed
    state, effects = update.resend(replace(state, heard_ms=now_ms))
    state, more = update.pursue(state)
    state, drawn = downloads.ask_again(state)
    timer = StartTimer(Timer.SILENCE, state.config.failover_ms // 2)
    return state, (Follow(None, miner), *effects, *more, *drawn, timer)


def _on_packet(state: AgentState, event: PacketReceived, now_ms: Millis) -> Transition:
    owner = read_topic_owner(event.topic)
    if owner not in state.miners:
        raise UnknownSender(f"{owner.hex()} is no miner of this chain")
    packet = decode_packet(event.payload)
    if packet.type is PacketType.CHUNK:
        is_answer = read_topic_channel(event.topic) == "to"
        before, (state, whole, drawn) = state, downloads.on_chunk(state, owner, packet, is_answer=is_answer)
        if whole is None:
            is_news = owner == state.followed and state.drawings is not before.drawings
            return replace(state, heard_ms=now_ms) if is_news else state, drawn
        packet = whole
    handler = PACKET_RULES.get((read_topic_channel(event.topic), packet.type))
    if handler is None:
        raise MalformedMessage(f"a {packet.type.name} on channel {read_topic_channel(event.topic)[:16]!r}")
    state, effects = handler(state, owner, packet)
    if owner == state.followed:
        state = replace(state, heard_ms=now_ms)
    return state, effects


def _on_head(state: AgentState, owner: Address, packet: Packet) -> Transition:
    head = Head(*packet.fields)
    try:
        after = follow.process_head(state.light, head, state.clock_ms)
    except WrongHeight:
        return _on_known_head(state, head)
    except ModelMismatch as error:
        return _on_mismatch(state, error)
    except UnknownValidators:
        return state, (_ask(state, owner, Want.HEAD),)
    except UntrustedValidators:
        return state, (_ask(state, owner, Want.CHANGES),)
    except TrustExpired as error:
        return _on_expired(state, error)
    state, followed = _follow(_keep_head(state, head, after), owner)
    state, effects = _follow_light(state, after)
    return state, followed + effects


def _on_known_head(state: AgentState, head: Head) -> Transition:
    """A repeat, or a miner that is behind. After a boot the newest is enough: the chain still stands there."""
    if state.chain_time is not None or hash_header(head.header) != state.light.trust.head:
        return state, ()
    state, effects = update.pursue(_learn_time(state, state.light.trust.time_ms))
    state, scored = scoring.pursue(state)
    return state, effects + scored


def _learn_time(state: AgentState, header_ms: UnixMillis) -> AgentState:
    """A certified header says that it is no earlier than this."""
    now_ms = Millis(state.now_ms)
    known = ChainTime(header_ms, now_ms)
    return replace(state, chain_time=known, clock_ms=compute_time(known, state.clock_ms, now_ms))


def _keep_head(state: AgentState, head: Head, after: LightState) -> AgentState:
    """With the validators even if they came without: a restart knows them from this device's own disk only."""
    sets = encode_sets(after.trust.signing, after.trust.validators)
    state = _learn_time(state, after.trust.time_ms)
    return replace(state, head=replace(head, sets=sets), is_expired=False)


def _on_expired(state: AgentState, error: TrustExpired) -> Transition:
    """Only an operator can say which chain is the true one: said once, loudly."""
    if state.is_expired:
        return state, ()
    text = "THIS DEVICE WAS AWAY FOR TOO LONG, or its clock is ahead; set the clock, or `checkpoint` to a header's hash"
    note = Note(text, {"cause": str(error), "clock_ms": state.clock_ms}, True)
    return replace(state, is_expired=True), (note,)


def _follow(state: AgentState, owner: Address) -> Transition:
    """News that comes from a miner which was only asked: the followed one is behind, or keeps them back."""
    before = state.followed
    if owner == before:
        return state, ()
    note = Note("another miner has news, following it", {"before": before.hex()[:8], "now": owner.hex()[:8]})
    return replace(state, followed=owner), (note, Follow(before, owner))


def _on_body(state: AgentState, owner: Address, packet: Packet) -> Transition:
    try:
        after = follow.process_body(state.light, *packet.fields)
    except ModelMismatch as error:
        return _on_mismatch(state, error)
    return _follow_light(state, after)


def _on_snapshot(state: AgentState, owner: Address, packet: Packet) -> Transition:
    *parts, vector, carried = packet.fields
    head = Head(*parts)
    try:
        after = follow.process_snapshot(state.light, head, vector, carried, state.clock_ms)
    except ModelMismatch as error:  # of a later round, whose bodies were waiting
        return _on_mismatch(state, error)
    return _take_model(state, head, after)


def _on_payloads(state: AgentState, owner: Address, packet: Packet) -> Transition:
    *parts, first, payloads = packet.fields
    head = Head(*parts)
    return _take_model(state, head, follow.process_payloads(state.light, head, first, payloads, state.clock_ms))


def _take_model(state: AgentState, head: Head, after: LightState) -> Transition:
    """A model that did not come round by round."""
    if after.height > state.light.height:
        state = _keep_head(state, head, after)
    if after.model_round > state.light.model_round and state.work and state.work.round > state.light.model_round:
        # Whether that update was accepted is not known, and what was sent must not be sent twice.
        state = replace(state, residual=np.zeros_like(state.residual))
    return _follow_light(state, after)


def _on_mismatch(state: AgentState, error: ModelMismatch) -> Transition:
    """Say so loudly, keep the old model, take part no more: this device or two thirds of the miners are wrong."""
    if state.is_mismatch:
        return state, ()
    state = replace(state, is_mismatch=True)
    note = Note("THIS DEVICE COMPUTED ANOTHER MODEL THAN THE CHAIN; it keeps its old one", {"cause": str(error)}, True)
    return state, (note, Report(state.light.model_round, state.light.model_hash, True, False, None))


def _follow_light(state: AgentState, after: LightState) -> Transition:
    """After news from the chain: keep a new model, then do what the phase asks for."""
    before, state = state.light, replace(state, light=after)
    effects: tuple[Effect, ...] = ()
    if after.model_round > before.model_round:
        state, effects = _on_new_model(state)
    if after.is_synced:
        state = downloads.give_up_answers(state)
    else:
        state, resync = _start_resync(state, is_hopeless=not after.wanted and bool(before.wanted))
        effects += resync
    state, dropped = update.drop_stale(state)
    state, more = update.pursue(state)
    state, scored = scoring.pursue(state)
    return state, more + effects + dropped + scored  # what the round waits for comes first, housekeeping after it


def _start_resync(state: AgentState, is_hopeless: bool) -> Transition:
    """Bodies that are awaited get some time; if none is left that could help, every moment may cost a round."""
    if is_hopeless and not state.drawings:
        return _ask_for_model(state)
    if state.is_resyncing:
        return state, ()
    return replace(state, is_resyncing=True), (StartTimer(Timer.RESYNC, state.config.resync_ms),)


def _on_new_model(state: AgentState) -> Transition:
    """This device holds the model of a settled round. Its residual moves on only if its update was accepted."""
    after = state.light
    done = state.work if state.work is not None and state.work.round == after.model_round else None
    is_accepted = done is not None and state.config.identity.address in after.accepted
    if done is not None and is_accepted:
        state = replace(state, residual=done.residual)
    assert state.head is not None, "a model comes with a header"
    fields = {"round": after.model_round, "model": after.model_hash.hex()[:16], "accepted": is_accepted}
    # A model on the way to the newest one is not saved: the header that is at hand does not prove it.
    position = (SavePosition(after, state.head, state.residual),) if after.is_synced else ()
    return state, (
        *position,
        Report(after.model_round, after.model_hash, False, is_accepted, done),
        Note("computed the global model", fields),
    )


def _on_resync_timer(state: AgentState) -> Transition:
    """Bodies did not come, or this device missed rounds: ask for the whole model."""
    state = replace(state, is_resyncing=False)
    if state.light.is_synced or state.is_mismatch:
        return replace(state, is_followed_asked=False), ()
    state, drawn = downloads.pursue(state)
    if state.drawings:  # a slow link is no reason to send all of it once more
        return replace(state, is_resyncing=True), (*drawn, StartTimer(Timer.RESYNC, state.config.resync_ms))
    return _ask_for_model(state)


def _ask_for_model(state: AgentState) -> Transition:
    """The followed miner first, then others: a miner may send its headers and keep the rest."""
    timer = StartTimer(Timer.RESYNC, 4 * state.config.resync_ms)
    state, question = (
        _ask_another(state) if state.is_followed_asked else (state, (_ask(state, state.followed, _get_want(state)),))
    )
    state = replace(state, is_resyncing=True, is_followed_asked=not state.is_followed_asked)
    return state, (*question, timer)


def _ask_another(state: AgentState) -> Transition:
    """Ask a miner that this device does not follow: the followed one may keep the news from it."""
    other = state.next_miner(state.followed, state.asked_others + 1)
    state = replace(state, asked_others=state.asked_others + 1)
    return state, () if other == state.followed else (_ask(state, other, _get_want(state)),)


def _get_want(state: AgentState) -> Want:
    if state.light.is_synced:
        return Want.HEAD
    return Want.FULL_MODEL if state.light.is_full else Want.MODEL


def _ask(state: AgentState, miner: Address, want: Want) -> Effect:
    me = state.config.identity
    ask = Ask(state.light.height + 1, miner, want, state.light.model_round)
    raw = seal(ask, state.light.chain, me)
    return Publish(state.topics.device_up(me.address), encode_packet(PacketType.MESSAGE, raw))


def _on_silence_timer(state: AgentState, now_ms: Millis) -> Transition:
    """Ask a silent miner whether it is there, and another whether there is news; turn to the next if none answers.

    With that goes once more what the round waits for: a receipt is no more durable than the memory of the miners.
    """
    half_ms = state.config.failover_ms // 2
    timer = StartTimer(Timer.SILENCE, half_ms)
    if not update.is_waiting(state):
        return replace(state, heard_ms=now_ms), (timer,)
    if now_ms - state.heard_ms < half_ms:
        return state, (timer,)
    state, again = update.say_again(state)
    if now_ms - state.heard_ms < state.config.failover_ms:
        state, other = _ask_another(state)
        return state, (_ask(state, state.followed, _get_want(state)), *other, *again, timer)
    before, miner = state.followed, state.next_miner(state.followed)
    state = replace(state, followed=miner, heard_ms=now_ms)
    note = Note("a miner is silent, following the next", {"silent": before.hex()[:8], "next": miner.hex()[:8]})
    return state, (note, Follow(before, miner), _ask(state, miner, _get_want(state)), *again, timer)


def _on_message(state: AgentState, owner: Address, packet: Packet) -> Transition:
    envelope = open_envelope(packet.fields[0], state.light.chain)
    if envelope.sender != owner:
        raise UnknownSender("a receipt under another miner's topic")
    message = verify_envelope(envelope, state.light.chain, state.miners[owner]).message
    match message:
        case Receipt():
            return update.on_receipt(state, message)
        case Resume():
            return downloads.on_resume(state, message)
    raise MalformedMessage("not a receipt")


PACKET_RULES: dict[tuple[str, PacketType], Callable[[AgentState, Address, Packet], Transition]] = {
    ("head", PacketType.HEAD): _on_head,
    ("body", PacketType.BODY): _on_body,
    ("light", PacketType.HEAD): _on_head,
    ("light", PacketType.LIGHT_BODY): _on_body,
    ("to", PacketType.HEAD): _on_head,
    ("to", PacketType.BODY): _on_body,
    ("to", PacketType.LIGHT_BODY): _on_body,
    ("to", PacketType.MODEL): _on_snapshot,
    ("to", PacketType.PAYLOADS): _on_payloads,
    ("to", PacketType.MESSAGE): _on_message,
}
assert PACKET_RULES.keys() == list_accepted(Listener.FULL) == list_accepted(Listener.LIGHT), (
    "as the table of topics says"
)
