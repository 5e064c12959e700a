"""A network set up by hand, as docs/running.md says, with the commands a person types; on both brokers."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.made_by_hand import MODEL, make_node, run
from tools.network.broker import Broker, BrokerKind, start_broker

ROUNDS = 2
UNTIL = f"until_round = {ROUNDS}\n"
DEADLINE_S = 120.0


@pytest.fixture(params=["nats", "mosquitto"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    kind: BrokerKind = request.param
    if kind == "mosquitto" and shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None:
        pytest.skip("mosquitto is not installed: apt install mosquitto")
    with start_broker(kind, tmp_path / "broker") as started:
        yield started


def read_hashes(tmp_path: Path, agents: int) -> list[bytes]:
    """The model hash of the last round that each agent has computed itself."""
    hashes = []
    for index in range(agents):
        database = tmp_path / f"agent-{index}" / "data" / "agent.db"
        if not database.exists():
            continue
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as db:
            try:
                hashes += [row[0] for row in db.execute("SELECT model_hash FROM rounds WHERE round = ?", (ROUNDS,))]
            except sqlite3.OperationalError:  # the schema is not there yet
                continue
    return hashes


@pytest.mark.timeout(200)
def test_a_network_set_up_by_hand_learns_and_its_ledger_passes_the_audit(tmp_path: Path, broker: Broker) -> None:
    """Keys, genesis, check, run: two miners and two agents settle two rounds on one model."""
    miners = [make_node(tmp_path / f"miner-{index}", "miner", broker, index, UNTIL) for index in range(2)]
    agents = [make_node(tmp_path / f"agent-{index}", "agent", broker, 10 + index, UNTIL) for index in range(2)]
    shutil.copyfile(MODEL, tmp_path / "model.tflite")
    lines = ['name = "by-hand"', 'model = "model.tflite"', 'preset = "minimal"']
    lines += [f'[[validators]]\npublic_key = "{key}"' for key in miners]
    lines += [f'[[devices]]\npublic_key = "{key}"\nhome = "{home}"' for key, home in zip(agents, miners, strict=True)]
    (tmp_path / "network.toml").write_text("\n".join(lines) + "\n")
    genesis = tmp_path / "genesis.cbor"
    run("tools.cli", "genesis", "make", "--network", str(tmp_path / "network.toml"), "--out", str(genesis))
    assert "by-hand" in run("tools.cli", "genesis", "show", str(genesis))

    configs = [(role, tmp_path / f"{role}-{i}" / f"{role}.toml") for role in ("miner", "agent") for i in range(2)]
    for role, config in configs:
        assert "no problem" in run(f"{role}.cli", "check", "--config", str(config))
    running = [
        subprocess.Popen(
            [sys.executable, "-m", f"{role}.cli", "run", "--config", str(config)], stderr=subprocess.DEVNULL
        )
        for role, config in configs
    ]
    try:
        deadline = time.monotonic() + DEADLINE_S
        while len(hashes := read_hashes(tmp_path, 2)) < 2:
            assert time.monotonic() < deadline, "the rounds did not settle"
            assert all(process.poll() is None for process in running), "a node has died"
            time.sleep(0.1)
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        codes = [process.wait(20) for process in running]
    assert codes == [0, 0, 0, 0], "SIGTERM ends a node cleanly"
    assert len(set(hashes)) == 1, "both devices computed the same model"
    assert "rounds" in run("tools.cli", "audit", str(tmp_path / "miner-0" / "data"))
