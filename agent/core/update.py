"""The device's part of a round: train, protect, compress, commit, reveal; and the outbox that waits for receipts."""

from __future__ import annotations

from agent.core.state import (
    AgentState,
    RoundUpdate,
    ScoringPhase,
    Standing,
    Transition,
    UpdatePhase,
    compute_standing,
)
from agent.core.values import (
    DropOutbox,
    Note,
    Publish,
    SaveOutbox,
    SaveWork,
    StartTimer,
    Timer,
    TimerFired,
    Train,
    TrainingDone,
    TrainingFailed,
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
from flchain.wire.fields import SALT_BYTES, SAMPLES_CAP_MAX, SMALL_BYTES_MAX
from flchain.wire.messages import Commit, Phase, Receipt, Reveal, compute_update_commitment
from flchain.wire.packets import PacketType, encode_packet


def advance_update(state: AgentState) -> Transition:
    """Do what the open round's phase asks of this device, once."""
    light = state.light
    if compute_standing(state) is not Standing.TAKING_PART:
        return state, ()
    if light.phase is Phase.COMMIT and state.update.round != light.round and not state.is_leaving:
        state = replace(state, update=RoundUpdate(UpdatePhase.TRAINING, light.round, state.update.work))
        return state, (Train(light.round, light.model),)
    raw = _get_due(state)
    if raw is None or _is_published(state):
        return state, ()
    return _publish_due(state, raw)


def _get_due(state: AgentState) -> bytes | None:
    """Return the message that the open phase asks for, if this device has it."""
    work, scores = state.update.work, state.scoring.scores
    due: dict[Phase, bytes] = {}
    if work is not None and state.has_work:
        due |= {Phase.COMMIT: work.commit, Phase.REVEAL: work.reveal}
    if scores is not None and state.has_scores:
        due |= {Phase.SCORE: scores.commit, Phase.SETTLE: scores.reveal}
    return due.get(state.light.phase)


def _is_published(state: AgentState) -> bool:
    """True if the message that the open phase asks for was published by this process, or has its receipt."""
    update, scores = state.update.phase, state.scoring.phase
    match state.light.phase:
        case Phase.COMMIT:
            return update in (UpdatePhase.COMMITTED, UpdatePhase.REVEALED)
        case Phase.REVEAL:
            return update is UpdatePhase.REVEALED
        case Phase.SCORE:
            return scores in (ScoringPhase.COMMITTED, ScoringPhase.REVEALED)
        case _:
            return scores is ScoringPhase.REVEALED


def _set_published(state: AgentState, raw: bytes) -> AgentState:
    """Note that a message of this device was published, or has its receipt: no phase goes back."""
    update, scoring = state.update, state.scoring
    if (work := update.work) is not None and work.round == update.round:
        if raw == work.reveal:
            update = replace(update, phase=UpdatePhase.REVEALED)
        elif raw == work.commit and update.phase is UpdatePhase.TRAINED:
            update = replace(update, phase=UpdatePhase.COMMITTED)
    if (scores := scoring.scores) is not None and scores.round == scoring.round:
        if raw == scores.reveal:
            scoring = replace(scoring, phase=ScoringPhase.REVEALED)
        elif raw == scores.commit and scoring.phase is ScoringPhase.SCORED:
            scoring = replace(scoring, phase=ScoringPhase.COMMITTED)
    return replace(state, update=update, scoring=scoring)


def _publish_due(state: AgentState, raw: bytes) -> Transition:
    """Put a message into the durable outbox first, then send it; a receipt takes it out again."""
    digest, number = hash_message(raw), state.light.round
    state = _set_published(replace(state, outbox={**state.outbox, digest: (number, raw)}), raw)
    is_again = state.update.is_restored and state.update.round == number
    return state, (
        SaveOutbox(digest, number, raw),
        _build_publish(state, raw, is_again=is_again),
        StartTimer(Timer.RESEND, state.config.resend_ms),
    )


def publish_again(state: AgentState) -> Transition:
    """Publish what the open phase waits for, receipt or not: miners that restart forget what is in no block yet."""
    raw = _get_due(state)
    if raw is None or compute_standing(state) is not Standing.TAKING_PART:
        return state, ()
    return _publish_due(state, raw)


def _build_publish(state: AgentState, raw: bytes, *, is_again: bool) -> Publish:
    topic = state.topics.device_up(state.config.identity.address)
    return Publish(topic, encode_packet(PacketType.MESSAGE, raw), is_again=is_again)


def resend(state: AgentState) -> Transition:
    """Publish again what has no receipt."""
    if not state.outbox:
        return state, ()
    again = tuple(_build_publish(state, raw, is_again=True) for _, raw in state.outbox.values())
    return state, (*again, StartTimer(Timer.RESEND, state.config.resend_ms))


def on_resend_timer(state: AgentState, event: TimerFired[Timer]) -> Transition:
    """No receipt has arrived in time."""
    return resend(state)


def on_receipt(state: AgentState, receipt: Receipt) -> Transition:
    """A miner has a message of this device, or says why it refuses it. Raises WrongRound."""
    digest = Hash(receipt.digest)
    if digest not in state.outbox:
        return state, ()  # a second miner's receipt
    number, raw = state.outbox[digest]
    if receipt.round != number:
        raise WrongRound(f"a receipt of round {receipt.round} for a message of round {number}")
    outbox = {key: value for key, value in state.outbox.items() if key != digest}
    state = _set_published(replace(state, outbox=outbox), raw)
    drop = DropOutbox(digest, receipt.code, raw)
    if receipt.code == "ok":
        return state, (drop,)
    return state, (drop, Note("a miner refused a message", {"round": receipt.round, "cause": receipt.code}))


def drop_stale(state: AgentState) -> Transition:
    """Take out of the outbox what the chain cannot use any more, with the reason."""
    due = _get_due(state)
    kept = {digest: item for digest, item in state.outbox.items() if due is not None and item[1] == due}
    late = {digest: raw for digest, (_, raw) in state.outbox.items() if digest not in kept}
    dropped = tuple(DropOutbox(digest, "the phase is over", raw) for digest, raw in late.items())
    return replace(state, outbox=kept), dropped


def on_training_done(state: AgentState, event: TrainingDone) -> Transition:
    """Protect, encode and sign the update, then commit to it. Drop work that comes too late, and say so."""
    light = state.light
    if event.round != state.update.round:
        return on_unasked_training(state, event)
    state = _set_failed(state)
    if event.round != light.round or light.phase is not Phase.COMMIT:
        return on_unasked_training(state, event)
    try:
        work = _build_work(state, event)
    except ValueError as error:
        note = Note("training gave no usable update", {"round": event.round, "cause": str(error)}, is_fault=True)
        return state, (note,)
    fields: dict[str, object] = {
        "round": event.round,
        "ms": event.training_ms,
        "loss": round(event.loss, 4),
        "bytes": len(work.reveal),
    }
    state = replace(state, update=RoundUpdate(UpdatePhase.TRAINED, event.round, work))
    state, effects = advance_update(state)
    return state, (SaveWork(work), Note("trained", fields), *effects)


def on_unasked_training(state: AgentState, event: TrainingDone) -> Transition:
    """Drop a training's result that nothing waits for: another round is open, or this one has its update."""
    fields: dict[str, object] = {"round": event.round, "now": state.light.round, "phase": state.light.phase.name}
    return state, (Note("training came too late for its round", fields),)


def on_training_failed(state: AgentState, event: TrainingFailed) -> Transition:
    """Follow only, until the next round."""
    note = Note("training failed", {"round": event.round, "cause": event.reason}, is_fault=True)
    is_ended = state.is_training and state.update.round == event.round
    return _set_failed(state) if is_ended else state, (note,)


def _set_failed(state: AgentState) -> AgentState:
    """The trainer has ended; the update stands as failed until its work is made."""
    return replace(state, update=replace(state.update, phase=UpdatePhase.FAILED))


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
    # Each update may have a size of its own: its payload says how to decode it.
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
