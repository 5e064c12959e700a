"""The miner's mining: test each revealed update on data of its own, commit to the scores, then reveal them."""

from __future__ import annotations

from collections.abc import Mapping

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
from flchain.rules.settle import get_home_of
from flchain.rules.transactions import build_update
from flchain.wire.envelope import Verified, seal_verified
from flchain.wire.messages import AnyMessage, Kind, Phase, ScoreReveal
from miner.core import mempool
from miner.core.values import ComputeScore, Effect, MinerState

Transition = tuple[MinerState, tuple[Effect, ...]]


def process_phase(state: MinerState) -> Transition:
    """Ask for the scores that are missing, and say those that are due in this phase."""
    state, effects = _ask_for_scores(state)
    state, more = _say_scores(state)
    return state, effects + more


def on_pooled(state: MinerState, said: Verified) -> Transition:
    """A message has come into the pool: if it is an update of the present phase it is to be scored."""
    if not state.scores_asked:
        return process_phase(state)  # after a start everything is to be asked for; of one without a seat nothing
    is_due = state.chain.round.phase is Phase.REVEAL and said.kind is Kind.REVEAL
    if not is_due or said.number != state.chain.round.number or not _has_seat(state):
        return state, ()
    return _ask_for(state, {said.sender: (build_update(state.chain, said),)})


def on_score(state: MinerState, subject: Subject, score: int) -> Transition:
    """The scorer has answered."""
    return _say_scores(replace(state, scores=state.scores.with_item(subject, score)))


def _ask_for_scores(state: MinerState) -> Transition:
    """Score updates as they are revealed, while others still are: the block they go into need not be final yet."""
    round_, me = state.chain.round, state.config.identity.address
    has_committed = me in round_.score_commitments and me not in get_present(state.chain)
    has_to_open = round_.phase is Phase.SETTLE and has_committed
    if round_.phase not in (Phase.COMMIT, Phase.REVEAL, Phase.SCORE) and not has_to_open:
        return state, ()  # in SETTLE only after a restart, to open what was committed to before it
    if not _has_seat(state):
        return state, ()
    return _ask_for(state, _get_wanted(state))


def _has_seat(state: MinerState) -> bool:
    """Nobody would hear the scores of a miner without one."""
    return find_validator(state.chain, state.config.identity.address) is not None


def _ask_for(state: MinerState, wanted: Mapping[Subject, tuple[RevealedUpdate, ...]]) -> Transition:
    chain, number = state.chain, state.chain.round.number
    asked, effects = state.scores_asked, []
    for subject, parts in wanted.items():
        if subject not in asked:
            model = compute_subject_model(chain.params, chain.model, parts, chain.chain, number)
            effects.append(ComputeScore(number, subject, model))
            asked = asked.with_item(subject, None)
    return replace(state, scores_asked=asked), tuple(effects)


def _get_wanted(state: MinerState) -> dict[Subject, tuple[RevealedUpdate, ...]]:
    """What is to be scored by now."""
    chain = state.chain
    updates = (*chain.round.reveals, *_get_waiting_updates(state))
    are_all_known = chain.round.phase in (Phase.SCORE, Phase.SETTLE)
    return get_subjects(updates, get_home_of(chain), None, are_all_known=are_all_known)


def _get_waiting_updates(state: MinerState) -> tuple[RevealedUpdate, ...]:
    if state.chain.round.phase is not Phase.REVEAL:
        return ()
    pending = mempool.get_pending(state.mempool, state.chain.round.number, Kind.REVEAL)
    # The rules have let them into the pool, so they will be in a block.
    return tuple(
        build_update(state.chain, said) for sender, said in pending.items() if sender not in state.scores_asked
    )


def _build_reveal(state: MinerState) -> ScoreReveal | None:
    """This miner's scores of the round, once all are there."""
    chain, scores = state.chain, state.scores
    wanted = _get_wanted(state)
    if len(scores) < len(wanted) or any(subject not in scores for subject in wanted):
        return None
    salt = derive_score_salt(state.config.identity, chain.chain, chain.round.number)
    return build_score_reveal(chain.round.number, salt, chain.round.reveals, get_home_of(chain), scores)


def _say_scores(state: MinerState) -> Transition:
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
        return _say(state, commit)
    if round_.score_commitments.get(me) != commit.commitment:
        return state, ()  # never committed, so there is nothing to open
    return _say(state, reveal)


def _say(state: MinerState, message: AnyMessage) -> Transition:
    pending = mempool.get_pending(state.mempool, state.chain.round.number, message.kind)
    held = pending.get(state.config.identity.address)
    if held is not None and held.message == message:
        return state, ()
    said = seal_verified(message, state.chain.chain, state.config.identity)
    if mempool.is_known(state.mempool, said):
        return state, ()
    pool, _ = mempool.insert(state.mempool, state.chain, said)
    return replace(state, mempool=pool), (state.tell_miners(said.raw),)


def repeat_scores(state: MinerState) -> tuple[Effect, ...]:
    """Say again what this miner has scored in this round: a peer may have been away."""
    due = PHASE_KINDS.get(state.chain.round.phase)
    said = mempool.get_pending(state.mempool, state.chain.round.number, due).get(state.config.identity.address)
    return (state.tell_miners(said.raw),) if said is not None else ()
