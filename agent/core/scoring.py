"""Mining on the device: test the others' updates on data of its own, commit to the scores, then open them.

One model is in memory at a time, and one score is asked for at a time. Scores are durable before the commitment to them
leaves; from then on they go the way of an update: outbox, receipt, and again after a restart (see `work`).
"""

from __future__ import annotations

from agent.core import update
from agent.core.values import (
    AgentState,
    ComputeScore,
    Effect,
    MiningAllowed,
    Note,
    SaveScores,
    ScoreComputed,
    Scores,
    Scoring,
    ScoringFailed,
    WorkHeld,
)
from flchain.base.errors import InvalidMessage
from flchain.base.frozen import replace
from flchain.ledger.state import RevealedUpdate
from flchain.rules.score_words import (
    Subject,
    build_score_commit,
    build_score_reveal,
    compute_subject_model,
    derive_score_salt,
    get_subjects,
)
from flchain.wire.envelope import seal
from flchain.wire.messages import Phase

Transition = tuple[AgentState, tuple[Effect, ...]]


def pursue(state: AgentState) -> Transition:
    """Ask for the next score, or say all once they are there; work for a phase that is over is dropped and says so."""
    state, dropped = _drop_stale(state)
    if not _is_due(state):
        return state, dropped
    light = state.light
    if not light.is_gapless:
        state, effects = _give_up(state, "headers of this round were missed, and with them perhaps updates")
        return state, dropped + effects
    scoring = state.scoring or Scoring(light.round)
    missing = [item for item in _get_wanted(state).items() if item[0] not in scoring.scores]
    state = replace(state, scoring=scoring)
    state, effects = _ask(state, *missing[0]) if missing else _finish(state)
    return state, dropped + effects


def on_decision(state: AgentState, event: MiningAllowed | WorkHeld) -> Transition:
    """What the scheduler has decided of this device's work."""
    if isinstance(event, WorkHeld):
        return replace(state, is_held=event.is_held), ()
    return pursue(replace(state, is_mining_allowed=event.is_allowed))


def count_due(state: AgentState) -> int:
    """Models that are still to be scored now, the one that is being scored included."""
    if not _is_due(state) or not state.light.is_gapless:
        return 0
    scores = state.scoring.scores if state.scoring is not None else {}
    return sum(subject not in scores for subject in _get_wanted(state))


def _is_due(state: AgentState) -> bool:
    """True if this device is to score in the open round and has not done so."""
    light, own, scoring = state.light, state.work, state.scoring
    if not light.is_synced or state.is_mismatch or update.is_paused(state) or (scoring and scoring.is_given_up):
        return False
    if state.chain_time is None:
        return False
    has_pledged = state.config.is_mining and own is not None and own.round == light.round and own.will_score
    is_scored = state.scores is not None and state.scores.round == light.round
    return (state.is_mining or has_pledged) and not is_scored and light.phase in (Phase.REVEAL, Phase.SCORE)


def _get_wanted(state: AgentState) -> dict[Subject, tuple[RevealedUpdate, ...]]:
    """What is to be scored by now: while updates are still revealed, those that are final already."""
    light, me = state.light, state.config.identity.address
    return get_subjects(light.updates, light.homes.__getitem__, me, are_all_known=light.has_all_updates)


def _ask(state: AgentState, subject: Subject, parts: tuple[RevealedUpdate, ...]) -> Transition:
    if state.is_score_awaited:
        return state, ()
    light = state.light
    try:
        model = compute_subject_model(light.params, light.model, parts, light.chain, light.round)
    except InvalidMessage as error:
        return _give_up(state, f"an update does not decode: {error}", is_fault=True)
    return replace(state, is_score_awaited=True), (ComputeScore(light.round, subject, model),)


def _finish(state: AgentState) -> Transition:
    """Every score is there: sign both messages, keep them, and say what is due."""
    light, identity, scoring = state.light, state.config.identity, state.scoring
    if not light.has_all_updates or light.phase is not Phase.SCORE or scoring is None:
        return state, ()
    salt = derive_score_salt(identity, light.chain, light.round)
    reveal = build_score_reveal(light.round, salt, light.updates, light.homes.__getitem__, scoring.scores)
    commit = build_score_commit(light.chain, identity.address, reveal)
    scores = Scores(light.round, seal(commit, light.chain, identity), seal(reveal, light.chain, identity))
    note = Note("scored", {"round": light.round, "models": len(scoring.scores), "base": reveal.base_score})
    state, effects = update.pursue(replace(state, scores=scores, scoring=None))
    return state, (SaveScores(scores), note, *effects)


def _drop_stale(state: AgentState) -> Transition:
    """Forget scores that nobody can be told any more, with the reason: the phase has closed without this device."""
    light, scoring = state.light, state.scoring
    if scoring is None or (scoring.round == light.round and light.phase in (Phase.REVEAL, Phase.SCORE)):
        return state, ()
    state = replace(state, scoring=None)
    if scoring.is_given_up:
        return state, ()
    fields = {"round": scoring.round, "scored": len(scoring.scores), "now": light.round, "phase": light.phase.name}
    if scoring.round == light.round and not light.has_all_updates:
        return state, (Note("scores dropped: not every update of the round has come", fields),)
    return state, (Note("scores dropped: they came too late for their round", fields),)


def on_score_computed(state: AgentState, event: ScoreComputed) -> Transition:
    """The scorer is free again; its answer counts if it is of the open round."""
    state, scoring = replace(state, is_score_awaited=False), state.scoring
    if scoring is not None and scoring.round == event.round:
        state = replace(state, scoring=replace(scoring, scores={**scoring.scores, event.subject: event.score}))
    return pursue(state)


def on_scoring_failed(state: AgentState, event: ScoringFailed) -> Transition:
    """No scores in this round; the next one is tried again."""
    state = replace(state, is_score_awaited=False)
    if state.scoring is None or state.scoring.round != event.round:
        return pursue(state)
    return _give_up(state, event.reason, is_fault=True)


def _give_up(state: AgentState, reason: str, *, is_fault: bool = False) -> Transition:
    note = Note("no scores in this round", {"round": state.light.round, "cause": reason}, is_fault)
    return replace(state, scoring=Scoring(state.light.round, is_given_up=True)), (note,)
