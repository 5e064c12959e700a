"""One policy on one trace: the agent's scheduler, a modelled board, and profit at the trace's prices."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.scheduling.decide import REST, SchedulerState, build_scheduler_state, decide
from agent.scheduling.estimates import (
    AcceptanceForecast,
    DurationForecast,
    guess_duration,
    observe_duration,
    observe_verdict,
)
from agent.scheduling.policies.economics import SEND_S
from agent.scheduling.readings import BoardReading, Shares
from agent.scheduling.settings import SchedulerSettings
from agent.scheduling.values import CpuOutlook, MiningOffer, RoundOutlook, SchedulerInputs, compute_core_second_cost
from flchain.base.frozen import replace
from flchain.base.types import Millis
from flchain.wire.messages import Phase
from tools.resources import board_model
from tools.resources.board_model import BoardState, Used
from tools.resources.scheduler_traces import MINUTE_S, RoundEvent, Trace

TICK_S = 5
LOAD_MEMORY = 0.9
"""The weight of the past in a tick's estimate of the other load."""
WORK_SD = 0.05
"""The error of a device that counts its training steps; the model knows its work exactly."""
MEMORY_FLOOR_BYTES = 1_000_000
TIMELINE_MAX = 50_000


@dataclass
class Run:
    """The result of one policy on one trace. Money is in the operator's currency, energy that of the whole board."""

    profit: float = 0.0
    updates: int = 0
    updates_in_time: int = 0
    mined: float = 0.0
    """Scores computed, or expected blocks won."""
    energy_wh: float = 0.0
    temperature_max_c: float = 0.0
    throttled_s: int = 0
    charge_low: float = 1.0
    """The lowest charge of the battery as a fraction, 1 without a battery."""
    switches: int = 0
    train_core_s: float = 0.0
    mine_core_s: float = 0.0
    violations: Counter[str] = field(default_factory=Counter)
    """By limit: the seconds in which it was broken."""
    timeline: list[tuple[float, ...]] = field(default_factory=list)
    """For each tick: second, train, mine, temperature, charge fraction, profit, other load, coin value."""
    explanations: list[tuple[int, str]] = field(default_factory=list)


@dataclass
class _Device:
    """The device's state between seconds."""

    scheduler: SchedulerState
    board: BoardState
    open: DurationForecast
    """How long commitments stay open."""
    shares: Shares = REST
    position: int = 0
    """The index of the round that is open or comes next."""
    power_w: float | None = None
    """The power in the last second."""
    work_left_core_s: float = 0.0
    is_late: bool = False
    score_work_core_s: float = 0.0
    turn: tuple[int, bool, bool] = (-1, False, False)
    load_mean: float = 0.2
    load_variance: float = 0.02
    acceptance: AcceptanceForecast = field(default_factory=AcceptanceForecast)


def run(trace: Trace, settings: SchedulerSettings | None = None, *, is_kept: bool = False) -> Run:
    """Run the whole trace with these settings; `is_kept` also keeps the timeline and the explanations."""
    result = Run()
    device = _Device(
        build_scheduler_state(settings or trace.settings),
        board_model.start(trace.board, trace.ambient_c[0], trace.start_charge),
        guess_duration(trace.first_guess_s),
    )
    if trace.rounds:
        device.work_left_core_s = trace.rounds[0].work_core_s
    for second in range(trace.seconds):
        _turn_rounds(trace, device, result, second)
        # as an agent does: every few seconds, and when training ends or the round changes its phase
        turn = (device.position, _is_training_due(trace, device, second), _has_offers(trace, device))
        if second % TICK_S == 0 or turn != device.turn:
            device.turn = turn
            _decide(trace, device, result, second, is_kept=is_kept)
        _run_second(trace, device, result, second)
    return result


def _get_round(trace: Trace, device: _Device) -> RoundEvent | None:
    return trace.rounds[device.position] if device.position < len(trace.rounds) else None


def _is_training_due(trace: Trace, device: _Device, second: int) -> bool:
    event = _get_round(trace, device)
    return event is not None and event.opened_s <= second and not device.is_late and device.work_left_core_s > 0


def _turn_rounds(trace: Trace, device: _Device, result: Run, second: int) -> None:
    """Pay for a round whose commitments or scores have just closed, and prepare the work of the next round."""
    event = _get_round(trace, device)
    if event is None:
        return
    if second >= event.closes_s - SEND_S and not device.is_late:
        device.is_late = True
        device.open = observe_duration(device.open, event.closes_s - event.opened_s)
        result.updates += 1
        if device.work_left_core_s <= 0:
            result.updates_in_time += 1
            device.acceptance = observe_verdict(device.acceptance, event.is_accepted)
            if event.is_accepted:
                result.profit += trace.reward * trace.coin_value[second // MINUTE_S]
    if second >= max(event.closes_s, event.scores_close_s):
        device.position += 1
        device.is_late, device.score_work_core_s = False, 0.0
        after = _get_round(trace, device)
        device.work_left_core_s = after.work_core_s if after is not None else 0.0


def _decide(trace: Trace, device: _Device, result: Run, second: int, *, is_kept: bool) -> None:
    inputs = build_inputs(trace, device, result, second)
    device.scheduler, decision = decide(device.scheduler, inputs, Millis(1000 * second))
    before, after = device.shares, decision.shares
    if abs(after.train - before.train) > 1e-9 or abs(after.mine - before.mine) > 1e-9:
        result.switches += 1
    device.shares = after
    _count_broken_rules(trace, inputs, after, result, settings=device.scheduler.settings)
    if is_kept and len(result.timeline) < TIMELINE_MAX:
        charge = device.board.charge_wh / trace.board.battery_wh if trace.board.battery_wh else 1.0
        result.timeline.append(
            (
                second,
                after.train,
                after.mine,
                device.board.temperature_c,
                charge,
                result.profit,
                trace.other_load[second % len(trace.other_load)],
                trace.coin_value[second // MINUTE_S],
            )
        )
        result.explanations.append((second, decision.explanation))


def build_inputs(trace: Trace, device: _Device, result: Run, second: int) -> SchedulerInputs:
    """Return what the device knows, and nothing about the future."""
    board, state, minute = trace.board, device.board, second // MINUTE_S
    has_battery = board.battery_wh > 0
    reading = BoardReading(
        free_memory_bytes=trace.free_memory_bytes[minute % len(trace.free_memory_bytes)],
        temperature_c=round(state.temperature_c, 1),
        is_throttled=state.is_throttled,
        is_undervolted=False,
        power_w=device.power_w,
        is_on_battery=has_battery,
        battery_fraction=state.charge_wh / board.battery_wh if has_battery else None,
        battery_wh=state.charge_wh if has_battery else None,
    )
    hour = second // 3600
    return SchedulerInputs(
        reading=reading,
        cpu=CpuOutlook(board.cores, device.load_mean, math.sqrt(device.load_variance)),
        round=_look_at_round(trace, device, second),
        offers=_list_offers(trace, device),
        minute_of_day=(trace.start_hour * 60 + minute) % 1440,
        harvest_w=trace.harvest_forecast_w[hour : hour + 24],
        profile=board.profile,
        earned=result.profit,
        coin_value=trace.coin_value[minute],
        energy_price_per_kwh=trace.energy_price[minute],
    )


def _look_at_round(trace: Trace, device: _Device, second: int) -> RoundOutlook | None:
    event = _get_round(trace, device)
    if event is None or second < event.opened_s:
        return None
    return RoundOutlook(
        number=device.position + 1,
        phase=Phase.SCORE if device.is_late else Phase.COMMIT,
        training_left_core_s=0.0 if device.is_late else device.work_left_core_s,
        reward=trace.reward,
        acceptance=device.acceptance.chance,
        deadline_ms=Millis(round(1000 * (event.opened_s + device.open.mean_s))),
        deadline_offsets_s=device.open.offsets_s,
        work_sd=WORK_SD,
    )


def _has_offers(trace: Trace, device: _Device) -> bool:
    return trace.mining.interval_s > 0 or bool(_list_offers(trace, device))


def _list_offers(trace: Trace, device: _Device) -> tuple[MiningOffer, ...]:
    mining, event = trace.mining, _get_round(trace, device)
    if mining.interval_s > 0:
        contest = mining.rivals_cores * mining.interval_s
        return (MiningOffer(mining.reward, contest, rivals_cores=mining.rivals_cores),)
    if event is None or not device.is_late:
        return ()
    left = event.scores_due - int(device.score_work_core_s / mining.score_core_s)
    if left <= 0:
        return ()
    return (
        MiningOffer(mining.reward, mining.score_core_s, left, deadline_ms=Millis(round(1000 * event.scores_close_s))),
    )


def _run_second(trace: Trace, device: _Device, result: Run, second: int) -> None:
    minute = second // MINUTE_S
    load = trace.other_load[second % len(trace.other_load)]
    train = device.shares.train if _is_training_due(trace, device, second) else 0.0
    mine = device.shares.mine if _has_offers(trace, device) else 0.0
    device.board, used = board_model.run_second(
        trace.board,
        device.board,
        train,
        mine,
        other_load=load,
        ambient_c=trace.ambient_c[minute],
        harvest_w=trace.harvest_w[minute] if trace.harvest_w else 0.0,
    )
    _learn_load(device, trace, load)
    device.work_left_core_s -= used.train_core_s
    _pay(trace, device, result, used, minute)
    device.power_w = used.power_w
    result.train_core_s += used.train_core_s
    result.mine_core_s += used.mine_core_s
    result.energy_wh += used.power_w / 3600
    result.temperature_max_c = max(result.temperature_max_c, device.board.temperature_c)
    result.throttled_s += device.board.is_throttled
    settings = device.scheduler.settings
    if trace.board.battery_wh:
        charge = device.board.charge_wh / trace.board.battery_wh
        result.charge_low = min(result.charge_low, charge)
        if used.busy_core_s > 0 and charge < settings.battery_floor:
            result.violations["battery below its floor"] += 1
    if used.busy_core_s > 0 and device.board.temperature_c > settings.temperature_limit_c:
        result.violations["above the temperature limit"] += 1


def _learn_load(device: _Device, trace: Trace, load: float) -> None:
    """Update the moving mean and variance of the load that displaces the agent."""
    felt = min(load, 1.0 - trace.board.fair_share)
    weight = (1 - LOAD_MEMORY) / TICK_S
    off = felt - device.load_mean
    device.load_mean += weight * off
    device.load_variance += weight * (off * off - device.load_variance)


def _pay(trace: Trace, device: _Device, result: Run, used: Used, minute: int) -> None:
    settings, mining = trace.settings, trace.mining
    cost = compute_core_second_cost(trace.board.profile, trace.energy_price[minute], settings.wear_per_core_hour)
    result.profit -= used.busy_core_s * cost
    if used.mine_core_s <= 0:
        return
    if mining.interval_s > 0:
        units = used.mine_core_s / (used.mine_core_s + mining.rivals_cores) / mining.interval_s
    else:
        before = int(device.score_work_core_s / mining.score_core_s)
        device.score_work_core_s += used.mine_core_s
        units = float(int(device.score_work_core_s / mining.score_core_s) - before)
    result.mined += units
    result.profit += units * mining.reward * trace.coin_value[minute]


def _count_broken_rules(
    trace: Trace, inputs: SchedulerInputs, shares: Shares, result: Run, *, settings: SchedulerSettings
) -> None:
    """Count violations of the rules for the requested shares, judged by the model and not by the scheduler's word."""
    asked, reading = shares.train + shares.mine, inputs.reading
    floor = settings.memory_floor_mb * MEMORY_FLOOR_BYTES
    broken = {
        "above the cap": asked > settings.share_max + 1e-9,
        "in quiet hours": asked > 0 and settings.is_quiet(inputs.minute_of_day),
        "mining on battery": shares.mine > 0 and trace.board.battery_wh > 0 and not settings.is_mining_on_battery,
        "mining without memory": shares.mine > 0 and reading.free_memory_bytes < floor,
        "without memory": asked > 0 and reading.free_memory_bytes < floor / 2,
        "while throttled": bool(reading.is_throttled) and asked > 0.5 + 1e-9,
    }
    for name, is_broken in broken.items():
        if is_broken:
            result.violations[name] += TICK_S


def list_splits(step: float, is_full: bool = False) -> tuple[tuple[float, float], ...]:
    """Return every fixed split on a lattice; `is_full`: only those that use the whole CPU."""
    steps = round(1 / step)
    pairs = [(a / steps, b / steps) for a in range(steps + 1) for b in range(steps + 1 - a)]
    return tuple(pair for pair in pairs if not is_full or abs(sum(pair) - 1) < 1e-9)


def run_split(trace: Trace, split: tuple[float, float]) -> Run:
    """Run the policy `fixed` with this split."""
    return run(trace, replace(trace.settings, policy="fixed", fixed_train=split[0], fixed_mine=split[1]))


def run_policy(trace: Trace, policy: str, *, is_kept: bool = False) -> Run:
    """Run the policy of this name."""
    return run(trace, replace(trace.settings, policy=policy), is_kept=is_kept)


def compute_switches_per_hour(trace: Trace, result: Run) -> float:
    """Return how often per hour the shares changed."""
    return result.switches / (trace.seconds / 3600)


def find_best(runs: Sequence[tuple[tuple[float, float], float]]) -> tuple[tuple[float, float], float]:
    """Return (split, profit) of the best split in hindsight."""
    return max(runs, key=lambda item: item[1])
