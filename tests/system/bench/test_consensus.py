"""`flchain bench consensus` at its smallest: what it says, that it says the same twice, and that it can see a fork."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tools.bench.cli import main
from tools.bench.consensus import cli
from tools.bench.consensus.consensus import (
    BenchFault,
    Energy,
    Plan,
    compute_gini,
    count_blocks,
    describe,
    list_settings,
    measure,
    name_rule,
    refuse_faulty,
)
from tools.sim.pow.attack import withhold
from tools.sim.pow.network import RoundNetwork
from tools.sim.pow.values import LINKS, Setting

TINY = (Plan(4, 1, (1, 2), (250, 1_000)),)
ENERGY = Energy(watts=10.0, joules_per_hash=1e-6, sign_s=1e-4, check_s=1e-4)
BY_THE_CLOCK = {"signing_joules_per_round"}


def run_tiny(out: Path | None) -> None:
    arguments = argparse.Namespace(quick=True, json=True, out=out, watts=15.0, joules_per_hash=3e-6)
    assert cli.run(arguments, Console(stderr=True), TINY) == 0


def test_one_json_object_a_table_and_a_plot(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Five rules on the same rounds; figures follow from each other; a second run says the same."""
    run_tiny(tmp_path)
    said = capsys.readouterr()
    results = json.loads(said.out)
    assert results == json.loads((tmp_path / cli.RESULT_FILE).read_text())
    assert (tmp_path / cli.PLOT_FILE).stat().st_size > 10_000
    assert "forks per 100 heights" in said.err
    listed = results["results"]
    assert [name_rule(result) for result in listed] == [
        "bft pok",
        "bft pos",
        "bft poq",
        "pow 0.25 s",
        "pow 1 s",
    ]
    for result in listed:
        assert (result["rounds"], result["seeds"], result["violations"]) == (2, [1, 2], 0)
        assert sum(result["proposed"]) == result["heights"] >= 2 * 4
        assert 0 < result["finality_ms"]["p50"] <= result["finality_ms"]["p99"]
        assert result["finality_ms"]["samples"] >= 4 * result["heights"]
        assert result["messages_per_round"] * 2 == pytest.approx(result["messages_per_height"] * result["heights"])
        assert 0 <= result["gini"] < 1
    check_what_sets_them_apart(listed)
    run_tiny(None)
    again = json.loads(capsys.readouterr().out)["results"]
    assert [strip(result) for result in again] == [strip(result) for result in listed]


def check_what_sets_them_apart(listed: list[dict[str, Any]]) -> None:
    bft, pow_ = listed[:3], listed[3:]
    assert all(r["forks_per_100_heights"] == r["stale_share"] == r["reorg_depth_max"] == 0 for r in bft)
    assert all(r["hashes_per_round"] == r["hashing_joules_per_round"] == 0 for r in bft)
    assert all(r["hashing_joules_per_round"] == pytest.approx(3e-6 * r["hashes_per_round"]) for r in pow_)
    fast, slow = pow_
    assert slow["finality_ms"]["p50"] > fast["finality_ms"]["p50"] > max(r["finality_ms"]["p50"] for r in bft)
    assert all(r["signing_joules_per_round"] > 0 for r in listed)


def strip(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key not in BY_THE_CLOCK}


def test_every_rule_runs_the_same_rounds_and_seeds() -> None:
    """Settings of one plan differ in the rule only."""
    of_rules = list_settings(Plan(7, 3, (4, 9), (500,)))
    assert [len(settings) for settings in of_rules] == [2, 2, 2, 2]
    for settings in of_rules:
        assert [setting.seed for setting in settings] == [4, 9]
        assert {(s.validators, s.rounds, s.links, s.powers) for s in settings} == {(7, 3, of_rules[0][0].links, ())}


def test_a_broken_promise_is_counted() -> None:
    """Final blocks that are undone, by an attacker or because one block on top is no finality at all at an interval of
    one delay, are a figure of the benchmark."""
    setting = Setting(3, "pow", 4, 30, interval_ms=500, final_depth=2, powers=(5, 5, 5, 30))
    network = RoundNetwork(setting)
    withhold(network, 3, start_ms=3_000)
    network.run(lambda n: bool(n.record.violations), end_ms=600_000)
    assert describe([network], ENERGY)["violations"] > 0
    hasty = measure((Setting(1, "pow", 4, 1, interval_ms=60, final_depth=1),), ENERGY)
    assert hasty["violations"] > 0 and hasty["forks_per_100_heights"] > 30


def test_a_network_that_stands_still_is_no_result() -> None:
    """If every vote is lost no height is decided, and BenchFault says so instead of figures."""
    deaf = replace(LINKS, lost_share=1.0)
    network = RoundNetwork(Setting(1, "bft", 4, 1, links=deaf)).run(end_ms=30_000)
    assert network.get_height() == 0
    with pytest.raises(BenchFault, match="stalled"):
        refuse_faulty(network)


def test_blocks_are_counted_by_height() -> None:
    """A height is a fork if more than one sealed block was told at it; those above the final height do not count."""
    network = RoundNetwork(Setting(1, "pow", 4, 1, interval_ms=250)).run()
    told = [header.height for _, header in network.record.created.values() if header.height <= network.get_height()]
    assert count_blocks(network) == (len(told), len({height for height in told if told.count(height) > 1}))
    assert len(network.record.created) > len(told)


def test_gini_of_known_shares() -> None:
    """In proportion to power it is 0; one of four equals with everything has 3/4; power weighs each unit alike."""
    assert compute_gini((2, 4, 6), (5, 10, 15)) == 0
    assert compute_gini((8, 0, 0, 0), (1, 1, 1, 1)) == pytest.approx(3 / 4)
    assert compute_gini((8, 0), (1, 3)) == pytest.approx(3 / 4)
    assert compute_gini((0, 0), (1, 3)) == 0


@pytest.mark.parametrize("wrong", ["0", "-1", "inf", "nan", "many"])
def test_nonsense_assumptions_are_refused(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Watts and joules are positive numbers."""
    with pytest.raises(SystemExit):
        main(["consensus", "--watts", wrong])
    assert "--watts" in capsys.readouterr().err
