"""The agent as a pure machine: step(state, event, now_ms) -> (state, effects). Nothing here waits, reads or sends."""

from __future__ import annotations

from agent.core import transitions
from agent.core.chain_time import advance_clock
from agent.core.state import (
    AgentState,
    Following,
    RoundScores,
    RoundUpdate,
    ScoringPhase,
    Transition,
    UpdatePhase,
)
from agent.core.values import AgentConfig, Event, Refuse, Scores, Work
from flchain.base.errors import InvalidMessage
from flchain.base.frozen import replace
from flchain.base.types import Hash, Millis, ModelVector, Round, UnixMillis
from flchain.light.follow import LightState
from flchain.wire.release import Release
from flchain.wire.topics import Topics


def build_agent_state(
    config: AgentConfig,
    light_state: LightState,
    residual: ModelVector,
    saved_work: Work | None = None,
    outbox: dict[Hash, tuple[Round, bytes]] | None = None,
    *,
    saved_scores: Scores | None = None,
    release: Release | None = None,
) -> AgentState:
    """Return the state after a start: what the store holds, or the genesis and an empty residual."""
    update, scoring = RoundUpdate(), RoundScores()
    if saved_work is not None:
        update = RoundUpdate(UpdatePhase.TRAINED, saved_work.round, saved_work, is_restored=True)
    if saved_scores is not None:
        scoring = RoundScores(ScoringPhase.SCORED, saved_scores.round, scores=saved_scores)
    return AgentState(
        config=config,
        topics=Topics.of_chain(light_state.chain),
        light=light_state,
        residual=residual,
        following=Following(config.miners[0][0]),
        update=update,
        scoring=scoring,
        outbox=outbox or {},
        release=release,
    )


def step(state: AgentState, event: Event, now_ms: Millis, clock_ms: UnixMillis) -> Transition:
    """Take one event; return the next state and what is wanted. A peer's fault becomes a Refuse and changes nothing.

    `now_ms` is of a monotonic clock and times what waits; `clock_ms` is this machine's and may be wrong (`chain_time`).
    """
    try:
        clock = advance_clock(state.clock, now_ms, clock_ms)
        return transitions.process_event(replace(state, clock=clock), event)
    except InvalidMessage as error:
        return state, (Refuse(error.code, str(error)),)
