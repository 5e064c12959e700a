"""The traces of `flchain bench scheduler`: recorded rounds and loads, and weather and prices from formulas.

Recorded (`traces/*.json`, by `tools.bench.scheduler.record`): when rounds opened and closed, how long training took,
what else ran on the machine. They are repeated until the trace is long enough. From formulas, with a seed:

    sun       P_peak max(0, sin(pi (h - 6) / 12)) times the sky, an AR(1) process with 10-minute steps within 0.1 to 1
    ambient   mean + swing sin(2 pi (h - 9) / 24)
    energy    0.30 (1 + 0.4 sin(2 pi (h - 14) / 24)) per kWh
    coin      base exp(x), x an Ornstein-Uhlenbeck process with one hour's memory and standard deviation 0.7
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.scheduling.settings import SchedulerSettings
from agent.scheduling.values import compute_core_second_cost
from tools.resources.board_model import Board

FOLDER = Path(__file__).parent / "traces"
MINUTE_S = 60
SKY_STEP_MIN, SKY_MEMORY, SKY_SPREAD = 10, 0.85, 0.25
COIN_MEMORY_MIN, COIN_SD = 60, 0.7
START_HOUR = 8
HOUR_MIN = 60


@dataclass(frozen=True)
class RoundEvent:
    """One round: when it opened, when its commitments closed, its training work, whether the update was accepted."""

    opened_s: float
    closes_s: float
    work_core_s: float
    is_accepted: bool = True
    scores_due: int = 0
    scores_close_s: float = 0.0
    """Scores can be sent from `closes_s` until then."""


@dataclass(frozen=True)
class Mining:
    """The pay for mining: blocks in competition with rivals (interval_s > 0), or scores."""

    reward: float
    interval_s: float = 0.0
    rivals_cores: float = 0.0
    score_core_s: float = 0.0


@dataclass(frozen=True)
class Trace:
    """All that does not depend on the policy. Series have one value per minute, loads one per second."""

    name: str
    seconds: int
    board: Board
    settings: SchedulerSettings
    rounds: tuple[RoundEvent, ...]
    reward: float
    """The coins for an accepted update."""
    mining: Mining
    other_load: tuple[float, ...]
    ambient_c: tuple[float, ...]
    energy_price: tuple[float, ...]
    coin_value: tuple[float, ...]
    harvest_w: tuple[float, ...] = ()
    harvest_forecast_w: tuple[float, ...] = ()
    """By hour from the trace's start: the clear sky times the mean cloud factor, which is all that a board can know."""
    free_memory_bytes: tuple[int, ...] = (1_000_000_000,)
    first_guess_s: float = 30.0
    """The assumed time for which commitments are open, before any round was seen."""
    start_charge: float = 0.5
    """The charge of the battery at the start, as a fraction."""
    is_recorded: bool = False
    start_hour: int = START_HOUR
    notes: dict[str, Any] = field(default_factory=dict)


def load_recording(name: str) -> dict[str, Any]:
    """Return a recorded trace as the recorder wrote it."""
    recording: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return recording


def read_rounds(recording: dict[str, Any], seconds: int) -> tuple[RoundEvent, ...]:
    """Repeat the recorded rounds. Work is the CPU that the device used while commitments were open, core-seconds."""
    length = len(recording["device_load"])
    once = []
    for entry in recording["rounds"]:
        opened, closes = max(0.0, entry["opened_s"]), entry["commit_closed_s"]
        used = recording["device_load"][math.floor(opened) : math.ceil(closes)]
        once.append(RoundEvent(opened, closes, max(0.5, sum(used) * recording["cores"]), entry["is_accepted"]))
    events = []
    for lap in range(math.ceil(seconds / length)):
        events += [
            RoundEvent(e.opened_s + lap * length, e.closes_s + lap * length, e.work_core_s, e.is_accepted) for e in once
        ]
    return tuple(event for event in events if event.closes_s < seconds)


def draw_coin(seed: int, minutes: int, base: float) -> tuple[float, ...]:
    """Return the value of a coin for each minute."""
    rng, x, values = random.Random(seed), 0.0, []
    keep = math.exp(-1 / COIN_MEMORY_MIN)
    for _ in range(minutes):
        x = keep * x + math.sqrt(1 - keep * keep) * rng.gauss(0.0, COIN_SD)
        values.append(base * math.exp(x))
    return tuple(values)


def draw_sky(seed: int, minutes: int) -> tuple[float, ...]:
    """Return the share of a clear sky's sun that comes through, for each minute."""
    rng, sky, values = random.Random(seed), 0.6, []
    for minute in range(minutes):
        if minute % SKY_STEP_MIN == 0:
            noise = rng.gauss(0.0, SKY_SPREAD * math.sqrt(1 - SKY_MEMORY**2))
            sky = min(1.0, max(0.1, 0.6 + SKY_MEMORY * (sky - 0.6) + noise))
        values.append(sky)
    return tuple(values)


def compute_sun(hour: float) -> float:
    """Return the sun's power under a clear sky as a fraction of the peak."""
    return max(0.0, math.sin(math.pi * (hour % 24 - 6) / 12))


def compute_energy_price(hour: float) -> float:
    """Return the price of a kWh."""
    return 0.30 * (1 + 0.4 * math.sin(2 * math.pi * (hour - 14) / 24))


def compute_ambient(hour: float, mean_c: float, swing_c: float) -> float:
    """Return the ambient temperature in degrees Celsius."""
    return mean_c + swing_c * math.sin(2 * math.pi * (hour - 9) / 24)


def by_minute(seconds: int, start_hour: int) -> list[float]:
    """Return the hour of the day at each minute."""
    return [start_hour + minute / HOUR_MIN for minute in range(math.ceil(seconds / MINUTE_S) + 1)]


def build_recorded(name: str, seconds: int, *, ambient_c: float, seed: int) -> Trace:
    """Return a recording on a mains-powered board with as many cores as the recorded machine."""
    recording = load_recording(name)
    rounds = read_rounds(recording, seconds)
    hours = by_minute(seconds, START_HOUR)
    work = sum(event.work_core_s for event in rounds) / len(rounds)
    # a board with so few cores has a case in which they can heat it up
    board = Board(cores=recording["cores"], core_w=1.8)
    settings = SchedulerSettings()
    return Trace(
        name=name,
        seconds=seconds,
        board=board,
        settings=settings,
        rounds=rounds,
        reward=UPDATE_MARGIN * work * compute_cost(settings, board),
        mining=_build_contest(settings, board),
        other_load=tuple(recording["other_load"]),
        ambient_c=tuple(compute_ambient(hour, ambient_c, 5.0) for hour in hours),
        energy_price=tuple(map(compute_energy_price, hours)),
        coin_value=draw_coin(seed, len(hours), 1.0),
        is_recorded=True,
        notes={"how": recording["how"], "machine": recording["machine"], "commit": recording["commit"]},
    )


UPDATE_MARGIN = 3.0
"""The value of an update over the cost of its training, at the coin's base value."""
MINING_MARGIN = 2.5
"""The earnings of the first core that mines over its cost; further cores earn less."""
BLOCK_INTERVAL_S = 10.0


def compute_cost(settings: SchedulerSettings, board: Board) -> float:
    """Return the cost of a core-second at the settings' prices."""
    return compute_core_second_cost(board.profile, settings.energy_price_per_kwh, settings.wear_per_core_hour)


def _build_contest(settings: SchedulerSettings, board: Board) -> Mining:
    rivals = 2.0 * board.cores
    return Mining(MINING_MARGIN * compute_cost(settings, board) * rivals * BLOCK_INTERVAL_S, BLOCK_INTERVAL_S, rivals)


def build_solar(seconds: int, recording_name: str, seed: int) -> Trace:
    """Return recorded rounds and loads on a board with battery and panel, quiet hours, and at times little memory."""
    recording, hours = load_recording(recording_name), by_minute(seconds, START_HOUR)
    board = Board(cores=recording["cores"], core_w=1.8, battery_wh=120.0)
    settings = SchedulerSettings(is_mining_on_battery=True, quiet_hours="23:00-05:00", battery_floor=0.3)
    rounds, peak_w = read_rounds(recording, seconds), 30.0
    sky = draw_sky(seed, len(hours))
    work = sum(event.work_core_s for event in rounds) / len(rounds)
    days = range(math.ceil(seconds / 3600) + 48)
    return Trace(
        name=f"solar-{recording_name}",
        seconds=seconds,
        board=board,
        settings=settings,
        rounds=rounds,
        reward=UPDATE_MARGIN * work * compute_cost(settings, board),
        mining=_build_contest(settings, board),
        other_load=tuple(0.4 * load for load in recording["other_load"]),
        ambient_c=tuple(compute_ambient(hour, 22.0, 8.0) for hour in hours),
        energy_price=tuple(map(compute_energy_price, hours)),
        coin_value=draw_coin(seed, len(hours), 1.0),
        harvest_w=tuple(peak_w * compute_sun(hour) * part for hour, part in zip(hours, sky, strict=True)),
        harvest_forecast_w=tuple(0.9 * 0.6 * peak_w * compute_sun(START_HOUR + hour + 0.5) for hour in days),
        free_memory_bytes=tuple(40_000_000 if minute % 97 < 9 else 500_000_000 for minute in range(len(hours))),
        is_recorded=True,
    )


def build_field(seconds: int, seed: int) -> Trace:
    """Return a synthetic trace: rounds of ten minutes with scores at their end, on a hot day, next to a camera's
    load."""
    rng, hours = random.Random(seed), by_minute(seconds, START_HOUR)
    board, settings = Board(), SchedulerSettings(share_max=0.8)
    rounds, at = [], 10.0
    while at + 800 < seconds:
        closes = at + rng.uniform(240, 420)
        due, scored = rng.randint(4, 12), closes + rng.uniform(40, 120)
        rounds.append(RoundEvent(at, closes, rng.uniform(300, 600), rng.random() < 0.9, due, scored))
        at = scored + rng.uniform(20, 200)
    load: list[float] = []
    while len(load) < seconds:
        load += [rng.choice((0.05, 0.1, 0.3, 0.6))] * rng.randint(10, 90)
    cost = compute_cost(settings, board)
    return Trace(
        name="field",
        seconds=seconds,
        board=board,
        settings=settings,
        rounds=tuple(rounds),
        reward=UPDATE_MARGIN * 450 * cost,
        mining=Mining(1.5 * 12 * cost, score_core_s=12.0),
        other_load=tuple(load[:seconds]),
        ambient_c=tuple(compute_ambient(hour, 22.0, 6.0) for hour in hours),
        energy_price=tuple(map(compute_energy_price, hours)),
        coin_value=draw_coin(seed, len(hours), 1.0),
        first_guess_s=300.0,
    )
