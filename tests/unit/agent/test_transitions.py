"""The agent's table: no event and no phase without an entry, and what `find_illegal` calls illegal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import get_args, get_origin

import numpy as np
import pytest

from agent.core.chain_time import ChainTime, Clock
from agent.core.machine import build_agent_state, step
from agent.core.state import (
    AgentState,
    Download,
    Resync,
    Scorer,
    ScoringPhase,
    Standing,
    Trouble,
    UpdatePhase,
    compute_standing,
    find_illegal,
)
from agent.core.transitions import PHASE_OF, TRANSITIONS, get_phase
from agent.core.values import (
    AgentConfig,
    Event,
    Note,
    ScoreComputed,
    ScoringFailed,
    StartTimer,
    Timer,
    TimerFired,
    TrainingDone,
    WorkHeld,
)
from flchain.base.types import Hash, Millis, Round, UnixMillis
from flchain.light.follow import build_light_state
from tests.support.builders.chain import NO_CLOCK, PARAMETERS_COUNT, build_chain

CHAIN = build_chain()
NOTHING = np.zeros(PARAMETERS_COUNT, np.int32)
HEARD = Clock(Millis(5), UnixMillis(7), ChainTime(UnixMillis(7), Millis(5)))


def build_agent(until_round: int = 0) -> AgentState:
    miners = tuple((key.address, key.public_key) for key in CHAIN.miners)
    config = AgentConfig(CHAIN.devices[0], miners, until_round)
    return build_agent_state(config, build_light_state(CHAIN.genesis, CHAIN.model), NOTHING)


def set_update(state: AgentState, **changes) -> AgentState:
    return replace(state, update=replace(state.update, **changes))


def set_scoring(state: AgentState, **changes) -> AgentState:
    return replace(state, scoring=replace(state.scoring, **changes))


def list_event_kinds() -> set[object]:
    """Every class of the union, and for TimerFired every timer."""
    classes = {get_origin(kind) or kind for kind in get_args(Event)}
    assert TimerFired in classes
    return (classes - {TimerFired}) | set(Timer)


def test_every_event_has_a_row_and_no_row_is_of_nothing() -> None:
    """A new event or timer without an entry in the table fails here, and so does a row that nothing can reach."""
    assert set(TRANSITIONS) == list_event_kinds()


@pytest.mark.parametrize("kind", list(TRANSITIONS), ids=str)
def test_every_row_names_every_phase_of_one_sub_state(kind) -> None:
    """A row says what happens in each phase that there is: none is left to chance."""
    (region,) = {type(phase) for phase in TRANSITIONS[kind]}
    assert set(TRANSITIONS[kind]) == set(region)
    assert get_phase(build_agent(), kind) in TRANSITIONS[kind]
    assert region in PHASE_OF


def test_standing_is_the_strongest_reason_not_to_take_part() -> None:
    """Diverged outranks finished, finished outranks unheard, unheard outranks behind."""
    state = build_agent()
    assert compute_standing(state) is Standing.UNHEARD
    heard = replace(state, clock=HEARD)
    assert compute_standing(heard) is Standing.TAKING_PART
    behind = replace(heard, light=replace(heard.light, chain_model_hash=Hash(bytes(32))))
    assert compute_standing(behind) is Standing.BEHIND
    finished = replace(build_agent(until_round=1), light=replace(state.light, round=Round(2)))
    assert compute_standing(finished) is Standing.FINISHED
    assert compute_standing(replace(finished, trouble=Trouble.DIVERGED)) is Standing.DIVERGED
    assert compute_standing(replace(heard, trouble=Trouble.EXPIRED)) is Standing.TAKING_PART


@pytest.mark.parametrize("phase", [phase for phase in UpdatePhase if phase is not UpdatePhase.TRAINING])
def test_training_that_nobody_waits_for_changes_nothing(phase: UpdatePhase) -> None:
    """An answer of the trainer outside TRAINING makes no second update of a round that has one: it is only noted."""
    state = set_update(replace(build_agent(), clock=HEARD), phase=phase, round=Round(1))
    event = TrainingDone(Round(1), np.ones(PARAMETERS_COUNT, np.float32), 100, 5, 0.5)
    after, effects = step(state, event, HEARD.now_ms, NO_CLOCK)
    assert after.update is state.update
    assert [effect.text for effect in effects if isinstance(effect, Note)] == [
        "training came too late for its round"
    ] and len(effects) == 1


@pytest.mark.parametrize("event", [ScoreComputed(Round(1), None, 5_000), ScoringFailed(Round(1), "no data")])
def test_an_answer_of_a_free_scorer_is_ignored(event: Event) -> None:
    """What nobody has asked for counts as no score and gives up no round."""
    state = set_scoring(build_agent(), phase=ScoringPhase.SCORING, round=Round(1))
    after, effects = step(state, event, Millis(0), NO_CLOCK)
    assert after.scoring is state.scoring and effects == ()


def test_timers_of_a_search_that_is_over_do_nothing() -> None:
    """A RESYNC timer while no search runs asks nobody; a RESEND timer before any header sends nothing."""
    state = replace(build_agent(), outbox={Hash(bytes(32)): (Round(1), b"x")})
    for timer in (Timer.RESYNC, Timer.RESEND):
        assert step(state, TimerFired(timer), Millis(0), NO_CLOCK)[1] == ()


@pytest.mark.parametrize("trouble", [Trouble.NONE, Trouble.DIVERGED])
def test_a_device_that_takes_part_no_more_blames_no_miner_for_silence(trouble: Trouble) -> None:
    """After its last round, or with another model than the chain's, only the timer goes on."""
    finished = replace(build_agent(until_round=1), trouble=trouble)
    finished = replace(finished, light=replace(finished.light, round=Round(2)))
    after, effects = step(finished, TimerFired(Timer.SILENCE), Millis(900_000), NO_CLOCK)
    assert effects == (StartTimer(Timer.SILENCE, 5_000),) and after.following.miner == finished.following.miner


def test_held_work_is_only_a_word_of_the_scheduler() -> None:
    """It changes no phase."""
    state = build_agent()
    after, effects = step(state, WorkHeld(True), Millis(0), NO_CLOCK)
    assert after.is_held and effects == ()
    assert (after.update, after.scoring) == (state.update, state.scoring)


ILLEGAL: dict[str, Callable[[AgentState], AgentState]] = {
    "an update's phase and its round": lambda s: set_update(s, phase=UpdatePhase.TRAINING),
    "an update's phase and its work": lambda s: set_update(s, phase=UpdatePhase.COMMITTED, round=Round(1)),
    "a restored update that is not made": lambda s: set_update(s, is_restored=True),
    "an update of a later round": lambda s: set_update(s, phase=UpdatePhase.FAILED, round=Round(9)),
    "training before any header": lambda s: set_update(s, phase=UpdatePhase.TRAINING, round=Round(1)),
    "a scoring's phase and its round": lambda s: set_scoring(s, phase=ScoringPhase.GIVEN_UP),
    "a scoring's phase and its scores": lambda s: set_scoring(s, phase=ScoringPhase.SCORED, round=Round(1)),
    "scores that belong to no scoring": lambda s: set_scoring(s, found={None: 1}),
    "scoring on a device that does not mine": lambda s: set_scoring(s, scorer=Scorer.BUSY),
    "scoring before any header": lambda s: set_scoring(s, scorer=Scorer.BUSY),
    "a device that is behind and does not search": lambda s: replace(
        s, light=replace(s.light, chain_model_hash=Hash(bytes(32)))
    ),
    "a download without its chunks": lambda s: replace(
        s,
        downloads=replace(
            s.downloads, running={b"x": Download(CHAIN.miners[0].address, True, 8, Millis(0), 0, Millis(0))}
        ),
    ),
    "a message of a later round in the outbox": lambda s: replace(s, outbox={Hash(bytes(32)): (Round(9), b"x")}),
    "news from the future": lambda s: replace(s, following=replace(s.following, heard_ms=Millis(1))),
}


@pytest.mark.parametrize("text", list(ILLEGAL))
def test_what_no_device_may_be_in_is_found(text: str) -> None:
    """Each rule of `find_illegal` can fail: a state that breaks it is named."""
    assert find_illegal(build_agent()) == ()
    assert text in find_illegal(ILLEGAL[text](build_agent()))


def test_every_rule_has_a_state_that_breaks_it() -> None:
    """The broken states above name every rule that there is."""
    found = {text for make in ILLEGAL.values() for text in find_illegal(make(build_agent()))}
    assert found == set(ILLEGAL)


def test_a_search_runs_only_as_long_as_it_is_needed() -> None:
    """The timer of a search that has found its model ends it."""
    state = replace(build_agent(), following=replace(build_agent().following, resync=Resync.ASKED))
    after, effects = step(state, TimerFired(Timer.RESYNC), Millis(0), NO_CLOCK)
    assert after.following.resync is Resync.IDLE and effects == ()
