"""The scheduler's policies and every fixed split on traces, and a sweep over the price of mining."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from agent.scheduling.policies import POLICIES
from tools.bench.host import describe_machine, read_commit
from tools.resources.scheduler_sim import (
    Run,
    compute_switches_per_hour,
    find_best,
    list_splits,
    run,
    run_policy,
    run_split,
)
from tools.resources.scheduler_traces import Trace, build_field, build_recorded, build_solar

METHOD = (
    "Virtual time: the agent's own scheduler decides every 5 s and whenever a round changes its phase; a modelled "
    "board executes the decision second by second. mnist-cnn and watch-cnn1d replay rounds and loads recorded on a "
    "real machine (docs/scheduler.md); weather and prices come from formulas with seeds. The best fixed split is the "
    "best in hindsight of all on the lattice."
)
HOUR_S = 3600
TIMELINE_TRACE = "solar-watch-cnn1d"
SWEEP_TRACE = "mnist-cnn"


@dataclass(frozen=True)
class Plan:
    """The length of the traces in seconds, and the step of the lattice of fixed splits."""

    recorded_s: int
    solar_s: int
    field_s: int
    split_step: float
    solar_split_step: float
    full_split_step: float
    """For the splits that use the whole CPU."""
    sweep_s: int
    sweep_factors: tuple[float, ...]
    sweep_step: float


FULL = Plan(
    recorded_s=2 * HOUR_S,
    solar_s=24 * HOUR_S,
    field_s=3 * HOUR_S,
    split_step=0.1,
    solar_split_step=0.25,
    full_split_step=0.05,
    sweep_s=HOUR_S // 2,
    sweep_factors=tuple(round(0.25 * 2 ** (i / 3), 3) for i in range(16)),
    sweep_step=0.05,
)
QUICK = Plan(
    recorded_s=HOUR_S,
    solar_s=2 * HOUR_S,
    field_s=HOUR_S,
    split_step=0.25,
    solar_split_step=0.5,
    full_split_step=0.25,
    sweep_s=HOUR_S // 3,
    sweep_factors=(0.25, 1.0, 4.0, 16.0),
    sweep_step=0.25,
)


def build_traces(plan: Plan) -> tuple[Trace, ...]:
    """Return the traces: recorded in a cool and in a hot place, recorded with sun and battery, and synthetic."""
    return (
        build_recorded("mnist-cnn", plan.recorded_s, ambient_c=22.0, seed=1),
        build_recorded("watch-cnn1d", plan.recorded_s, ambient_c=35.0, seed=2),
        build_solar(plan.solar_s, "watch-cnn1d", seed=3),
        build_field(plan.field_s, seed=4),
    )


def run_bench(plan: Plan, tell: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Return the JSON object, with the timeline for the plot."""
    machine = describe_machine()
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        traces = []
        for trace in build_traces(plan):
            step = plan.solar_split_step if trace.board.battery_wh else plan.split_step
            splits = tuple(dict.fromkeys(list_splits(step) + list_splits(plan.full_split_step, is_full=True)))
            entry = compare(trace, splits, partial(pool.map, chunksize=4))
            tell(entry)
            traces.append(entry)
        sweep = run_sweep(plan, partial(pool.map, chunksize=1))
    return {
        "machine": machine,
        "commit": read_commit(),
        "traces": traces,
        "sweep": sweep,
        "timeline": record_timeline(plan),
    }


def compare(
    trace: Trace, splits: tuple[tuple[float, float], ...], mapping: Callable[..., Iterable[Any]] = map
) -> dict[str, Any]:
    """Run every policy and every fixed split on one trace."""
    names = tuple(POLICIES)
    runs = dict(zip(names, mapping(partial(run_policy, trace), names), strict=True))
    profits = [one.profit for one in mapping(partial(run_split, trace), splits)]
    split, best = find_best(list(zip(splits, profits, strict=True)))
    return {
        "trace": trace.name,
        "hours": trace.seconds / HOUR_S,
        "is_recorded": trace.is_recorded,
        "recording": trace.notes,
        "best_fixed": {"split": split, "profit": best, "of": len(splits)},
        "policies": {name: describe(trace, one, best) for name, one in runs.items()},
    }


def describe(trace: Trace, one: Run, best: float) -> dict[str, Any]:
    """Return the figures of one policy on one trace."""
    return {
        "profit": one.profit,
        "to_best_fixed": one.profit / best if best > 0 else None,
        "updates": one.updates,
        "updates_in_time": one.updates_in_time,
        "mined": round(one.mined, 2),
        "energy_wh": round(one.energy_wh, 2),
        "temperature_max_c": round(one.temperature_max_c, 1),
        "throttled_s": one.throttled_s,
        "charge_low": round(one.charge_low, 3) if trace.board.battery_wh else None,
        "switches_per_hour": round(compute_switches_per_hour(trace, one), 1),
        "violations": dict(one.violations),
    }


def scale_mining(trace: Trace, factor: float) -> Trace:
    """Return the trace with mining paid `factor` times as well, and with constant prices."""
    return replace(
        trace,
        mining=replace(trace.mining, reward=trace.mining.reward * factor),
        coin_value=(1.0,) * len(trace.coin_value),
        energy_price=(trace.settings.energy_price_per_kwh,) * len(trace.energy_price),
    )


def run_sweep(plan: Plan, mapping: Callable[..., Iterable[Any]] = map) -> list[dict[str, Any]]:
    """Return for each price of mining what the policy `profit` does, and what every full fixed split earns."""
    base = build_recorded(SWEEP_TRACE, plan.sweep_s, ambient_c=22.0, seed=1)
    splits = list_splits(plan.sweep_step, is_full=True)
    points = []
    for factor, entry in zip(
        plan.sweep_factors,
        mapping(partial(_run_point, base, splits), plan.sweep_factors),
        strict=True,
    ):
        points.append({"factor": factor, **entry})
    return points


def _run_point(base: Trace, splits: tuple[tuple[float, float], ...], factor: float) -> dict[str, Any]:
    trace = scale_mining(base, factor)
    best = run(trace)
    worked = max(1e-9, best.train_core_s + best.mine_core_s)
    return {
        "profit": best.profit,
        "train_part": best.train_core_s / worked,
        "updates_in_time": best.updates_in_time,
        "updates": best.updates,
        "fixed": [{"train": split[0], "profit": run_split(trace, split).profit} for split in splits],
    }


def record_timeline(plan: Plan) -> dict[str, Any]:
    """Run the policy `profit` on the trace with sun and battery, and return its timeline."""
    trace = next(trace for trace in build_traces(plan) if trace.name == TIMELINE_TRACE)
    one = run_policy(trace, "profit", is_kept=True)
    names = ("second", "train", "mine", "temperature_c", "charge", "profit", "other_load", "coin_value")
    series = {name: [round(row[index], 6) for row in one.timeline] for index, name in enumerate(names)}
    return {
        "trace": trace.name,
        "start_hour": trace.start_hour,
        "battery_floor": trace.settings.battery_floor,
        "temperature_limit_c": trace.settings.temperature_limit_c,
        "quiet_hours": trace.settings.quiet_hours,
        "harvest_w": [round(watts, 2) for watts in trace.harvest_w],
        "explanations": one.explanations[:: max(1, len(one.explanations) // 20)],
        **series,
    }
