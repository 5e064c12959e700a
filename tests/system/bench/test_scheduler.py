"""`flchain bench scheduler` at its smallest, and its claims in short."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from agent.scheduling.policies import POLICIES
from agent.scheduling.readings import Shares
from agent.scheduling.values import Decision
from tools.bench.scheduler import cli
from tools.bench.scheduler.scheduler import QUICK, build_traces, compare, scale_mining
from tools.resources import board_model, scheduler_sim
from tools.resources.board_model import Board
from tools.resources.scheduler_sim import list_splits, run, run_policy, run_split
from tools.resources.scheduler_traces import Trace, build_recorded, load_recording

TINY = replace(QUICK, recorded_s=900, solar_s=900, field_s=900, sweep_s=600, sweep_factors=(0.25, 4.0))
SHORT = replace(QUICK, recorded_s=1800, solar_s=1800, field_s=1800)
IGNORE_PRICES = ("fixed", "train-first", "mine-first")


@pytest.fixture(scope="module")
def traces() -> dict[str, Trace]:
    return {trace.name: trace for trace in build_traces(SHORT)}


def test_one_json_object_tables_and_plots(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Every policy on four traces and a sweep: one JSON object, the same in the file, and two pictures."""
    arguments = argparse.Namespace(quick=True, json=True, out=tmp_path)
    assert cli.run(arguments, Console(stderr=True), TINY) == 0
    said = capsys.readouterr()
    results = json.loads(said.out)
    assert results == json.loads((tmp_path / cli.RESULT_FILE).read_text())
    assert all((tmp_path / name).stat().st_size > 20_000 for name in cli.PLOT_FILES)
    assert [entry["trace"] for entry in results["traces"]][:2] == ["mnist-cnn", "watch-cnn1d"]
    assert all(set(entry["policies"]) == set(POLICIES) for entry in results["traces"])
    assert "broken s" in said.err and len(results["sweep"]) == 2


def test_profit_is_near_the_best_fixed_split_and_beats_what_ignores_prices(traces: dict[str, Trace]) -> None:
    """On the recorded traces `profit` earns at least 98% of the best fixed split in hindsight, and more than each
    policy that asks no price."""
    for name in ("mnist-cnn", "watch-cnn1d", "solar-watch-cnn1d"):
        splits = tuple(dict.fromkeys(list_splits(0.25) + list_splits(0.1, is_full=True)))
        entry = compare(traces[name], splits)
        earned = {policy: result["profit"] for policy, result in entry["policies"].items()}
        assert earned["profit"] >= 0.98 * entry["best_fixed"]["profit"] > 0, name
        assert all(earned["profit"] > earned[policy] for policy in IGNORE_PRICES), name
        assert not any(result["violations"] for result in entry["policies"].values()), name


def test_no_policy_breaks_a_limit_on_a_board_that_gets_too_hot_and_empty(
    traces: dict[str, Trace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an oven, and with an almost empty battery at night, the model counts no second in which a limit is broken; the
    same model does count them for a scheduler without limits."""
    oven = replace(traces["field"], ambient_c=(48.0,) * 200)
    night = replace(traces["solar-watch-cnn1d"], start_charge=0.31, harvest_w=(0.0,) * 200)
    for trace in (oven, night):
        for policy in POLICIES:
            assert not run_policy(trace, policy).violations
    assert run_policy(oven, "train-first").train_core_s > 0  # it computes, just not for long
    monkeypatch.setattr(scheduler_sim, "decide", lambda state, *_: (state, Decision(Shares(1.0, 0.0), "careless")))
    assert run(oven).violations["above the temperature limit"] > 0 < run(oven).violations["above the cap"]
    assert run(night).violations["battery below its floor"] > 0


def test_prices_decide_what_is_done() -> None:
    """Where mining pays a quarter it is left, where it pays 16 times training is; both earn the best split."""
    base = build_recorded("mnist-cnn", 900, ambient_c=22.0, seed=1)
    for factor, is_training in ((0.25, True), (16.0, False)):
        trace = scale_mining(base, factor)
        one = run(trace)
        assert (one.train_core_s > 9 * one.mine_core_s) is is_training
        assert (one.mine_core_s > 9 * one.train_core_s) is not is_training
        assert one.profit >= 0.98 * max(run_split(trace, split).profit for split in list_splits(0.25))


def test_the_recordings_say_how_they_were_made() -> None:
    """Each has its command, machine, commit, and loads and rounds that fit together."""
    for name in ("mnist-cnn", "watch-cnn1d"):
        recording = load_recording(name)
        assert "scheduler_record" in recording["how"] and recording["machine"]["cpu"] and recording["commit"]
        seconds = len(recording["device_load"])
        assert seconds == len(recording["other_load"]) and all(0 <= load <= 1 for load in recording["other_load"])
        for entry in recording["rounds"]:
            assert entry["opened_s"] < entry["commit_closed_s"] < entry["settled_s"] <= seconds + 5


def test_the_board_model() -> None:
    """At rest it stays at rest's temperature; at full load it nears P R and throttles; the battery keeps its books."""
    board = Board(battery_wh=10.0)
    state = board_model.start(board, 20.0, 0.5)
    calm, used = board_model.run_second(board, state, 0, 0, other_load=0, ambient_c=20.0, harvest_w=0)
    assert calm.temperature_c == pytest.approx(state.temperature_c) and used.power_w == pytest.approx(2.7)
    assert calm.charge_wh == pytest.approx(5.0 - 2.7 / 3600)
    for _ in range(3600):
        state, used = board_model.run_second(board, state, 0.7, 0.3, other_load=0, ambient_c=20.0, harvest_w=0)
    assert state.temperature_c == pytest.approx(20 + 6.42 * 6, abs=0.5) and used.train_core_s == pytest.approx(2.8)
    for _ in range(3600):
        state, used = board_model.run_second(board, state, 0.7, 0.3, other_load=1, ambient_c=50.0, harvest_w=0)
    assert state.temperature_c == pytest.approx(79, abs=2) and used.busy_core_s == pytest.approx(4 / 3)
