"""The scheduler under readings, rounds, offers and prices drawn at random, garbage among them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.scheduling.decide import EXPLANATION_CHARS_MAX, build_scheduler_state, build_situation, decide
from agent.scheduling.limits import HEAT_GUARD_C, Limits, find_lowest_wh
from agent.scheduling.policies import POLICIES
from agent.scheduling.policies.profit import choose_profit
from agent.scheduling.readings import BoardReading
from agent.scheduling.settings import SchedulerSettings
from agent.scheduling.values import UNKNOWN_BOARD, CpuOutlook, MiningOffer, RoundOutlook, SchedulerInputs, Situation
from flchain.base.types import Millis
from flchain.wire.messages import Phase
from tests.support.floats import floats

share = floats(0.0, 1.0)
anything = st.one_of(st.none(), floats(), floats(-1e3, 1e3))
flag = st.sampled_from((None, False, True))

readings = st.builds(
    BoardReading,
    free_memory_bytes=st.integers(0, 2 * 10**9),
    temperature_c=st.one_of(anything, floats(20.0, 95.0)),
    is_throttled=flag,
    is_undervolted=flag,
    power_w=anything,
    is_on_battery=flag,
    battery_fraction=st.one_of(anything, share),
    battery_wh=st.one_of(anything, floats(0.0, 200.0)),
)
outlooks = st.builds(
    RoundOutlook,
    number=st.integers(0, 5),
    phase=st.sampled_from(Phase),
    training_left_core_s=st.one_of(floats(0.0, 1e4), floats()),
    reward=st.one_of(floats(0.0, 1e4), floats()),
    acceptance=st.one_of(share, floats()),
    deadline_ms=st.one_of(st.none(), st.integers(-(10**6), 10**7)),
    deadline_offsets_s=st.lists(floats(), max_size=20).map(tuple),
    work_sd=share,
)
offers = st.builds(
    MiningOffer,
    reward=st.one_of(floats(0.0, 1e3), floats()),
    core_s=st.one_of(floats(0.0, 1e4), floats()),
    due=st.one_of(st.none(), st.integers(-1, 100)),
    deadline_ms=st.one_of(st.none(), st.integers(-(10**6), 10**7)),
    rivals_cores=st.one_of(st.none(), floats(0.0, 1e3), floats()),
)
cpus = st.builds(
    CpuOutlook,
    cores=st.integers(1, 64),
    other_load=st.one_of(share, floats()),
    other_load_sd=st.one_of(share, floats()),
    train_cores_max=st.one_of(st.none(), floats(0.1, 64.0)),
    mine_cores_max=st.one_of(st.none(), floats(0.1, 64.0)),
)
inputs_drawn = st.builds(
    SchedulerInputs,
    reading=readings,
    cpu=cpus,
    round=st.one_of(st.none(), outlooks),
    offers=st.lists(offers, max_size=6).map(tuple),
    minute_of_day=st.one_of(st.none(), st.integers(0, 1439)),
    harvest_w=st.lists(st.one_of(floats(0.0, 30.0), floats()), max_size=50).map(tuple),
    earned=floats(),
    coin_value=anything,
    energy_price_per_kwh=anything,
)
settings_drawn = st.builds(
    SchedulerSettings,
    policy=st.sampled_from(tuple(POLICIES)),
    share_max=share,
    fixed_train=floats(0.0, 0.5),
    fixed_mine=floats(0.0, 0.5),
    quiet_hours=st.sampled_from(("", "22:00-06:00", "09:00-17:30", "12:00-12:00")),
    is_mining_on_battery=st.booleans(),
    battery_floor=share,
    battery_capacity_wh=st.sampled_from((0.0, 50.0)),
    hold_s=st.integers(1, 120),
)
ticks = st.lists(st.tuples(inputs_drawn, st.integers(1, 60_000)), min_size=1, max_size=5)


def assert_limits_hold(chosen: SchedulerSettings, inputs: SchedulerInputs, train: float, mine: float) -> None:
    """Each limit by its own sentence, from the reading alone and not from what the scheduler computed."""
    total, reading = train + mine, inputs.reading
    assert train >= 0 and mine >= 0 and total <= min(1.0, chosen.share_max) + 1e-9
    if chosen.is_quiet(inputs.minute_of_day):
        assert total == 0
    floor = chosen.memory_floor_mb * 1_000_000
    assert mine == 0 or reading.free_memory_bytes >= floor
    assert total == 0 or reading.free_memory_bytes >= floor / 2
    temperature = reading.temperature_c
    if temperature is not None and -60 <= temperature <= 200:
        assert total == 0 or temperature < chosen.temperature_limit_c - HEAT_GUARD_C
    elif reading.is_throttled is None:
        assert total <= chosen.unmeasured_share_max + 1e-9
    if reading.is_throttled or reading.is_undervolted:
        assert total <= 0.5 + 1e-9
    assert not (reading.is_undervolted and mine > 0)
    if reading.is_on_battery and not chosen.is_mining_on_battery:
        assert mine == 0


@settings(max_examples=60, deadline=None)
@given(chosen=settings_drawn, told=ticks)
def test_limits_hold_whatever_is_told(chosen: SchedulerSettings, told: list[tuple[SchedulerInputs, int]]) -> None:
    """For every policy, any readings (garbage too) one after the other: shares are in range, no limit is broken, the
    explanation is one line of under 200 characters, and the same again gives the same."""
    state, now = build_scheduler_state(chosen), 0
    for inputs, pause_ms in told:
        now += pause_ms
        again = decide(state, inputs, Millis(now))
        state, decision = decide(state, inputs, Millis(now))
        assert again == (state, decision)
        assert_limits_hold(chosen, inputs, decision.shares.train, decision.shares.mine)
        text = decision.explanation
        assert text.isprintable() and 0 < len(text) <= EXPLANATION_CHARS_MAX < 200


@settings(max_examples=60, deadline=None)
@given(
    policy=st.sampled_from(tuple(POLICIES)),
    fraction=floats(0.0, 1.0),
    capacity=floats(5.0, 200.0),
    harvest=st.lists(floats(0.0, 20.0), min_size=1, max_size=24).map(tuple),
    floor=floats(0.01, 0.9),
    cpu=cpus,
)
def test_no_forecast_crosses_the_battery_floor(
    *, policy: str, fraction: float, capacity: float, harvest: tuple[float, ...], floor: float, cpu: CpuOutlook
) -> None:
    """With any charge and harvest, an hour of what was decided and then rest keeps the foreseen charge above the floor,
    or nothing runs at all."""
    chosen = SchedulerSettings(policy=policy, battery_floor=floor, is_mining_on_battery=True)
    wh = fraction * capacity
    reading = BoardReading(
        10**9, 40.0, is_throttled=False, is_on_battery=True, battery_fraction=fraction, battery_wh=wh
    )
    outlook = RoundOutlook(1, Phase.COMMIT, 500.0, 1e6, deadline_ms=Millis(300_000))
    offer = MiningOffer(1e6, 100.0, rivals_cores=4.0)
    inputs = SchedulerInputs(reading, cpu, outlook, (offer,), harvest_w=harvest)
    _, decision = decide(build_scheduler_state(chosen), inputs, Millis(0))
    total = decision.shares.train + decision.shares.mine
    load_w = total * cpu.cores * UNKNOWN_BOARD.core_w
    # the capacity that the scheduler sees is charge over fraction, which rounding may move by a hair
    assert total == 0 or find_lowest_wh(wh, capacity, harvest, UNKNOWN_BOARD.idle_w, load_w) >= floor * capacity


def draw_situation(inputs: SchedulerInputs, share_max: float, factor: float = 1.0) -> Situation:
    offers_scaled = tuple(replace(offer, reward=offer.reward * factor) for offer in inputs.offers)
    limits = Limits(share_max, share_max)
    return build_situation(SchedulerSettings(), replace(inputs, offers=offers_scaled), limits, Millis(0))


sane_inputs = st.builds(
    SchedulerInputs,
    reading=st.just(BoardReading(10**9)),
    cpu=st.builds(CpuOutlook, cores=st.integers(1, 8), other_load=floats(0.0, 0.9), other_load_sd=floats(0.0, 0.3)),
    round=st.one_of(
        st.none(),
        st.builds(
            RoundOutlook,
            number=st.just(1),
            phase=st.just(Phase.COMMIT),
            training_left_core_s=floats(1.0, 2000.0),
            reward=floats(0.01, 100.0),
            acceptance=share,
            deadline_ms=st.integers(10_000, 600_000),
            deadline_offsets_s=st.lists(floats(-60.0, 60.0), max_size=16).map(tuple),
        ),
    ),
    offers=st.builds(
        MiningOffer,
        reward=floats(1e-4, 10.0),
        core_s=floats(1.0, 100.0),
        rivals_cores=st.one_of(st.none(), floats(0.5, 100.0)),
    ).map(lambda offer: (offer,)),
)


@settings(max_examples=80, deadline=None)
@given(inputs=sane_inputs, share_max=floats(0.05, 1.0), factor=floats(1.0, 50.0))
def test_mining_that_pays_more_never_gets_less(inputs: SchedulerInputs, share_max: float, factor: float) -> None:
    """A higher reward for blocks, all else equal, never lowers mining's share under `profit`."""
    less = choose_profit(draw_situation(inputs, share_max)).shares
    more = choose_profit(draw_situation(inputs, share_max, factor)).shares
    assert more.mine >= less.mine - 1e-9


@settings(max_examples=80, deadline=None)
@given(inputs=sane_inputs, share_max=floats(0.05, 1.0), factor=floats(1.0, 50.0))
def test_an_update_worth_more_never_gets_less(inputs: SchedulerInputs, share_max: float, factor: float) -> None:
    """A higher reward for the update, all else equal, never lowers training's share under `profit`."""
    if inputs.round is None:
        return
    richer = replace(inputs, round=replace(inputs.round, reward=inputs.round.reward * factor))
    less = choose_profit(draw_situation(inputs, share_max)).shares
    more = choose_profit(draw_situation(richer, share_max)).shares
    assert more.train >= less.train - 1e-9


@settings(max_examples=25, deadline=None)
@given(
    policy=st.sampled_from(tuple(POLICIES)),
    temperatures=st.lists(floats(55.0, 80.0), min_size=40, max_size=80),
    prices=st.lists(floats(0.0, 3.0), min_size=40, max_size=40),
    hold_s=st.integers(10, 120),
)
def test_shares_do_not_swing(policy: str, temperatures: list[float], prices: list[float], hold_s: int) -> None:
    """However wild temperature and prices are within one turn of a round, no share is raised twice within `hold_s`."""
    state, raised_ms = build_scheduler_state(SchedulerSettings(policy=policy, hold_s=hold_s)), -math.inf
    cpu, offer = CpuOutlook(4), MiningOffer(1.0, 100.0, rivals_cores=8.0)
    outlook = RoundOutlook(1, Phase.COMMIT, 1e5, 1000.0, deadline_ms=Millis(10**7))
    for tick, temperature in enumerate(temperatures):
        reading = BoardReading(10**9, temperature, is_throttled=False, is_on_battery=False)
        inputs = SchedulerInputs(reading, cpu, outlook, (offer,), coin_value=prices[tick % len(prices)] / 1000)
        before, now = state.shares, 5000 * tick
        state, _ = decide(state, inputs, Millis(now))
        if state.shares.train > before.train + 1e-9 or state.shares.mine > before.mine + 1e-9:
            assert now - raised_ms >= 1000 * hold_s
            raised_ms = now


def test_every_name_of_the_settings_is_a_policy() -> None:
    """The configuration offers what there is, and `profit` by default."""
    assert SchedulerSettings().policy == "profit" and set(POLICIES) >= {
        "profit",
        "fixed",
        "train-first",
        "mine-first",
        "learned",
    }
    with pytest.raises(KeyError):
        POLICIES["greedy"]
