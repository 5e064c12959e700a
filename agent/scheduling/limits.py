"""What training and mining must never do to a board: the limits inside which every policy chooses.

Each limit falls at once and rises with hysteresis. None is unmeasured: each rule says what follows from that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from agent.scheduling.readings import BoardReading, Shares
from agent.scheduling.settings import SchedulerSettings
from agent.scheduling.values import HARVEST_HOURS_MAX, UNKNOWN_BOARD, SchedulerInputs, is_number
from flchain.base.frozen import replace
from flchain.base.types import Millis

STEP = 0.05
"""Limits that follow sensors move in steps of this size."""
RAISE = 0.1
"""They rise by at least this, or to their maximum."""
TREND_SAMPLES_MAX = 16
TREND_MS = 60_000
"""The slope of the temperature is computed over this time, by least squares."""
FORECAST_S = 20.0
"""The temperature is extrapolated this far ahead: a few decisions."""
SLOPE_MAX = 1.0
"""Degrees a second; a faster change is a sensor that jumps."""
HEAT_BAND_C = 6.0
"""Shares begin to shrink this far below the temperature at which all work stops."""
HEAT_GUARD_C = 2.0
"""All work stops this far below the limit, since other load may heat the board until the next decision."""
HEAT_HYSTERESIS_C = 3.0
"""After a stop for heat, work resumes when the forecast is this far below the point of the stop."""
HEAT_RAISE_MS = 60_000
"""After any change the shares rise by one RAISE, and only after this time: a board warms up slowly."""
BACKOFF_MIN, BACKOFF_RISE, BACKOFF_MS = 0.1, 0.1, 30_000
"""While the firmware throttles: half at once and again every 30 s, not below a tenth; then a tenth more every 30 s."""
BATTERY_GUARD = 0.02
"""As a part of the capacity: work stops this far above the floor."""
BATTERY_RESUME = 0.15
"""After a stop for the battery, work resumes when the forecast allows this share."""
FRACTION_BAND = 0.2
"""If watt-hours are unknown, the shares shrink over this much charge above the floor."""
MEMORY_RESUME = 1.25
"""Work resumes when this many times the floor is free again."""
MEGABYTE = 1_000_000
BISECTIONS = 12


@dataclass(frozen=True)
class LimitsState:
    """What the limits remember: the last temperatures, and where hysteresis stands."""

    temperatures: tuple[tuple[Millis, float], ...] = ()
    heat_share: float = 1.0
    heat_ms: Millis | None = None
    """When it was last changed."""
    battery_share: float = 1.0
    memory_level: int = 2
    """2: enough, 1: no mining, 0: nothing."""
    backoff_share: float = 1.0
    backoff_ms: Millis | None = None
    """When it was last changed."""


@dataclass(frozen=True)
class Limits:
    """What the limits leave: for both together, for mining alone, and in words why it is not more."""

    share_max: float
    mine_max: float
    reason: str = ""
    """Why both are limited."""
    mining_reason: str = ""


def compute_limits(
    state: LimitsState, settings: SchedulerSettings, inputs: SchedulerInputs, shares: Shares, now_ms: Millis
) -> tuple[LimitsState, Limits]:
    """Return all limits together. `shares` is the split until now."""
    reading = clean_reading(inputs.reading)
    state, heat = _limit_heat(state, settings, reading, now_ms)
    state, throttled = _limit_throttled(state, reading, now_ms)
    state, battery = _limit_battery(state, settings, inputs, shares)
    state, memory, memory_mine = _limit_memory(state, settings, reading)
    limits = (
        (settings.share_max, f"cap {settings.share_max:.0%}"),
        (0.0 if settings.is_quiet(inputs.minute_of_day) else 1.0, "quiet hours"),
        heat,
        throttled,
        battery,
        memory,
    )
    share_max, reason = min(limits, key=lambda limit: limit[0])
    mining = (
        (memory_mine, "memory is low"),
        (0.0 if reading.is_undervolted else 1.0, "undervolted"),
        (0.0 if is_on_battery(reading) and not settings.is_mining_on_battery else 1.0, "on battery"),
    )
    mine_max, mining_reason = min(mining, key=lambda limit: limit[0])
    return state, Limits(
        share_max,
        min(share_max, mine_max),
        reason if share_max < 1.0 else "",
        f"no mining: {mining_reason}" if mine_max < 1.0 else "",
    )


def clean_reading(reading: BoardReading) -> BoardReading:
    """Return the reading, with everything unmeasured that is not a number or outside any board's range."""

    def clean(value: float | None, low: float, high: float) -> float | None:
        return value if value is not None and is_number(value) and low <= value <= high else None

    return replace(
        reading,
        temperature_c=clean(reading.temperature_c, -60.0, 200.0),
        power_w=clean(reading.power_w, 0.0, 10_000.0),
        battery_fraction=clean(reading.battery_fraction, 0.0, 1.0),
        battery_wh=clean(reading.battery_wh, 0.0, 1e6),
    )


def is_on_battery(reading: BoardReading) -> bool:
    """Return the board's own word; a board that has none runs on battery if it has a battery's gauge."""
    if reading.is_on_battery is None:
        return reading.battery_fraction is not None or reading.battery_wh is not None
    return reading.is_on_battery


def compute_slope(temperatures: tuple[tuple[Millis, float], ...]) -> float:
    """Return degrees a second, by least squares, within ±SLOPE_MAX; 0 for fewer than three readings."""
    if len(temperatures) < 3:
        return 0.0
    start = temperatures[0][0]
    times = [(at - start) / 1000 for at, _ in temperatures]
    mean_t, mean_c = sum(times) / len(times), sum(c for _, c in temperatures) / len(times)
    spread = sum((t - mean_t) ** 2 for t in times)
    if spread <= 0:
        return 0.0
    slope = sum((t - mean_t) * (c - mean_c) for t, (_, c) in zip(times, temperatures, strict=True)) / spread
    return max(-SLOPE_MAX, min(SLOPE_MAX, slope))


def _step_down(share: float) -> float:
    return max(0.0, min(1.0, math.floor(share / STEP + 1e-9) * STEP))


def _follow(before: float, wanted: float) -> float:
    """Lower a limit at once; raise it by at least RAISE, or to its maximum."""
    wanted = _step_down(wanted)
    return wanted if wanted < before or wanted >= min(1.0, before + RAISE) - 1e-9 else before


def _limit_heat(
    state: LimitsState, settings: SchedulerSettings, reading: BoardReading, now_ms: Millis
) -> tuple[LimitsState, tuple[float, str]]:
    """Return less the nearer the forecast is to the limit, and 0 from HEAT_GUARD_C below it.

    Unmeasured: `unmeasured_share_max` if the firmware's throttling is unmeasured too, otherwise the flag alone decides;
        for a minute after the last reading no more than before, since a sensor may fail for a moment.
    """
    if reading.temperature_c is None:
        blind = settings.unmeasured_share_max if reading.is_throttled is None else 1.0
        if state.temperatures and 0 <= now_ms - state.temperatures[-1][0] <= TREND_MS:
            return state, (min(state.heat_share, blind), "heat unmeasured")
        return replace(state, temperatures=(), heat_share=1.0, heat_ms=None), (blind, "heat unmeasured")
    kept = tuple(item for item in state.temperatures if 0 <= now_ms - item[0] <= TREND_MS)
    kept = (*kept, (now_ms, reading.temperature_c))[-TREND_SAMPLES_MAX:]
    # a board that cools down is taken to stay as warm as it is
    foreseen = reading.temperature_c + max(0.0, compute_slope(kept)) * FORECAST_S
    rest_c = settings.temperature_limit_c - HEAT_GUARD_C
    if state.heat_share <= 0 and foreseen > rest_c - HEAT_HYSTERESIS_C:
        share = 0.0
    else:
        share = _follow(state.heat_share, (rest_c - foreseen) / HEAT_BAND_C)
    if share > state.heat_share:
        is_early = state.heat_ms is not None and 0 <= now_ms - state.heat_ms < HEAT_RAISE_MS
        share = state.heat_share if is_early else min(share, state.heat_share + RAISE)
    changed_ms = now_ms if share != state.heat_share else state.heat_ms
    state = replace(state, temperatures=kept, heat_share=share, heat_ms=changed_ms)
    return state, (share, f"heat, {reading.temperature_c:.0f} C")


def _limit_throttled(
    state: LimitsState, reading: BoardReading, now_ms: Millis
) -> tuple[LimitsState, tuple[float, str]]:
    """Halve at once, and again while it lasts; rise slowly after it. Unmeasured counts as not throttled."""
    word = "throttled" if reading.is_throttled else "undervolted" if reading.is_undervolted else "after throttling"
    is_due = state.backoff_ms is None or not 0 <= now_ms - state.backoff_ms < BACKOFF_MS
    share = state.backoff_share
    if reading.is_throttled or reading.is_undervolted:
        if is_due or share > 0.5:
            share = max(BACKOFF_MIN, share / 2)
    elif is_due:
        share = min(1.0, share + BACKOFF_RISE)
    if share != state.backoff_share:
        state = replace(state, backoff_share=share, backoff_ms=now_ms)
    return state, (share, word)


def _limit_battery(
    state: LimitsState, settings: SchedulerSettings, inputs: SchedulerInputs, shares: Shares
) -> tuple[LimitsState, tuple[float, str]]:
    """Return the share that may run for an hour so that the charge, with rest from then on, stays above the floor.

    Without watt-hours the charge's fraction alone decides. With neither, on battery: 0, unless the floor is 0.
    """
    reading = clean_reading(inputs.reading)
    if not is_on_battery(reading) or settings.battery_floor <= 0:
        return replace(state, battery_share=1.0), (1.0, "")
    fraction, capacity = reading.battery_fraction, settings.battery_capacity_wh
    if not capacity and reading.battery_wh is not None and fraction:
        capacity = reading.battery_wh / fraction
    left_wh = reading.battery_wh
    if left_wh is None and fraction is not None and capacity:
        left_wh = fraction * capacity
    if left_wh is not None and capacity:
        name = f"battery {left_wh / capacity:.0%}"
        wanted = _forecast_share(settings, inputs, reading, shares, left_wh=left_wh, capacity_wh=capacity)
    elif fraction is not None:
        name = f"battery {fraction:.0%}"
        wanted = (fraction - settings.battery_floor - BATTERY_GUARD) / FRACTION_BAND
    else:
        name, wanted = "battery unmeasured", 0.0
    share = _follow(state.battery_share, wanted)
    if state.battery_share <= 0 and share < BATTERY_RESUME:
        share = 0.0
    return replace(state, battery_share=share), (share, name)


def _forecast_share(
    settings: SchedulerSettings,
    inputs: SchedulerInputs,
    reading: BoardReading,
    shares: Shares,
    *,
    left_wh: float,
    capacity_wh: float,
) -> float:
    """Find it by bisection: harvest above a full battery is lost, so there is no closed form."""
    profile = inputs.profile or UNKNOWN_BOARD
    full_w = profile.core_w * inputs.cpu.cores
    ours_w = full_w * (shares.train + shares.mine)
    rest_w = profile.idle_w if reading.power_w is None else max(profile.idle_w, reading.power_w - ours_w)
    harvest = tuple(w if is_number(w) else 0.0 for w in inputs.harvest_w[:HARVEST_HOURS_MAX])
    harvest = harvest or (0.0,) * settings.battery_reserve_h
    floor_wh = (settings.battery_floor + BATTERY_GUARD) * capacity_wh
    low, high = 0.0, 1.0
    if find_lowest_wh(left_wh, capacity_wh, harvest, rest_w, full_w) >= floor_wh:
        return 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if find_lowest_wh(left_wh, capacity_wh, harvest, rest_w, middle * full_w) >= floor_wh:
            low = middle
        else:
            high = middle
    return low


def find_lowest_wh(
    left_wh: float, capacity_wh: float, harvest_w: tuple[float, ...], rest_w: float, load_w: float
) -> float:
    """Return the lowest expected charge if `load_w` is drawn for the first hour on top of the board's draw at rest."""
    lowest = charge = left_wh
    for hour, watts in enumerate(harvest_w):
        charge = min(capacity_wh, charge + watts - rest_w - (load_w if hour == 0 else 0.0))
        lowest = min(lowest, charge)
    return lowest


def _limit_memory(
    state: LimitsState, settings: SchedulerSettings, reading: BoardReading
) -> tuple[LimitsState, tuple[float, str], float]:
    """Stop mining below the floor, and everything below half of it; resume with a quarter more free."""
    floor, level = settings.memory_floor_mb * MEGABYTE, state.memory_level
    free = reading.free_memory_bytes
    for reached, wanted in ((1, floor / 2), (2, floor)):
        if free < wanted:
            level = min(level, reached - 1)
    if free >= floor / 2 * MEMORY_RESUME:
        level = max(level, 1)
    if free >= floor * MEMORY_RESUME:
        level = 2
    share = 0.0 if level == 0 else 1.0
    return replace(state, memory_level=level), (share, "memory is low"), 0.0 if level < 2 else 1.0
