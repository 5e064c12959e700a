"""The miner's mining: test each revealed update on data of its own, commit to the scores, then reveal them."""

from __future__ import annotations

from dataclasses import replace

from flchain.ledger.state import RevealedUpdate, find_validator
from flchain.rules.blocks import verify_transaction
from flchain.rules.phases import PHASE_KINDS, get_present
from flchain.rules.score_words import (
    Subject,
    build_score_commit,
    build_score_reveal,
    compute_subject_model,
    derive_score_salt,
    get_subjects,
)
from flchain.rules.settle import get_home_of
from flchain.wire.envelope import open_envelope, seal
from flchain.wire.messages import AnyMessage, Kind, Phase, Reveal, ScoreReveal
from miner.core import mempool
from miner.core.values import ComputeScore, Effect, MinerState

Transition = tuple[MinerState, tuple[Effect, ...]]


def process_phase(state: MinerState) -> Transition:
    """Ask for the scores that are missing, and say those that are due in this phase."""
    state, effects = _ask_for_scores(state)
    state, more = _say_scores(state)
    return state, effects + more


def _ask_for_scores(state: MinerState) -> Transition:
    """Score updates as they are revealed, while others still are: the block they go into need not be final yet."""
    round_, me = state.chain.round, state.config.identity.address
    has_to_open = round_.phase is Phase.SETTLE and me in dict(round_.score_commits).keys() - get_present(state.chain)
    if round_.phase not in (Phase.COMMIT, Phase.REVEAL, Phase.SCORE) and not has_to_open:
        return state, ()  # in SETTLE only after a restart, to open what was committed to before it
    if find_validator(state.chain, me) is None:
        return state, ()  # nobody would hear it
    params, model, place = state.chain.params, state.chain.model, (state.chain.chain, round_.number)
    effects = tuple(
        ComputeScore(round_.number, subject, compute_subject_model(params, model, parts, *place))
        for subject, parts in _get_wanted(state).items()
        if subject not in state.scores_asked
    )
    return replace(state, scores_asked=state.scores_asked | {effect.subject for effect in effects}), effects


def _get_wanted(state: MinerState) -> dict[Subject, tuple[RevealedUpdate, ...]]:
    """What is to be scored by now."""
    chain = state.chain
    updates = (*chain.round.reveals, *_get_waiting_updates(state))
    are_all_known = chain.round.phase in (Phase.SCORE, Phase.SETTLE)
    return get_subjects(updates, get_home_of(chain), None, are_all_known=are_all_known)


def _get_waiting_updates(state: MinerState) -> tuple[RevealedUpdate, ...]:
    if state.chain.round.phase is not Phase.REVEAL:
        return ()
    updates: list[RevealedUpdate] = []
    for sender, raw in mempool.get_candidates(state.mempool, state.chain.round.number, Kind.REVEAL).items():
        if sender in state.scores_asked:
            continue
        # The rules have let it into the pool, so it will be in a block; here it is only read.
        message = verify_transaction(state.chain, open_envelope(raw, state.chain.chain))
        assert isinstance(message, Reveal)
        updates.append(RevealedUpdate(sender, message.samples, message.update))
    return tuple(updates)


def _build_reveal(state: MinerState) -> ScoreReveal | None:
    """This miner's scores of the round, once all are there."""
    chain, scores = state.chain, state.scores
    if any(subject not in scores for subject in _get_wanted(state)):
        return None
    salt = derive_score_salt(state.config.identity, chain.chain, chain.round.number)
    return build_score_reveal(chain.round.number, salt, chain.round.reveals, get_home_of(chain), scores)


def _say_scores(state: MinerState) -> Transition:
    round_, me = state.chain.round, state.config.identity.address
    if round_.phase not in (Phase.SCORE, Phase.SETTLE) or me in get_present(state.chain):
        return state, ()
    if find_validator(state.chain, me) is None:
        return state, ()
    reveal = _build_reveal(state)
    if reveal is None:
        return state, ()
    commit = build_score_commit(state.chain.chain, me, reveal)
    if round_.phase is Phase.SCORE:
        return _say(state, commit)
    if dict(round_.score_commits).get(me) != commit.commitment:
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
