"""The device's part of a round: train, protect, compress, commit, reveal; and the outbox that waits for receipts."""

from __future__ import annotations

from agent.core.values import (
    AgentState,
    DropOutbox,
    Effect,
    Note,
    Publish,
    SaveOutbox,
    SaveWork,
    StartTimer,
    Timer,
    Train,
    TrainingDone,
    Work,
)
from flchain.base.errors import WrongRound
from flchain.base.fixedpoint import to_fixed
from flchain.base.frozen import replace
from flchain.base.types import Hash, Round
from flchain.codecs import CODECS, compute_codec_seed
from flchain.codecs.adaptive import compute_bytes_wanted
from flchain.privacy import MECHANISMS
from flchain.wire.envelope import hash_message, seal
from flchain.wire.messages import (
    SALT_BYTES,
    SAMPLES_CAP_MAX,
    SMALL_BYTES_MAX,
    Commit,
    Phase,
    Receipt,
    Reveal,
    compute_update_commitment,
)
from flchain.wire.packets import PacketType, encode_packet

Transition = tuple[AgentState, tuple[Effect, ...]]


def pursue(state: AgentState) -> Transition:
    """Do what the open round's phase asks of this device, once."""
    light = state.light
    if is_paused(state) or state.is_mismatch or state.chain_time is None or not light.is_synced:
        return state, ()
    has_work = state.work is not None and state.work.round == light.round
    if light.phase is Phase.COMMIT and not has_work and state.training_round != light.round:
        return replace(state, training_round=light.round, is_training=True), (Train(light.round, light.model),)
    raw = _get_due(state)
    if raw is None or hash_message(raw) in state.said:
        return state, ()
    return _say(state, raw)


def is_paused(state: AgentState) -> bool:
    """True once the rounds that the operator asked for are settled."""
    return 0 < state.config.until_round < state.light.round


def _get_due(state: AgentState) -> bytes | None:
    """The message that the phase asks for, if this device has one."""
    light, work, scores = state.light, state.work, state.scores
    due: dict[Phase, bytes] = {}
    if work is not None and work.round == light.round:
        due |= {Phase.COMMIT: work.commit, Phase.REVEAL: work.reveal}
    if scores is not None and scores.round == light.round:
        due |= {Phase.SCORE: scores.commit, Phase.SETTLE: scores.reveal}
    return due.get(light.phase)


def is_waiting(state: AgentState) -> bool:
    """True while this device needs to hear from a miner: always, but for its own work, a pause and a mismatch.

    Nobody waits for work that is held: a miner may fall silent in those hours.
    """
    is_working = (state.is_training or state.is_score_awaited) and not state.is_held
    return not (is_working or is_paused(state) or state.is_mismatch)


def _say(state: AgentState, raw: bytes) -> Transition:
    """Into the durable outbox first, then out; a receipt takes it out again."""
    digest = hash_message(raw)
    state = replace(state, outbox={**state.outbox, digest: (state.light.round, raw)}, said=state.said | {digest})
    return state, (
        SaveOutbox(digest, state.light.round, raw),
        _publish(state, raw, is_again=state.restored == state.light.round),
        StartTimer(Timer.RESEND, state.config.resend_ms),
    )


def say_again(state: AgentState) -> Transition:
    """What the open phase waits for, receipt or not: miners that restart have forgotten what is in no block yet."""
    raw = _get_due(state)
    is_able = state.light.is_synced and state.chain_time is not None
    return (state, ()) if raw is None or not is_able else _say(state, raw)


def _publish(state: AgentState, raw: bytes, *, is_again: bool) -> Publish:
    topic = state.topics.device_up(state.config.identity.address)
    return Publish(topic, encode_packet(PacketType.MESSAGE, raw), is_again)


def resend(state: AgentState) -> Transition:
    """Say again what has no receipt."""
    if not state.outbox or state.chain_time is None:
        return state, ()
    again = tuple(_publish(state, raw, is_again=True) for _, raw in state.outbox.values())
    return state, (*again, StartTimer(Timer.RESEND, state.config.resend_ms))


def on_receipt(state: AgentState, receipt: Receipt) -> Transition:
    """A miner has a message of this device's, or says why it does not take it. Raises WrongRound."""
    digest = Hash(receipt.digest)
    if digest not in state.outbox:
        return state, ()  # a second miner's receipt
    if receipt.round != state.outbox[digest][0]:
        raise WrongRound(f"a receipt of round {receipt.round} for a message of round {state.outbox[digest][0]}")
    raw = state.outbox[digest][1]
    outbox = {key: value for key, value in state.outbox.items() if key != digest}
    state = replace(state, outbox=outbox, said=state.said | {digest})
    effects: tuple[Effect, ...] = (DropOutbox(digest, receipt.code, raw),)
    if receipt.code != "ok":
        effects += (Note("a miner refused a message", {"round": receipt.round, "cause": receipt.code}),)
    return state, effects


def drop_stale(state: AgentState) -> Transition:
    """Take out of the outbox what the chain cannot use any more, with the reason."""
    due = _get_due(state)
    kept = {digest: item for digest, item in state.outbox.items() if due is not None and item[1] == due}
    late = {digest: raw for digest, (_, raw) in state.outbox.items() if digest not in kept}
    dropped = tuple(DropOutbox(digest, "the phase is over", raw) for digest, raw in late.items())
    is_of_round = any(own is not None and own.round == state.light.round for own in (state.work, state.scores))
    said = state.said if is_of_round else frozenset()
    return replace(state, outbox=kept, said=said), dropped


def on_training_done(state: AgentState, event: TrainingDone) -> Transition:
    """Privacy, codec, signatures; then the commitment. Work that comes too late is dropped and says so."""
    light, state = state.light, end_training(state, event.round)
    if event.round != light.round or light.phase is not Phase.COMMIT:
        fields = {"round": event.round, "now": light.round, "phase": light.phase.name}
        return state, (Note("training came too late for its round", fields),)
    try:
        done = _build_work(state, event)
    except ValueError as error:
        note = Note("training gave no usable update", {"round": event.round, "cause": str(error)}, is_fault=True)
        return state, (note,)
    fields = {"round": event.round, "ms": event.training_ms, "loss": round(event.loss, 4), "bytes": len(done.reveal)}
    state, effects = pursue(replace(state, work=done))
    return state, (SaveWork(done), Note("trained", fields), *effects)


def end_training(state: AgentState, round_number: Round) -> AgentState:
    """The trainer has ended this round's training, with or without a result."""
    return replace(state, is_training=False) if state.training_round == round_number else state


def _build_work(state: AgentState, event: TrainingDone) -> Work:
    """Raises ValueError if the update is not finite."""
    params, me, chain = state.light.params, state.config.identity, state.light.chain
    protected = MECHANISMS[params.privacy](
        event.delta,
        params.clip_norm_thousandths / 1000,
        params.noise_multiplier_thousandths / 1000,
        event.standard_normals,
    )
    number = Round(event.round)
    seed = compute_codec_seed(chain, number, me.address)
    # Its size is an update's own affair: what is on the chain says how to decode it.
    rate = event.uplink_bytes_per_s
    wanted = None if rate is None else compute_bytes_wanted(rate, params.patience_ms, SMALL_BYTES_MAX)
    encoded = CODECS[params.codec].encode(to_fixed(protected), state.residual, params.codec_level, seed, wanted)
    salt = me.derive_secret("update-salt", chain + number.to_bytes(8, "big"))[:SALT_BYTES]
    reveal = Reveal(number, salt, max(1, min(event.samples, SAMPLES_CAP_MAX)), encoded.payload)
    commit = Commit(number, compute_update_commitment(chain, me.address, reveal), state.is_mining)
    return Work(
        round=number,
        commit=seal(commit, chain, me),
        reveal=seal(reveal, chain, me),
        residual=encoded.residual,
        samples=event.samples,
        training_ms=event.training_ms,
        will_score=state.is_mining,
    )
