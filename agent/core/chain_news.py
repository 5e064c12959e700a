"""News of the chain from miners: headers, bodies and models, and what a new model or phase asks of this device."""

from __future__ import annotations

import numpy as np

from agent.core import downloads, following, scoring, update
from agent.core.chain_time import learn_time
from agent.core.state import AgentState, Transition, Trouble
from agent.core.values import Effect, Note, Report, SavePosition
from flchain.base.errors import (
    MalformedMessage,
    ModelMismatch,
    TrustExpired,
    UnknownSender,
    UnknownValidators,
    UntrustedValidators,
    WrongHeight,
)
from flchain.base.frozen import replace
from flchain.base.types import Address
from flchain.ledger.block import hash_header
from flchain.light import follow
from flchain.light.follow import LightState
from flchain.light.trust import CertifiedHeader, encode_sets
from flchain.wire.envelope import open_envelope, verify_envelope
from flchain.wire.messages import Receipt, Resume, Want
from flchain.wire.packets import Packet


def on_head(state: AgentState, owner: Address, packet: Packet) -> Transition:
    """Take a header with its certificate."""
    head = CertifiedHeader(*packet.fields)
    try:
        after = follow.process_head(state.light, head, state.clock.time_ms)
    except WrongHeight:
        return _on_known_head(state, head)
    except ModelMismatch as error:
        return _on_mismatch(state, error)
    except UnknownValidators:
        return state, (following.ask(state, owner, Want.HEAD),)
    except UntrustedValidators:
        return state, (following.ask(state, owner, Want.CHANGES),)
    except TrustExpired as error:
        return _on_expired(state, error)
    state, followed = following.follow_news(_keep_head(state, head, after), owner)
    state, effects = _follow_light(state, after)
    return state, followed + effects


def _on_known_head(state: AgentState, head: CertifiedHeader) -> Transition:
    """A repeat, or a miner that is behind. After a boot the newest one is enough: the chain still stands there."""
    if state.clock.chain is not None or hash_header(head.header) != state.light.trust.head:
        return state, ()
    state = replace(state, clock=learn_time(state.clock, state.light.trust.time_ms))
    state, effects = update.advance_update(state)
    state, scored = scoring.advance_scores(state)
    return state, effects + scored


def _keep_head(state: AgentState, head: CertifiedHeader, after: LightState) -> AgentState:
    """Keep it with the validators even if it came without: a restart knows them from this device's own disk only."""
    sets = encode_sets(after.trust.signing, after.trust.validators)
    trouble = Trouble.NONE if state.trouble is Trouble.EXPIRED else state.trouble
    clock = learn_time(state.clock, after.trust.time_ms)
    return replace(state, head=replace(head, sets=sets), clock=clock, trouble=trouble)


def _on_expired(state: AgentState, error: TrustExpired) -> Transition:
    """Say once, loudly, that only an operator can say which chain is the true one."""
    if state.trouble is not Trouble.NONE:
        return state, ()
    text = "THIS DEVICE WAS AWAY FOR TOO LONG, or its clock is ahead; set the clock, or `checkpoint` (docs/running.md)"
    note = Note(text, {"cause": str(error), "clock_ms": state.clock.time_ms}, True)
    return replace(state, trouble=Trouble.EXPIRED), (note,)


def on_body(state: AgentState, owner: Address, packet: Packet) -> Transition:
    """Take a block's body, full or light."""
    try:
        after = follow.process_body(state.light, *packet.fields)
    except ModelMismatch as error:
        return _on_mismatch(state, error)
    return _follow_light(state, after)


def on_snapshot(state: AgentState, owner: Address, packet: Packet) -> Transition:
    """Take a whole model, with the header that proves it."""
    *parts, vector, carried = packet.fields
    head = CertifiedHeader(*parts)
    try:
        after = follow.process_snapshot(state.light, head, vector, carried, state.clock.time_ms)
    except ModelMismatch as error:  # of a later round, whose bodies were waiting
        return _on_mismatch(state, error)
    return _take_model(state, head, after)


def on_payloads(state: AgentState, owner: Address, packet: Packet) -> Transition:
    """Take the changes of the rounds that this device has missed."""
    *parts, first, payloads = packet.fields
    head = CertifiedHeader(*parts)
    return _take_model(state, head, follow.process_payloads(state.light, head, first, payloads, state.clock.time_ms))


def _take_model(state: AgentState, head: CertifiedHeader, after: LightState) -> Transition:
    """Take a model that did not come round by round."""
    if after.height > state.light.height:
        state = _keep_head(state, head, after)
    work, known_round = state.update.work, state.light.model_round
    if after.model_round > known_round and work is not None and work.round > known_round:
        # Whether that update was accepted is not known, and what was sent must not be sent twice.
        state = replace(state, residual=np.zeros_like(state.residual))
    return _follow_light(state, after)


def _on_mismatch(state: AgentState, error: ModelMismatch) -> Transition:
    """Say so loudly, keep the old model and stop taking part: this device or two thirds of the miners are wrong."""
    if state.trouble is Trouble.DIVERGED:
        return state, ()
    state = replace(state, trouble=Trouble.DIVERGED)
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
        state, resync = following.start_resync(state, is_hopeless=not after.wanted and bool(before.wanted))
        effects += resync
    state, dropped = update.drop_stale(state)
    state, more = update.advance_update(state)
    state, scored = scoring.advance_scores(state)
    return state, more + effects + dropped + scored  # what the round waits for comes first, housekeeping after it


def _on_new_model(state: AgentState) -> Transition:
    """Keep the model of a settled round. The residual moves on only if this device's update was accepted."""
    after, work = state.light, state.update.work
    done = work if work is not None and work.round == after.model_round else None
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


def on_message(state: AgentState, owner: Address, packet: Packet) -> Transition:
    """Take a miner's signed message to this device: a receipt, or a request for chunks."""
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
