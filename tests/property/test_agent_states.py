"""Whatever a device lives through, it is in a legal state, and the table is what decided."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core import machine, transitions
from agent.core import state as state_rules
from agent.core.machine import build_agent_state
from agent.core.state import AgentState, Scorer, Standing, UpdatePhase, find_illegal
from agent.core.transitions import TRANSITIONS
from agent.core.values import (
    AgentConfig,
    Connected,
    Event,
    LeavePlanned,
    MiningAllowed,
    PacketReceived,
    ScoreComputed,
    ScoringFailed,
    Timer,
    TimerFired,
    TrainingDone,
    TrainingFailed,
    WorkHeld,
)
from flchain.base.types import Millis, Round
from flchain.light.follow import build_light_state
from flchain.wire.packets import PacketType, encode_packet
from flchain.wire.topics import Topics
from tests.support.builders.chain import NO_CLOCK, PARAMETERS_COUNT, Driver, build_chain
from tests.support.sim_faults import ROUGH, schedule_faults
from tests.support.watched_machine import watch_steps
from tools.sim.network import Network

CHAIN = build_chain()
TOPICS = Topics.of_chain(CHAIN.id)
ROUNDS = 2


def build_driver() -> Driver:
    driver = Driver(CHAIN)
    for _ in range(ROUNDS):
        driver.run_round()
    return driver


DRIVER = build_driver()
HEIGHTS = len(DRIVER.blocks)


def test_simulated_devices_are_only_in_legal_states(monkeypatch) -> None:
    """Rounds under faults, with devices that mine, restart and lose their links: each state after each event is legal,
    and the runs come through the entries that matter."""
    seen = watch_steps(monkeypatch, machine, transitions, state_rules)
    for seed in range(6):
        network = schedule_faults(Network(seed, rounds=2, links=ROUGH, mining=frozenset({"d0", "d1"}))).run()
        assert network.violations == [], network.explain()
    for entry in (
        (Connected, Standing.UNHEARD),
        (Connected, Standing.TAKING_PART),
        (PacketReceived, Standing.BEHIND),
        (TrainingDone, UpdatePhase.TRAINING),
        (ScoreComputed, Scorer.BUSY),
        (Timer.RESEND, Standing.TAKING_PART),
        (Timer.SILENCE, Standing.TAKING_PART),
    ):
        assert seen[entry] > 0, entry


def list_packets() -> list[PacketReceived]:
    """Every header and body of two rounds, full and light, from every miner."""
    found = []
    for miner in CHAIN.miners:
        for block, certificate in zip(DRIVER.blocks, DRIVER.certificates, strict=True):
            head = encode_packet(PacketType.HEAD, block.header_bytes, certificate, b"")
            found.append(PacketReceived(TOPICS.miner_head(miner.address), head))
    for height, block in enumerate(DRIVER.blocks, 1):
        body = encode_packet(PacketType.BODY, height, block.body_bytes)
        found.append(PacketReceived(TOPICS.miner_body(CHAIN.miners[0].address), body))
    return found


def build_agent() -> AgentState:
    miners = tuple((key.address, key.public_key) for key in CHAIN.miners)
    config = AgentConfig(CHAIN.devices[0], miners, is_mining=True)
    light = build_light_state(CHAIN.genesis, CHAIN.model)
    return build_agent_state(config, light, np.zeros(PARAMETERS_COUNT, np.int32))


ROUND_NUMBERS = st.integers(1, ROUNDS + 1).map(Round)
SUBJECTS = st.sampled_from((None, *(key.address for key in CHAIN.devices)))
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.sampled_from(list_packets()),
    st.sampled_from(list_packets()[:HEIGHTS]),
    st.just(Connected()),
    st.sampled_from([TimerFired(timer) for timer in Timer]),
    ROUND_NUMBERS.map(lambda r: TrainingDone(r, np.full(PARAMETERS_COUNT, 0.1, np.float32), 100, 5, 0.5)),
    st.builds(TrainingFailed, ROUND_NUMBERS, st.just("no data")),
    st.builds(ScoreComputed, ROUND_NUMBERS, SUBJECTS, st.integers(0, 10_000)),
    st.builds(ScoringFailed, ROUND_NUMBERS, st.just("no data")),
    st.builds(MiningAllowed, st.booleans()),
    st.builds(WorkHeld, st.booleans()),
    st.builds(LeavePlanned, st.booleans()),
)


def test_the_events_below_are_all_that_there_are() -> None:
    """The random walk draws from every row of the table."""
    drawn = {PacketReceived, Connected, TrainingDone, TrainingFailed, ScoreComputed, ScoringFailed}
    assert drawn | {MiningAllowed, WorkHeld, LeavePlanned} | set(Timer) == set(TRANSITIONS)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(EVENTS, st.integers(0, 6_000)), max_size=60))
def test_any_order_of_events_leaves_a_legal_state(events: list[tuple[Event, int]]) -> None:
    """Answers that nobody waits for, timers out of turn, headers out of order, and a restart in the end: all legal."""
    state, now_ms = build_agent(), 0
    for event, passed_ms in events:
        now_ms += passed_ms
        state, _ = machine.step(state, event, Millis(now_ms), NO_CLOCK)
        assert find_illegal(state) == (), event
    work, scores = state.update.work, state.scoring.scores
    saved = (state.light, state.residual, work, dict(state.outbox))
    again = build_agent_state(state.config, *saved, saved_scores=scores)
    searching = replace(again, following=replace(again.following, resync=state.following.resync))
    assert find_illegal(searching) == ()
