"""What the demo reads out of the nodes' databases, and what it calls a bad end."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flchain.base.types import Address
from tools.demo.measures import MEASURES_FILE, Measures, load_measures
from tools.demo.results import Cost, NodeEnd, find_problems, read_costs
from tools.demo.view import format_bars, format_bytes
from tools.network.layout import Node

END = NodeEnd(name="agent-0", role="agent", round=4, model_hash="aa" * 32, head="bb" * 32, height=17)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    (tmp_path / "data").mkdir()
    return Node("agent-0", "agent", tmp_path, Address(bytes(20)))


def store_rounds(node: Node, *rows: tuple[int, int, int, int]) -> None:
    with sqlite3.connect(node.database) as db:
        db.execute("CREATE TABLE rounds (round INTEGER, training_ms INTEGER, bytes_up INTEGER, bytes_down INTEGER)")
        db.executemany("INSERT INTO rounds VALUES (?, ?, ?, ?)", rows)


def test_costs_are_differences_of_counters(node: Node) -> None:
    """The counters run on from round to round; a round costs what they grew by."""
    store_rounds(node, (1, 900, 100, 1000), (2, 800, 150, 1700))
    assert read_costs(node, [0]) == {1: Cost(900, 100, 1000), 2: Cost(800, 50, 700)}


def test_costs_after_a_restart_start_from_zero(node: Node) -> None:
    """A process that began after round 1 counts from zero, also where its count is larger than the old one."""
    store_rounds(node, (1, 900, 100, 1000), (2, 800, 150, 1700), (3, 800, 210, 2400))
    assert read_costs(node, [0, 1]) == {1: Cost(900, 100, 1000), 2: Cost(800, 150, 1700), 3: Cost(800, 60, 700)}


def test_costs_after_a_restart_nobody_noted(node: Node) -> None:
    """A counter that falls shows a new process by itself."""
    store_rounds(node, (1, 900, 100, 1000), (2, 800, 60, 700))
    assert read_costs(node, [])[2] == Cost(800, 60, 700)


def test_no_database_is_no_cost(node: Node) -> None:
    """A device that never started has no rounds, and reading makes no file."""
    assert read_costs(node, []) == {}
    assert not node.database.exists()


def test_agreement_is_no_problem() -> None:
    """Nodes at one round with one model and one head are a clean end."""
    assert find_problems((END, replace(END, name="miner-0", role="miner")), 4) == ()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model_hash": "cc" * 32}, "DIFFERENT MODELS"),
        ({"head": "cc" * 32}, "DIFFERENT BLOCKS"),
        ({"round": 3, "height": 13, "head": "dd" * 32, "model_hash": "cc" * 32}, "agent-7 at round 3"),
    ],
)
def test_a_node_that_differs_is_named(change: dict[str, Any], told: str) -> None:
    """Another model or block at the same place is an alarm with names; an older place is only being behind."""
    problems = find_problems((END, replace(END, name="miner-0"), replace(END, name="agent-7", **change)), 4)
    assert len(problems) == 1
    assert told in problems[0]
    assert "agent-7" in problems[0]


def test_rounds_that_are_missing_are_told() -> None:
    """Nodes that agree, but on fewer rounds than were wanted, are no clean end."""
    assert find_problems((END,), 8) == ("4 of 8 rounds are final",)


def test_measures_come_back_as_saved(tmp_path: Path) -> None:
    """A later run in the folder knows every figure; a spoilt file counts as none, since it proves nothing."""
    measures = Measures(rounds_wanted=8, initial_accuracy=0.125, seconds=3.5, agent_starts={"agent-0": [0, 2]})
    measures.get(2).seconds = 1.5
    measures.keep_peak("agent", 7)
    measures.keep_peak("agent", 5)
    measures.save(tmp_path)
    assert load_measures(tmp_path) == measures
    assert measures.peak_bytes == {"agent": 7}
    (tmp_path / MEASURES_FILE).write_text('{"rounds": 3')
    assert load_measures(tmp_path) == Measures()


def test_bars_show_ends_and_gaps() -> None:
    """The lowest and the highest bar for 0 and 1, a dot for what nobody measured, the newest values if too many."""
    assert format_bars((0.0, None, 1.0), 10) == "▁·█"
    assert format_bars((0.0, 0.5, 1.0), 2) == "▅█"


@pytest.mark.parametrize(("count", "text"), [(None, "-"), (999, "999 B"), (1000, "1.0 kB"), (2_500_000, "2.5 MB")])
def test_bytes_for_people(count: int | None, text: str) -> None:
    """Decimal units with one digit."""
    assert format_bytes(count) == text
