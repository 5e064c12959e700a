"""`flchain bench chain` at its smallest: what it says, and what must hold between its figures on any machine."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from flchain.base.errors import ConfigError
from tools.bench.chain import get_latencies_ms
from tools.bench.cli import RESULT_FILE, main
from tools.bench.network import BenchError, Clock, Plan, run_network
from tools.cli import main as flchain

TINY = (Plan(validators=1, devices=1, rounds=1, seconds_max=120), Plan(4, 3, 1, 120))
SIZE_KEYS = {
    "validators",
    "devices",
    "blocks",
    "transactions",
    "seconds",
    "cpu_seconds",
    "transactions_per_s",
    "blocks_per_s",
    "latency_ms",
    "messages_heard_per_block",
    "signature_checks_per_s",
    "signature_checks_per_cpu_s",
    "floor_seconds",
    "floor_cpu_seconds",
    "seconds_to_floor",
    "cpu_to_floor",
    "light_headers_per_s",
    "light_floor_headers_per_s",
    "light_to_floor",
    "header_bytes",
    "certificate_bytes",
    "header_and_certificate_bytes",
}


@pytest.fixture(autouse=True)
def keep_logging() -> Iterator[None]:
    """The command sets up logging for its process, which here is pytest's."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_one_json_object_whose_figures_agree(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """With --json stdout is one object, the same as in --out; every figure is there and follows from the others."""
    assert main(["chain", "--quick", "--json", "--out", str(tmp_path / "new")], TINY) == 0
    said = capsys.readouterr()
    results = json.loads(said.out)
    assert results == json.loads((tmp_path / "new" / RESULT_FILE).read_text())
    assert "block latency p99" in said.err
    assert {"benchmark", "method", "machine", "commit", "is_quick", "sizes"} == set(results)
    assert {"cpu", "cores", "python", "load_1min", "load_1min_after"} <= set(results["machine"])
    assert (results["benchmark"], results["is_quick"]) == ("chain", True)
    assert [size["validators"] for size in results["sizes"]] == [1, 4]
    for size, plan in zip(results["sizes"], TINY, strict=True):
        assert set(size) == SIZE_KEYS
        # Four blocks a round, more if a phase was closed without somebody; each device and validator speaks twice.
        assert size["blocks"] >= 4 * plan.rounds
        assert size["transactions"] <= 2 * plan.rounds * (plan.devices + plan.validators)
        assert size["latency_ms"]["samples"] == size["blocks"] * plan.validators
        assert 0 < size["latency_ms"]["p50"] <= size["latency_ms"]["p99"]
        assert size["transactions_per_s"] == pytest.approx(size["transactions"] / size["seconds"])
        assert size["seconds_to_floor"] == pytest.approx(size["seconds"] / size["floor_seconds"])
        assert size["seconds_to_floor"] > 1, "no network is faster than one core's checks of its signatures"
        assert size["header_and_certificate_bytes"] == size["header_bytes"] + size["certificate_bytes"]
    one, four = results["sizes"]
    assert one["header_bytes"] == pytest.approx(four["header_bytes"], abs=4)
    # three signatures of 64 bytes are a quorum of four
    assert four["certificate_bytes"] - one["certificate_bytes"] >= 2 * 64


def test_a_network_that_is_too_slow_is_no_result(tmp_path: Path) -> None:
    """If the rounds are not settled in time, BenchError says how far the validators came, and no figure comes out."""
    with pytest.raises(BenchError, match="at height 0"):
        asyncio.run(run_network(Plan(1, 1, 1, seconds_max=0), tmp_path))


def test_no_height_is_quicker_than_its_proposal() -> None:
    """Latency counts from the first word at a height to each validator's own disk."""

    clock = Clock(begun={5: 10.0}, durable={5: {0: 10.5, 1: 11.0}})
    assert list(get_latencies_ms(clock, (5,))) == [500.0, 1000.0]


def test_an_unusable_folder_is_told_before_anything_runs(tmp_path: Path) -> None:
    """--out inside a file is a configuration error, and no benchmark without a name is run."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--out"):
        main(["chain", "--out", str(tmp_path / "file" / "x")], ())
    with pytest.raises(SystemExit):
        flchain(["bench"])
