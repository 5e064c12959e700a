"""How a miner mines: it tests each revealed update on data of its own, commits to the scores, then reveals them."""

from __future__ import annotations

from collections.abc import Mapping

from flchain.base.errors import InvalidMessage
from flchain.base.frozen import replace
from flchain.ledger.state import RevealedUpdate, find_validator
from flchain.rules.phases import PHASE_KINDS, get_present
from flchain.rules.score_words import (
    Subject,
    build_score_commit,
    build_score_reveal,
    compute_subject_model,
    derive_score_salt,
    get_subjects,
)
from flchain.rules.scores import get_home_of
from flchain.rules.transactions import build_update
from flchain.wire.envelope import Verified, seal_verified
from flchain.wire.fields import Kind
from flchain.wire.messages import AnyMessage, Phase, ScoreReveal
from miner.core.pools import mempool
from miner.core.state import MinerState, Transition
from miner.core.values import ComputeScore, Effect, Refuse


def process_phase(state: MinerState) -> Transition:
    """Ask for the scores that are missing, and publish those that are due in this phase."""
    state, effects = _ask_for_scores(state)
    state, more = _publish_scores(state)
    return state, effects + more


def on_pooled(state: MinerState, said: Verified) -> Transition:
    """Ask for the score of a message that has entered the pool, if it is an update of the present phase."""
    if not state.scoring.asked:
        return process_phase(state)  # the first in this round, or the first after a start: ask for everything
    is_due = state.chain.round.phase is Phase.REVEAL and said.kind is Kind.REVEAL
    if not is_due or said.number != state.chain.round.number or not _has_seat(state):
        return state, ()
    return _ask_for(state, {said.sender: (build_update(state.chain, said),)})


def on_score(state: MinerState, subject: Subject, score: int) -> Transition:
    """Take the scorer's answer. An answer to no question of this round changes nothing."""
    scores = state.scoring
    if subject not in scores.asked or subject in scores.computed:
        return state, ()
    computed = scores.computed.with_item(subject, score)
    return _publish_scores(replace(state, scoring=replace(scores, computed=computed)))


def _ask_for_scores(state: MinerState) -> Transition:
    """Score updates as soon as they are revealed: the block that will carry them need not be final yet."""
    round_, me = state.chain.round, state.config.identity.address
    has_committed = me in round_.score_commitments and me not in get_present(state.chain)
    has_to_open = round_.phase is Phase.SETTLE and has_committed
    if round_.phase not in (Phase.COMMIT, Phase.REVEAL, Phase.SCORE) and not has_to_open:
        return state, ()  # in SETTLE only after a restart, to open an earlier commitment
    if not _has_seat(state):
        return state, ()
    return _ask_for(state, _get_wanted(state))


def _has_seat(state: MinerState) -> bool:
    """True if this miner is a validator: the chain takes no scores of others."""
    return find_validator(state.chain, state.config.identity.address) is not None


def _ask_for(state: MinerState, wanted: Mapping[Subject, tuple[RevealedUpdate, ...]]) -> Transition:
    chain, number = state.chain, state.chain.round.number
    asked, effects = state.scoring.asked, []
    for subject, parts in wanted.items():
        if subject not in asked:
            model = compute_subject_model(chain.params, chain.model, parts, chain.chain, number)
            effects.append(ComputeScore(number, subject, model))
            asked = asked.with_item(subject, None)
    return replace(state, scoring=replace(state.scoring, asked=asked)), tuple(effects)


def _get_wanted(state: MinerState) -> dict[Subject, tuple[RevealedUpdate, ...]]:
    """Return the subjects to score by now, each with the updates that it consists of."""
    chain = state.chain
    updates = (*chain.round.reveals, *_get_waiting_updates(state))
    are_all_known = chain.round.phase in (Phase.SCORE, Phase.SETTLE)
    return get_subjects(updates, get_home_of(chain), None, are_all_known=are_all_known)


def _get_waiting_updates(state: MinerState) -> tuple[RevealedUpdate, ...]:
    if state.chain.round.phase is not Phase.REVEAL:
        return ()
    pending = mempool.get_pending(state.mempool, state.chain.round.number, Kind.REVEAL)
    # They passed the rules on their way into the pool, so a block will carry them.
    return tuple(
        build_update(state.chain, said) for sender, said in pending.items() if sender not in state.scoring.asked
    )


def _build_reveal(state: MinerState) -> ScoreReveal | None:
    """Return this miner's scores of the round, or None while some are missing."""
    chain, scores = state.chain, state.scoring.computed
    wanted = _get_wanted(state)
    if len(scores) < len(wanted) or any(subject not in scores for subject in wanted):
        return None
    salt = derive_score_salt(state.config.identity, chain.chain, chain.round.number)
    return build_score_reveal(chain.round.number, salt, chain.round.reveals, get_home_of(chain), scores)


def _publish_scores(state: MinerState) -> Transition:
    round_, me = state.chain.round, state.config.identity.address
    if round_.phase not in (Phase.SCORE, Phase.SETTLE) or me in get_present(state.chain):
        return state, ()
    if not _has_seat(state):
        return state, ()
    reveal = _build_reveal(state)
    if reveal is None:
        return state, ()
    commit = build_score_commit(state.chain.chain, me, reveal)
    if round_.phase is Phase.SCORE:
        return _publish(state, commit)
    if round_.score_commitments.get(me) != commit.commitment:
        return state, ()  # no commitment to these scores: there is nothing to open
    return _publish(state, reveal)


def _publish(state: MinerState, message: AnyMessage) -> Transition:
    pending = mempool.get_pending(state.mempool, state.chain.round.number, message.kind)
    held = pending.get(state.config.identity.address)
    if held is not None and held.message == message:
        return state, ()
    said = seal_verified(message, state.chain.chain, state.config.identity)
    try:
        if mempool.is_known(state.mempool, said):
            return state, ()
        pool, _ = mempool.insert(state.mempool, state.chain, said)
    except InvalidMessage as error:
        # Told here and not to the caller: it may be taking over a final block, which must not be lost for a score.
        return state, (Refuse(error.code, f"own score: {error}"),)
    return replace(state, mempool=pool), (state.build_gossip(said.raw),)


def repeat_scores(state: MinerState) -> tuple[Effect, ...]:
    """Return the effect that repeats this miner's scores of the phase: a peer may have been offline."""
    due = PHASE_KINDS.get(state.chain.round.phase)
    said = mempool.get_pending(state.mempool, state.chain.round.number, due).get(state.config.identity.address)
    return (state.build_gossip(said.raw),) if said is not None else ()
