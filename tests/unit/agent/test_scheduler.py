"""The scheduler, decision by decision."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from agent.scheduling.decide import SchedulerState, build_scheduler_state, decide
from agent.scheduling.policies import POLICIES
from agent.scheduling.policies.economics import compute_block_rate, expect_smaller, expect_units
from agent.scheduling.policies.learned import ACTIONS, D, LearnedMemory
from agent.scheduling.readings import BoardReading, Shares
from agent.scheduling.settings import SchedulerSettings
from agent.scheduling.values import CpuOutlook, MiningOffer, RoundOutlook, SchedulerInputs
from flchain.base.types import Millis
from flchain.wire.messages import Phase

COOL = BoardReading(10**9, temperature_c=45.0, is_throttled=False, is_undervolted=False, is_on_battery=False)
BLOCKS = MiningOffer(reward=100.0, core_s=12 * 60, rivals_cores=12.0)
TRAINING = RoundOutlook(7, Phase.COMMIT, 1150.0, reward=1000.0, acceptance=0.9, deadline_ms=Millis(600_000))
BOTH = SchedulerInputs(COOL, CpuOutlook(4), TRAINING, (BLOCKS,), minute_of_day=14 * 60)


def decide_once(inputs: SchedulerInputs = BOTH, **chosen: object) -> tuple[Shares, str]:
    settings = SchedulerSettings(**{"coin_value": 0.001, **chosen})  # type: ignore[arg-type]
    _, decision = decide(build_scheduler_state(settings), inputs, Millis(0))
    return decision.shares, decision.explanation


def run(
    told: list[SchedulerInputs], tick_s: int = 5, state: SchedulerState | None = None
) -> tuple[SchedulerState, list[Shares]]:
    state, shares = state or build_scheduler_state(SchedulerSettings(coin_value=0.001)), []
    for tick, inputs in enumerate(told):
        state, decision = decide(state, inputs, Millis(1000 * tick_s * tick))
        shares.append(decision.shares)
    return state, shares


def test_the_literatures_split() -> None:
    """At the prices of docs/scheduler.md 64% of the CPU for training and 36% for mining is the most profitable split,
    and from 80 to 120 coins a block it stays that."""
    assert decide_once() == (
        Shares(0.64, 0.36),
        "training 64%, mining 36%: update worth 0.9 by 14:10 needs 1.9 core; mining earns 0.642/h; 99% sure",
    )
    for reward in (80.0, 100.0, 120.0):
        shares, _ = decide_once(replace(BOTH, offers=(replace(BLOCKS, reward=reward),)))
        assert (shares.train, shares.mine) == pytest.approx((0.64, 0.36))


def test_prices_move_the_split() -> None:
    """Mining that pays more takes from training until the update is given up; what pays below its costs is not done."""
    trained = [
        decide_once(replace(BOTH, offers=(replace(BLOCKS, reward=reward),)))[0].train for reward in (1, 30, 300, 3000)
    ]
    assert trained == sorted(trained, reverse=True) and trained[-1] == 0.0 < trained[-2]
    shares, text = decide_once(replace(BOTH, coin_value=1e-7))
    assert shares == Shares(0.0, 0.0) and "not worth it" in text


def test_an_update_that_cannot_be_in_time_is_not_begun() -> None:
    """With a hundredth of the time that the work needs the CPU goes to mining, and the line says why."""
    shares, text = decide_once(replace(BOTH, round=replace(TRAINING, training_left_core_s=240_000.0)))
    assert shares == Shares(0.0, 1.0) and "cannot be in time" in text


def test_after_training_mining_gets_the_cpu_at_once() -> None:
    """The end of a training does not wait for the hold time, nor does the next round's beginning."""
    done = replace(BOTH, round=replace(TRAINING, training_left_core_s=0.0))
    after = replace(BOTH, round=replace(TRAINING, number=8))
    _, shares = run([BOTH, done, after])
    assert shares[1] == Shares(0.0, 1.0) and shares[2].train > 0.6


def test_scores_are_given_before_their_deadline() -> None:
    """Eight scores of ten core-seconds that are due within 40 s get two cores at least, if they pay."""
    scoring = MiningOffer(reward=1.0, core_s=10.0, due=8, deadline_ms=Millis(40_000))
    inputs = SchedulerInputs(COOL, CpuOutlook(4), replace(TRAINING, phase=Phase.SCORE), (scoring,))
    assert decide_once(inputs)[0].mine >= 0.5
    assert decide_once(replace(inputs, coin_value=0.0))[0] == Shares(0.0, 0.0)


@pytest.mark.parametrize(
    ("reading", "chosen", "shares_max", "says"),
    [
        ({"temperature_c": 74.0}, {}, (0.0, 0.0), "heat, 74 C"),
        ({"temperature_c": 70.0}, {}, (0.5, 0.5), "heat, 70 C"),
        ({"temperature_c": None, "is_throttled": None}, {}, (0.75, 0.75), "heat unmeasured"),
        ({"temperature_c": None}, {}, (1.0, 1.0), "update"),
        ({"temperature_c": float("nan"), "is_throttled": None}, {}, (0.75, 0.75), "heat unmeasured"),
        ({"is_throttled": True}, {}, (0.5, 0.5), "throttled"),
        ({"is_undervolted": True}, {}, (0.5, 0.0), "undervolted"),
        ({"free_memory_bytes": 50_000_000}, {}, (1.0, 0.0), "no mining: memory is low"),
        ({"free_memory_bytes": 20_000_000}, {}, (0.0, 0.0), "memory"),
        ({"is_on_battery": True, "battery_fraction": 0.9, "battery_wh": 90.0}, {}, (1.0, 0.0), "no mining: on battery"),
        ({"is_on_battery": True, "battery_fraction": 0.21, "battery_wh": 21.0}, {}, (0.0, 0.0), "battery 21%"),
        ({"is_on_battery": True, "battery_fraction": 0.5}, {}, (1.0, 0.0), "on battery"),
        ({"is_on_battery": True, "battery_fraction": 0.32}, {}, (0.5, 0.0), "battery 32%"),
        ({"is_on_battery": True}, {}, (0.0, 0.0), "battery unmeasured"),
        ({"is_on_battery": True}, {"battery_floor": 0.0}, (1.0, 0.0), "on battery"),
        ({"is_on_battery": None, "battery_fraction": 0.5}, {}, (1.0, 0.0), "on battery"),
        ({"is_on_battery": None}, {}, (1.0, 1.0), "update"),
        ({}, {"share_max": 0.3}, (0.3, 0.3), "cap 30%"),
        ({}, {"quiet_hours": "13:00-15:00"}, (0.0, 0.0), "quiet hours"),
        ({}, {"quiet_hours": "22:00-06:00"}, (1.0, 1.0), "update"),
    ],
)
def test_each_limit(
    reading: dict[str, object], chosen: dict[str, object], shares_max: tuple[float, float], says: str
) -> None:
    """What each sensor, flag and setting leaves for both and for mining, measured or not; and the line says it."""
    inputs = replace(BOTH, reading=replace(COOL, **reading))  # type: ignore[arg-type]
    for policy in POLICIES:
        shares, text = decide_once(inputs, policy=policy, **chosen)
        assert shares.train + shares.mine <= shares_max[0] + 1e-9 and shares.mine <= shares_max[1] + 1e-9
        assert says in text
    shares, _ = decide_once(inputs, policy="mine-first" if shares_max[1] else "train-first", **chosen)
    assert shares.train + shares.mine == pytest.approx(shares_max[0])


def test_an_unknown_clock_counts_as_quiet() -> None:
    """If there are quiet hours and nobody knows the time, all rests; without quiet hours the time does not matter."""
    inputs = replace(BOTH, minute_of_day=None)
    assert decide_once(inputs, quiet_hours="22:00-06:00")[0] == Shares(0.0, 0.0)
    assert decide_once(inputs)[0] == Shares(0.64, 0.36)


def test_a_rising_temperature_is_met_before_the_limit() -> None:
    """At the same 66 degrees a board that warms by 0.3 degrees a second gets less than one that stays."""
    still = [replace(BOTH, reading=replace(COOL, temperature_c=66.0))] * 6
    rising = [replace(BOTH, reading=replace(COOL, temperature_c=66.0 - 1.5 * (5 - tick))) for tick in range(6)]
    assert sum_shares(run(rising)[1][-1]) < sum_shares(run(still)[1][-1])


def sum_shares(shares: Shares) -> float:
    return shares.train + shares.mine


def test_heat_falls_at_once_and_rises_slowly() -> None:
    """After a rest for heat nothing runs until the board is 3 degrees below that point; then a tenth a minute."""
    told = [
        replace(BOTH, reading=replace(COOL, temperature_c=c)) for c in [60.0] * 2 + [74.0] + [71.0] * 30 + [60.0] * 60
    ]
    totals = [sum_shares(shares) for shares in run(told)[1]]
    assert totals[1] == pytest.approx(1.0) and totals[2:33] == [0.0] * 31
    steps = [after - before for before, after in pairwise(totals[32:])]
    assert max(steps) <= 0.1 + 1e-9 and 0.2 < totals[-1] < 1.0


def test_a_sensor_that_fails_for_a_moment_frees_nothing() -> None:
    """A hot board whose sensor falls silent rests on for a minute; then the firmware's flag alone counts."""
    hot, silent = (replace(BOTH, reading=replace(COOL, temperature_c=c)) for c in (80.0, None))
    totals = [sum_shares(shares) for shares in run([hot] + [silent] * 14)[1]]
    assert totals[:13] == [0.0] * 13 and totals[-1] > 0.9


def test_throttling_backs_off_and_comes_back() -> None:
    """Half at once and again every 30 s, never below a tenth; afterwards a tenth more every 30 s."""
    bad = replace(BOTH, reading=replace(COOL, is_throttled=True))
    state, shares = run([bad] * 31)
    totals = [sum_shares(one) for one in shares]
    assert totals[0] == pytest.approx(0.5) and totals[6] == pytest.approx(0.25) and totals[-1] == pytest.approx(0.1)
    state, decision = decide(state, BOTH, Millis(200_000))
    assert sum_shares(decision.shares) == pytest.approx(0.2)


def test_the_sun_that_will_come_is_counted_on() -> None:
    """Near the floor at dawn the board computes if sun is foreseen, and rests if it is not."""
    reading = replace(COOL, is_on_battery=True, battery_fraction=0.3, battery_wh=30.0)
    sunny = replace(BOTH, reading=reading, harvest_w=(6.0,) + (12.0,) * 8 + (0.0,) * 12)
    assert decide_once(sunny)[0].train > 0.5
    assert decide_once(replace(sunny, harvest_w=()))[0] == Shares(0.0, 0.0)


def test_a_fixed_split_lends_what_is_not_used() -> None:
    """With nothing to train mining gets both parts; a part of 0 stays 0."""
    idle = replace(BOTH, round=None)
    assert decide_once(policy="fixed")[0] == Shares(0.64, 0.36)
    assert decide_once(idle, policy="fixed", fixed_train=0.5, fixed_mine=0.3)[0] == Shares(0.0, 0.8)
    assert decide_once(idle, policy="fixed", fixed_train=0.9, fixed_mine=0.0)[0] == Shares(0.0, 0.0)


def test_training_gets_no_more_cores_than_it_has_threads() -> None:
    """One thread on four cores can use a quarter; the rest is mining's."""
    one = replace(BOTH, cpu=CpuOutlook(4, train_cores_max=1.0), round=replace(TRAINING, training_left_core_s=560.0))
    assert decide_once(one)[0] == Shares(0.25, 0.75)
    assert decide_once(one, policy="train-first")[0] == Shares(0.25, 0.75)


def test_learning_prefers_what_paid() -> None:
    """Rounds in which only mining made money teach `learned` to mine, and its memory stays as large as it was."""
    state = build_scheduler_state(SchedulerSettings(policy="learned", coin_value=0.001))
    earned, mined = 0.0, []
    for number in range(120):
        inputs = replace(BOTH, round=replace(TRAINING, number=number), earned=earned)
        state, decision = decide(state, inputs, Millis(60_000 * number))
        earned += decision.shares.mine - 0.5 * decision.shares.train
        mined.append(decision.shares.mine)
    assert sum(mined[-20:]) > 0.8 * 20
    memory = state.memory
    assert memory is not None and len(memory.a) == len(memory.b) == D and memory.action in ACTIONS
    again = build_scheduler_state(state.settings, LearnedMemory(a=memory.a, b=memory.b, scale=memory.scale))
    assert decide(again, BOTH, Millis(0))[1].shares.mine > 0.8


def test_expected_units_and_blocks() -> None:
    """A unit half done is nothing; E[min] of a normal; and equal rivals get half of the blocks."""
    assert [expect_units(done, 0.0, 3) for done in (0.5, 1.0, 2.9, 9.0)] == [0.0, 1.0, 2.0, 3.0]
    assert expect_units(2.5, 0.1, 3) == pytest.approx(2.0, abs=1e-3)
    assert expect_smaller(10.0, 1.0, 4.0) == pytest.approx(4.0) and expect_smaller(4.0, 1.0, 4.0) == pytest.approx(
        3.601, abs=1e-3
    )
    block = MiningOffer(reward=30.0, core_s=4 * 10.0, rivals_cores=4.0)
    assert compute_block_rate(block, 4.0) == pytest.approx(30.0 / 10.0 / 2)


@pytest.mark.parametrize(
    ("field", "value"), [("quiet_hours", "25:00-06:00"), ("policy", "greedy"), ("share_max", 1.5), ("fixed_train", 0.9)]
)
def test_wrong_settings_are_refused_with_their_key(field: str, value: object, tmp_path: Path) -> None:
    """A wrong hour, policy or share in agent.toml is a ConfigError that names section and key."""
    from agent.settings import AgentSettings
    from flchain.base.errors import ConfigError
    from flchain_edge.settings.config import load_config

    file = tmp_path / "agent.toml"
    shown = f'"{value}"' if isinstance(value, str) else value
    file.write_text(
        'genesis = "g"\nmodel = "m"\nexamples = "e"\ndata_dir = "d"\n[key]\nfile = "k"\n'
        f"[scheduler]\n{field} = {shown}\n"
    )
    with pytest.raises(ConfigError, match=rf"\[scheduler\].*{field}"):
        load_config(file, AgentSettings, {})


@pytest.mark.parametrize("policy", ["profit", "learned"])
def test_without_prices_training_comes_first(policy: str) -> None:
    """While nobody has said what a coin is worth an update gets all that the limits leave, the rest is mined with, and
    the line says that no price is set."""
    shares, text = decide_once(BOTH, policy=policy, coin_value=None)
    assert shares == Shares(1.0, 0.0) and text == "training 100%, mining 0%: update by 14:10 needs 1.9 core; " + (
        "training first, no prices set"
    )
    one_thread = replace(BOTH, cpu=CpuOutlook(4, train_cores_max=1.0))
    assert decide_once(one_thread, policy=policy, coin_value=None)[0] == Shares(0.25, 0.75)


def test_a_device_promises_scores_only_if_it_would_give_them() -> None:
    """Mining is allowed while training uses the whole CPU if it pays once it is due; not on battery, not for less than
    it costs, and not by a policy that never mines."""
    scores = MiningOffer(reward=100.0, core_s=10.0, due=8)
    inputs = replace(BOTH, offers=(), prospect=scores)

    def may_mine(told: SchedulerInputs, **chosen: object) -> bool:
        settings = SchedulerSettings(**{"coin_value": 0.001, **chosen})  # type: ignore[arg-type]
        return decide(build_scheduler_state(settings), told, Millis(0))[1].is_mining_allowed

    assert may_mine(inputs) and may_mine(inputs, coin_value=None)
    assert not may_mine(replace(inputs, prospect=None))
    assert not may_mine(replace(inputs, coin_value=1e-9))
    assert not may_mine(inputs, policy="fixed", fixed_train=1.0, fixed_mine=0.0)
    on_battery = replace(COOL, is_on_battery=True, battery_fraction=0.9)
    assert not may_mine(replace(inputs, reading=on_battery))
    assert may_mine(replace(inputs, reading=on_battery), is_mining_on_battery=True)
