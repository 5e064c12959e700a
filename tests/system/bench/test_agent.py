"""`flchain bench agent` at its smallest: what it says, and what must hold between its figures on any machine."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from rich.console import Console

from agent.scheduling.readings import Shares
from tools.bench.agent import agent as bench
from tools.bench.agent.cli import PLOT_FILE, RESULT_FILE, run

TINY = bench.Size(share_s=0.5, rounds=2, idle_s=1.0, is_quick=True)


def test_one_json_object_with_shares_memory_and_idle(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real agent's processes stay within 90 MB in rounds with the 1-D CNN, each shared page counted once."""
    monkeypatch.setattr(bench, "QUICK_SPLITS", (Shares(0.2, 0.1),))
    arguments = argparse.Namespace(quick=True, json=True, out=tmp_path, model=None)
    assert run(arguments, Console(stderr=True), TINY) == 0
    results = json.loads(capsys.readouterr().out)
    assert results == json.loads((tmp_path / RESULT_FILE).read_text())
    assert (tmp_path / PLOT_FILE).stat().st_size > 0
    usable = [mechanism for mechanism in results["shares"] if mechanism["is_usable"]]
    assert "duty-cycle" in {mechanism["mechanism"] for mechanism in usable}
    for mechanism in usable:
        for split in mechanism["splits"]:
            assert split["given_train"] < split["asked_train"] + 0.1
    memory, idle = results["memory"], results["idle"]
    assert memory["processes"] == 2 and memory["samples"] > 0
    assert memory["pss_mb"] < memory["rss_mb"]
    assert memory["pss_mb"] <= bench.MEMORY_MB_GOAL
    assert idle["processes"] == 2 and 0 <= idle["cpu_seconds"] < 0.1
