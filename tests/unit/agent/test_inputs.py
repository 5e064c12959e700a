"""What the scheduler is told: deadlines, training that is left, scores that are due."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agent.core.following import is_busy
from agent.core.machine import build_agent_state, step
from agent.core.state import AgentState, Trouble
from agent.core.values import AgentConfig, Event, PacketReceived, Train, TrainingDone, WorkHeld
from agent.scheduling.decide import build_scheduler_state, decide
from agent.scheduling.history import (
    VERDICTS_MAX,
    build_history,
    decode_history,
    encode_history,
    observe_commit_phase,
    observe_score,
    observe_settled,
    observe_training,
)
from agent.scheduling.inputs import (
    LEFT_CORE_S_MIN,
    Measured,
    build_inputs,
    describe_load,
    expect_round_of_scores,
    watch_round,
)
from agent.scheduling.readings import BoardReading
from agent.scheduling.settings import SchedulerSettings
from agent.scheduling.values import CpuOutlook
from flchain.base.types import Millis, Round
from flchain.light.follow import build_light_state
from flchain.wire.messages import Phase
from flchain.wire.packets import PacketType, encode_packet
from flchain.wire.topics import Topics
from tests.support.builders.chain import NO_CLOCK, PARAMETERS_COUNT, Driver, build_chain

CHAIN = build_chain(miners=4, devices=5, reward_per_update=500, reward_for_scores=11_000, commit_patience_ms=3_000)
READING = BoardReading(10**9, temperature_c=40.0, is_throttled=False, is_on_battery=False)
FRESH = build_history(CHAIN.id.hex(), 3.0)
MEASURED = Measured(READING, CpuOutlook(4.0, train_cores_max=1.0))


def build_agent(is_mining: bool = True) -> AgentState:
    miners = tuple((key.address, key.public_key) for key in CHAIN.miners)
    config = AgentConfig(CHAIN.devices[0], miners, is_mining=is_mining)
    light = build_light_state(CHAIN.genesis, CHAIN.model)
    return build_agent_state(config, light, np.zeros(PARAMETERS_COUNT, np.int32))


def play(state: AgentState, *events: Event, now_ms: int = 0) -> AgentState:
    for event in events:
        state, _ = step(state, event, Millis(now_ms), NO_CLOCK)
    return state


def blocks(driver: Driver, *heights: int) -> list[Event]:
    """Headers and bodies of these heights as the home miner sends them."""
    topics, home = Topics.of_chain(CHAIN.id), CHAIN.miners[0].address
    events: list[Event] = []
    for height in heights:
        block, certificate = driver.blocks[height - 1], driver.certificates[height - 1]
        head = encode_packet(PacketType.HEAD, block.header_bytes, certificate, b"")
        body = encode_packet(PacketType.BODY, height, block.body_bytes)
        events += [PacketReceived(topics.miner_head(home), head), PacketReceived(topics.miner_body(home), body)]
    return events


def trained() -> TrainingDone:
    return TrainingDone(Round(1), np.linspace(-0.1, 0.1, PARAMETERS_COUNT).astype(np.float32), 100, 5, 0.5)


def play_to_commit() -> tuple[Driver, AgentState]:
    driver = Driver(CHAIN)
    driver.run_round()
    return driver, play(build_agent(), *blocks(driver, 1))


def test_training_that_runs_is_never_told_to_be_over() -> None:
    """Before its first word, at its last step, and when it has taken more than ever: something is left of it."""
    _, state = play_to_commit()
    watch, _ = watch_round(None, FRESH, state, Millis(0))
    usual = observe_training(FRESH, 10.0)
    cases = [(FRESH, (0, 0), 0.0), (usual, (0, 0), 99.0), (usual, (100, 100), 12.0), (usual, (50, 100), 4.0)]
    left = []
    for history, steps, used in cases:
        measured = replace(MEASURED, steps=steps, training_core_s=used)
        outlook = build_inputs(state, watch, history, measured).round
        assert outlook is not None and outlook.is_training_due
        left.append(outlook.training_left_core_s)
    assert left[0] == pytest.approx(0.75), "a quarter of the chain's patience, on one core"
    assert left[1] == left[2] == LEFT_CORE_S_MIN
    assert 3.5 < left[3] < 5.0, "half of the steps, at their own pace and a little by habit"


def test_nothing_is_due_without_a_training_of_this_round() -> None:
    """Before it begins, once it is done, after its phase, and on a device whose model is not the chain's."""
    driver, state = play_to_commit()
    watch, _ = watch_round(None, FRESH, state, Millis(0))
    for other in (
        build_agent(),
        play(state, trained()),
        play(state, *blocks(driver, 2)),
        replace(state, trouble=Trouble.DIVERGED),
        replace(state, update=replace(state.update, round=Round(9))),
    ):
        outlook = build_inputs(other, watch_round(None, FRESH, other, Millis(0))[0], FRESH, MEASURED).round
        assert outlook is None or not outlook.is_training_due
    _, decision = decide(
        build_scheduler_state(SchedulerSettings()), build_inputs(state, watch, FRESH, MEASURED), Millis(0)
    )
    assert decision.shares.train == 0.25, "one thread of four cores, at once, where no prices are set"


def test_the_deadline_is_as_long_after_the_opening_as_in_earlier_rounds() -> None:
    """At first about the chain's patience; then what was seen, which for a round with this device's own commitment is
    no less than that patience; a phase that was not seen to begin teaches nothing."""
    driver, state = play_to_commit()
    watch, history = watch_round(None, FRESH, build_agent(), Millis(0))
    watch, history = watch_round(watch, history, state, Millis(10_000))
    outlook = build_inputs(state, watch, history, MEASURED).round
    assert outlook is not None and outlook.deadline_ms == 13_000 and watch.is_seen
    committed = play(state, trained())
    after = play(committed, *blocks(driver, 2))
    assert after.light.phase is Phase.REVEAL
    _, quick = watch_round(watch, history, after, Millis(10_500))
    assert quick.durations.seen_s[-1] == 3.0, "it closed because this device was in"
    absent = play(state, *blocks(driver, 2))
    _, missed = watch_round(watch, history, absent, Millis(11_500))
    assert missed.durations.seen_s[-1] == 1.5
    _, unseen = watch_round(replace(watch, is_seen=False), history, absent, Millis(11_500))
    assert unseen.durations == history.durations


def test_scores_are_offered_when_they_are_due() -> None:
    """While others train nothing can be scored, yet what there will be is told; in SCORE all models are due, with the
    pay of the devices' part of the purse."""
    driver, state = play_to_commit()
    watch, _ = watch_round(None, FRESH, state, Millis(0))
    inputs = build_inputs(state, watch, observe_score(FRESH, 0.5), MEASURED)
    assert inputs.offers == () and inputs.prospect is not None
    subjects = len(CHAIN.devices) + len({entry.home for entry in CHAIN.genesis.devices})
    bp = CHAIN.genesis.params.mining_weight_bp
    assert expect_round_of_scores(state.light) == pytest.approx(11_000 * bp / (10_000 + bp) / 5)
    assert inputs.prospect.reward == pytest.approx(expect_round_of_scores(state.light))
    assert (inputs.prospect.core_s, inputs.prospect.due) == (0.5 * subjects, 1), "paid as a whole"
    scoring = play(state, trained(), *blocks(driver, 2, 3))
    assert scoring.light.phase is Phase.SCORE
    watch, _ = watch_round(None, FRESH, scoring, Millis(20_000))
    (offer,) = build_inputs(scoring, watch, FRESH, MEASURED).offers
    assert offer.due == 1 and 1.0 <= offer.core_s <= subjects and offer.deadline_ms == 23_000
    assert (
        build_inputs(replace(scoring, config=replace(scoring.config, is_mining=False)), watch, FRESH, MEASURED).offers
        == ()
    )


def test_a_device_whose_work_is_held_listens_for_silent_miners() -> None:
    """While it trains nobody is missed; while the training stands still a miner that falls silent is."""
    _, state = play_to_commit()
    assert is_busy(state)
    held = play(state, WorkHeld(True))
    assert not is_busy(held) and is_busy(play(held, WorkHeld(False)))


def test_history_is_kept_whole_and_bounded() -> None:
    """What is encoded comes back; verdicts fade; nothing of another chain or of a broken file is believed."""
    known = observe_training(observe_score(FRESH, 2.0), 8.0)
    for number in range(1_000):
        known = observe_settled(known, 500, is_accepted=number % 4 > 0)
        known = observe_commit_phase(known, 5.0, 3.0, has_committed=False)
    assert known.update_coins == 750 * 500 and known.acceptance.judged <= VERDICTS_MAX + 1
    assert known.acceptance.chance == pytest.approx(0.75, abs=0.02)
    data = encode_history(known)
    assert len(data) < 2_000 and decode_history(data, FRESH, "") == known
    assert decode_history(data, build_history("00" * 32, 3.0), "").update_coins == 0
    for broken in (b"", b"null", b"[]", b'{"chain": 1}', data[:-1], data.replace(b"5.0", b'"5"')):
        with pytest.raises(ValueError):
            decode_history(broken, FRESH, "")


def test_load_of_others() -> None:
    """Mean and deviation of the last looks; none is none."""
    assert describe_load(()) == (0.0, 0.0)
    assert describe_load((0.0, 1.0)) == (0.5, 0.5)


def test_train_effect_is_what_the_watch_waits_for() -> None:
    """The chain's first header opens COMMIT, and the device trains: what all tests above stand on."""
    driver = Driver(CHAIN)
    driver.run_round()
    state, effects = step(build_agent(), blocks(driver, 1)[0], Millis(0), NO_CLOCK)
    assert state.light.phase is Phase.COMMIT and any(isinstance(effect, Train) for effect in effects)
