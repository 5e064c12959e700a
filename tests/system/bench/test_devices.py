"""`flchain bench devices` at its smallest: what it says, and what must hold between its figures on any machine."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from flchain.base.errors import ConfigError
from tools.bench import devices
from tools.bench.cli import main
from tools.bench.devices import HERE, Plan, measure, run_bench
from tools.bench.network import BenchError

TINY = (Plan(devices=3, rounds=1, repeats=1), Plan(6, 1, 1))


@pytest.fixture(autouse=True)
def keep_logging() -> Iterator[None]:
    """The command sets up logging for its process, which here is pytest's."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_list_of_sizes_whose_figures_agree(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --json stdout is a list with an object for each size, and every figure follows from the others."""
    monkeypatch.setattr(devices, "QUICK", TINY)
    assert main(["devices", "--quick", "--json", "--out", str(tmp_path / "new")]) == 0
    said = capsys.readouterr()
    sizes = json.loads(said.out)
    assert sizes == json.loads((tmp_path / "new" / devices.RESULT_FILE).read_text())["sizes"]
    assert [size["devices"] for size in sizes] == [3, 6]
    for size in sizes:
        assert size["miner_ms_per_update"] * size["devices"] == pytest.approx(size["miner_ms_per_round"])
        assert size["floor_ratio"] * size["floor_ms_per_round"] == pytest.approx(size["miner_ms_per_round"])
        assert size["floor_ratio"] > 1, "a miner checks at least these signatures"
    assert "miner : floor" in said.err


def test_two_checkouts_make_the_same_chain() -> None:
    """Measured against itself a checkout has the same head, and both figures are there."""
    size = measure(TINY[0], HERE)
    assert size["against_ms_per_round"] > 0 and size["to_against"] > 0


def test_another_chain_is_no_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the two end at different heads the figures are not printed beside each other."""
    heads = iter(("one", "two"))
    monkeypatch.setattr(devices, "_probe", lambda *_: {"head": next(heads), "miner_ms_per_round": 1.0})
    with pytest.raises(BenchError, match="same chain"):
        measure(TINY[0], HERE)


def test_what_cannot_be_measured_is_said(tmp_path: Path) -> None:
    """A folder that is no checkout is the operator's mistake; one that cannot be run ends the benchmark."""
    with pytest.raises(ConfigError, match="not a checkout"):
        main(["devices", "--against", str(tmp_path)])
    (tmp_path / "flchain").mkdir()
    with pytest.raises(BenchError, match=tmp_path.name):
        run_bench(TINY[:1], tmp_path, Console(quiet=True).print)
