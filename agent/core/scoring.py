"""Mining on the device: test the others' updates on its own data, commit to the scores, then reveal them.

One model is in memory at a time, and one score is asked for at a time. Scores are durable before the commitment to them
leaves; from then on they go the way of an update: outbox, receipt, and again after a restart (see `update`).
"""

from __future__ import annotations

from agent.core import update
from agent.core.state import (
    AgentState,
    RoundScores,
    Scorer,
    ScoringPhase,
    Standing,
    Transition,
    compute_standing,
)
from agent.core.values import (
    ComputeScore,
    MiningAllowed,
    Note,
    SaveScores,
    ScoreComputed,
    Scores,
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


def advance_scores(state: AgentState) -> Transition:
    """Ask for the next score, or publish all once they are there; drop work for a phase that is over, and say so."""
    state, dropped = _drop_stale(state)
    if not _is_due(state):
        return state, dropped
    light = state.light
    if not light.is_gapless:
        state, effects = _give_up(state, "headers of this round were missed, and with them perhaps updates")
        return state, dropped + effects
    if state.scoring.phase is not ScoringPhase.SCORING:
        scoring = replace(state.scoring, phase=ScoringPhase.SCORING, round=light.round, found={})
        state = replace(state, scoring=scoring)
    missing = [item for item in _get_wanted(state).items() if item[0] not in state.scoring.found]
    state, effects = _ask(state, *missing[0]) if missing else _finish(state)
    return state, dropped + effects


def on_mining_allowed(state: AgentState, event: MiningAllowed) -> Transition:
    """The scheduler allows mining from now on, or forbids it."""
    return advance_scores(replace(state, is_mining_allowed=event.is_allowed))


def on_work_held(state: AgentState, event: WorkHeld) -> Transition:
    """The scheduler holds this device's work, or lets it go on."""
    return replace(state, is_held=event.is_held), ()


def count_due(state: AgentState) -> int:
    """Return how many models are still to be scored now, the one that is being scored included."""
    if not _is_due(state) or not state.light.is_gapless:
        return 0
    return sum(subject not in state.scoring.found for subject in _get_wanted(state))


def _is_due(state: AgentState) -> bool:
    """True if this device is to score in the open round and has not done so."""
    light, work = state.light, state.update.work
    if compute_standing(state) is not Standing.TAKING_PART or state.scoring.phase is ScoringPhase.GIVEN_UP:
        return False
    has_pledged = state.config.is_mining and state.has_work and work is not None and work.will_score
    return (state.is_mining or has_pledged) and not state.has_scores and light.phase in (Phase.REVEAL, Phase.SCORE)


def _get_wanted(state: AgentState) -> dict[Subject, tuple[RevealedUpdate, ...]]:
    """Return what can be scored now: while updates are still being revealed, those that are final already."""
    light, me = state.light, state.config.identity.address
    return get_subjects(light.updates, light.homes.__getitem__, me, are_all_known=light.has_all_updates)


def _ask(state: AgentState, subject: Subject, parts: tuple[RevealedUpdate, ...]) -> Transition:
    if state.is_scoring:
        return state, ()
    light = state.light
    try:
        model = compute_subject_model(light.params, light.model, parts, light.chain, light.round)
    except InvalidMessage as error:
        return _give_up(state, f"an update does not decode: {error}", is_fault=True)
    busy = replace(state.scoring, scorer=Scorer.BUSY)
    return replace(state, scoring=busy), (ComputeScore(light.round, subject, model),)


def _finish(state: AgentState) -> Transition:
    """Sign both messages once every score is there, keep them, and publish what is due."""
    light, identity, found = state.light, state.config.identity, state.scoring.found
    if not light.has_all_updates or light.phase is not Phase.SCORE:
        return state, ()
    salt = derive_score_salt(identity, light.chain, light.round)
    reveal = build_score_reveal(light.round, salt, light.updates, light.homes.__getitem__, found)
    commit = build_score_commit(light.chain, identity.address, reveal)
    scores = Scores(light.round, seal(commit, light.chain, identity), seal(reveal, light.chain, identity))
    note = Note("scored", {"round": light.round, "models": len(found), "base": reveal.base_score})
    scored = RoundScores(ScoringPhase.SCORED, light.round, scores=scores, scorer=state.scoring.scorer)
    state, effects = update.advance_update(replace(state, scoring=scored))
    return state, (SaveScores(scores), note, *effects)


def _drop_stale(state: AgentState) -> Transition:
    """Forget scores that can no longer be published, with the reason: the phase has closed without this device."""
    light, scoring = state.light, state.scoring
    if scoring.phase not in (ScoringPhase.SCORING, ScoringPhase.GIVEN_UP):
        return state, ()
    if scoring.round == light.round and light.phase in (Phase.REVEAL, Phase.SCORE):
        return state, ()
    state = replace(state, scoring=replace(scoring, phase=ScoringPhase.IDLE, round=None, found={}))
    if scoring.phase is ScoringPhase.GIVEN_UP:
        return state, ()
    fields: dict[str, object] = {
        "round": scoring.round,
        "scored": len(scoring.found),
        "now": light.round,
        "phase": light.phase.name,
    }
    if scoring.round == light.round and not light.has_all_updates:
        return state, (Note("scores dropped: not every update of the round has come", fields),)
    return state, (Note("scores dropped: they came too late for their round", fields),)


def on_score_computed(state: AgentState, event: ScoreComputed) -> Transition:
    """The scorer is free again; its answer counts if it is of the open round."""
    scoring = replace(state.scoring, scorer=Scorer.FREE)
    if scoring.phase is ScoringPhase.SCORING and scoring.round == event.round:
        scoring = replace(scoring, found={**scoring.found, event.subject: event.score})
    return advance_scores(replace(state, scoring=scoring))


def on_scoring_failed(state: AgentState, event: ScoringFailed) -> Transition:
    """Give no scores in this round; the next one is tried again."""
    state = replace(state, scoring=replace(state.scoring, scorer=Scorer.FREE))
    is_of_round = state.scoring.phase in (ScoringPhase.SCORING, ScoringPhase.GIVEN_UP)
    if not is_of_round or state.scoring.round != event.round:
        return advance_scores(state)
    return _give_up(state, event.reason, is_fault=True)


def _give_up(state: AgentState, reason: str, *, is_fault: bool = False) -> Transition:
    note = Note("no scores in this round", {"round": state.light.round, "cause": reason}, is_fault)
    given_up = replace(state.scoring, phase=ScoringPhase.GIVEN_UP, round=state.light.round, found={})
    return replace(state, scoring=given_up), (note,)
