"""The miner's mining: test each revealed update on data of its own, commit to the scores, then reveal them."""

from __future__ import annotations

from dataclasses import replace

from flchain.chain import verify_transaction
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
from flchain.phases import PHASE_KINDS, get_expected, get_present
from flchain.settle import compute_delta, get_homes, get_updates_of
from flchain.state import RevealedUpdate, find_validator
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
    if find_validator(state.chain, me) is None:
        return state, ()  # nobody would hear it
    effects: list[Effect] = []
    for subject, updates in _get_wanted(state).items():
        if subject in state.scores_asked:
            continue
        model, params = state.chain.model, state.chain.params
        if updates:
            model = add(model, compute_delta(params, state.chain.chain, round_.number, updates))
        effects.append(ComputeScore(round_.number, subject, model))
    asked = state.scores_asked | {effect.subject for effect in effects if isinstance(effect, ComputeScore)}
    return replace(state, scores_asked=asked), tuple(effects)


def _get_wanted(state: MinerState) -> dict[Address | None, tuple[RevealedUpdate, ...]]:
    """What is to be scored by now: nothing for the base model, an update for a device, several for a miner.

    A miner's aggregate is known only when all updates are. That of a single device is that device's update.
    """
    chain = state.chain
    wanted: dict[Address | None, tuple[RevealedUpdate, ...]] = {None: ()}
    if chain.round.phase is Phase.COMMIT:
        return wanted
    wanted.update({update.sender: (update,) for update in chain.round.reveals})
    wanted.update(_get_waiting_updates(state))
    if chain.round.phase is not Phase.REVEAL:
        aggregates = {home: get_updates_of(chain, home) for home in get_homes(chain)}
        wanted.update({home: updates for home, updates in aggregates.items() if len(updates) > 1})
    return wanted


def _get_waiting_updates(state: MinerState) -> dict[Address | None, tuple[RevealedUpdate, ...]]:
    if state.chain.round.phase is not Phase.REVEAL:
        return {}
    updates: dict[Address | None, tuple[RevealedUpdate, ...]] = {}
    for sender, raw in mempool.get_candidates(state.mempool, state.chain.round.number, Kind.REVEAL).items():
        if sender in state.scores_asked:
            continue
        # The rules have let it into the pool, so it will be in a block; here it is only read.
        message = verify_transaction(state.chain, open_envelope(raw, state.chain.chain))
        assert isinstance(message, Reveal)
        updates[sender] = (RevealedUpdate(sender, message.samples, message.update),)
    return updates


def _build_reveal(state: MinerState) -> ScoreReveal | None:
    """This miner's scores of the round, once all are there. The salt is a secret function of key and round, so that a
    restart opens the commitment made before it."""
    chain, scores = state.chain, state.scores
    if any(subject not in scores for subject in _get_wanted(state)):
        return None
    identity, number = state.config.identity, chain.round.number
    salt = identity.derive_secret("score-salt", chain.chain + number.to_bytes(8, "big"))[:SALT_BYTES]
    of_devices = tuple((bytes(update.sender), scores[update.sender]) for update in chain.round.reveals)
    of_miners = tuple((bytes(home), _get_aggregate_score(state, home)) for home in get_homes(chain))
    return ScoreReveal(number, salt, scores[None], of_devices, of_miners)


def _get_aggregate_score(state: MinerState, home: Address) -> int:
    updates = get_updates_of(state.chain, home)
    return state.scores[home if len(updates) > 1 else updates[0].sender]


def _say_scores(state: MinerState) -> Transition:
    round_, me = state.chain.round, state.config.identity.address
    if round_.phase not in (Phase.SCORE, Phase.SETTLE) or me in get_present(state.chain):
        return state, ()
    if find_validator(state.chain, me) is None:
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
