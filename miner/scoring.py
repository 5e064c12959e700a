"""The miner's mining: test each revealed update on data of its own, commit to the scores, then reveal them."""

from __future__ import annotations

from dataclasses import replace

from flchain.chain import PHASE_KINDS, verify_transaction
from flchain.codecs import CODECS
from flchain.fixedpoint import add
from flchain.messages import (
    SALT_BYTES,
    AnyMessage,
    Kind,
    Phase,
    Reveal,
    ScoreCommit,
    ScoreReveal,
    compute_score_commitment,
)
from flchain.state import get_expected, get_present
from flchain.types import Address
from flchain.wire import open_envelope, seal
from miner import mempool
from miner.values import ComputeScore, Effect, MinerState

Transition = tuple[MinerState, tuple[Effect, ...]]


def process_phase(state: MinerState) -> Transition:
    """Ask for the scores that are missing, and say those that are due in this phase."""
    state, effects = _ask_for_scores(state)
    state, more = _say_scores(state)
    return state, effects + more


def _ask_for_scores(state: MinerState) -> Transition:
    """Score updates as they are revealed, while others still are: the block they go into need not be final yet."""
    round_, me = state.chain.round, state.config.identity.address
    has_to_open = round_.phase is Phase.SETTLE and me in get_expected(state.chain) - get_present(state.chain)
    if round_.phase not in (Phase.COMMIT, Phase.REVEAL, Phase.SCORE) and not has_to_open:
        return state, ()  # in SETTLE only after a restart, to open what was committed to before it
    wanted: dict[Address | None, bytes | None] = {None: None}
    if round_.phase is not Phase.COMMIT:
        wanted.update({reveal.sender: reveal.update for reveal in round_.reveals})
        wanted.update(_get_waiting_updates(state))
    effects: list[Effect] = []
    for sender, update in wanted.items():
        if sender in state.scores_asked:
            continue
        model = state.chain.model
        if update is not None:
            params = state.chain.params
            model = add(model, CODECS[params.codec].decode(update, params.parameters_count, params.codec_level))
        effects.append(ComputeScore(round_.number, sender, model))
    asked = state.scores_asked | frozenset(wanted)
    return replace(state, scores_asked=asked), tuple(effects)


def _get_waiting_updates(state: MinerState) -> dict[Address | None, bytes | None]:
    if state.chain.round.phase is not Phase.REVEAL:
        return {}
    updates: dict[Address | None, bytes | None] = {}
    for sender, raw in mempool.get_candidates(state.mempool, state.chain.round.number, Kind.REVEAL).items():
        if sender in state.scores_asked:
            continue
        # The rules have let it into the pool, so it will be in a block; here it is only read.
        message = verify_transaction(state.chain, open_envelope(raw, state.chain.chain))
        assert isinstance(message, Reveal)
        updates[sender] = message.update
    return updates


def _build_reveal(state: MinerState) -> ScoreReveal | None:
    """This miner's scores of the round, once all are there. The salt is a secret function of key and round, so that a
    restart opens the commitment made before it."""
    round_ = state.chain.round
    wanted = tuple(update.sender for update in round_.reveals)
    if None not in state.scores or any(sender not in state.scores for sender in wanted):
        return None
    identity = state.config.identity
    salt = identity.derive_secret("score-salt", state.chain.chain + round_.number.to_bytes(8, "big"))[:SALT_BYTES]
    scores = tuple((bytes(sender), state.scores[sender]) for sender in wanted)
    return ScoreReveal(round_.number, salt, state.scores[None], scores)


def _say_scores(state: MinerState) -> Transition:
    round_, me = state.chain.round, state.config.identity.address
    if round_.phase not in (Phase.SCORE, Phase.SETTLE) or me in get_present(state.chain):
        return state, ()
    reveal = _build_reveal(state)
    if reveal is None:
        return state, ()
    commitment = compute_score_commitment(state.chain.chain, me, reveal)
    if round_.phase is Phase.SCORE:
        return _say(state, ScoreCommit(round_.number, commitment))
    if dict(round_.score_commits).get(me) != commitment:
        return state, ()  # never committed, so there is nothing to open
    return _say(state, reveal)


def _say(state: MinerState, message: AnyMessage) -> Transition:
    raw = seal(message, state.chain.chain, state.config.identity)
    envelope = open_envelope(raw, state.chain.chain)
    if mempool.is_known(state.mempool, envelope):
        return state, ()
    pool, _ = mempool.insert(state.mempool, state.chain, envelope)
    return replace(state, mempool=pool), (state.tell_miners(raw),)


def repeat_scores(state: MinerState) -> tuple[Effect, ...]:
    """Say again what this miner has scored in this round: a peer may have been away."""
    me, number = state.config.identity.address, state.chain.round.number
    due = PHASE_KINDS.get(state.chain.round.phase)
    return tuple(
        state.tell_miners(raw)
        for (round_number, kind, sender), raw in sorted(state.mempool.messages.items())
        if round_number == number and sender == me and kind is due
    )
