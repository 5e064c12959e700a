"""One network whose nodes run on both runtimes, several Pythons and two processors has one model in every round.

FLCHAIN_MIXED=short: one board, AArch64 under Debian 13, among x86-64 nodes; two roots fewer, for CI. FLCHAIN_PYTHONS
names more interpreters of this machine ("3.10=/path/to/python3.10:3.12=...") that take part.
"""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from flchain.base.errors import ConfigError
from flchain.ledger.state import hash_model
from flchain_edge.model.model_files import compute_initial_model
from flchain_edge.model.tflite import TfliteModel
from tests.machines.places import Place, make_own_place, make_root_place
from tools.demo.results import iterate_models, query
from tools.images.emulation import get_architecture
from tools.inspect.audit import audit_file, compare
from tools.network.broker import start_broker
from tools.network.datasets import load_npz
from tools.network.layout import Network, Node, Plan, build_network, write_configs

IS_SHORT = os.environ.get("FLCHAIN_MIXED") == "short"
ROUNDS = 2 if IS_SHORT else 4
"""Settled with every device's update."""
DEADLINE_S = 1500.0
"""The end of patience: an emulated board takes some 10 s a round on a quiet machine."""
POLL_S = 0.2
LOG_TAIL = 1500
MINERS = 4

pytestmark = pytest.mark.timeout(int(2 * DEADLINE_S))


def lay_out(out: Path, devices: int) -> Network:
    """Keys, genesis and little data: a 1-D CNN that learns four levels in a moment."""
    rng = np.random.default_rng(7)
    people, each = devices + 2, 40
    y = np.arange(people * each) % 4
    x = rng.normal(0, 0.5, (len(y), 100, 6)) + y[:, None, None]
    file = out.with_suffix(".npz")
    np.savez(file, x=x.astype(np.float32), y=y, client=np.arange(len(y)) // each)
    plan = Plan(
        dataset="levels",
        devices=devices,
        miners=MINERS,
        seed=1,
        model="cnn1d",
        codec="sparse-ternary",
        codec_level=20,
        downstream_codec="sparse-ternary",
        downstream_level=20,
        follow="full",
        aggregation="weighted-sum",
        preset="field",
        local_epochs=1,
        batch_size=32,
        learning_rate=0.05,
    )
    return build_network(out, plan, load_npz(file, "cnn1d"))


def make_places(folder: Path, shared: Path) -> dict[str, list[Place]]:
    """Where agents run, and where miners do."""
    here = Place("this python", lambda words: (sys.executable, *words[1:]), {})
    own = get_architecture()
    other = "arm64" if own == "amd64" else "amd64"
    board = make_root_place("trixie", other, folder / f"trixie-{other}", shared)
    if IS_SHORT:
        return {"agent": [here, here, board], "miner": [here] * MINERS}
    older = make_root_place("bookworm", other, folder / f"bookworm-{other}", shared)
    places = [
        make_root_place("bookworm", own, folder / f"bookworm-{own}", shared),
        make_root_place("trixie", own, folder / f"trixie-{own}", shared),
    ]
    named = filter(None, os.environ.get("FLCHAIN_PYTHONS", "").split(":"))
    more = [make_own_place(path, version, own) for version, _, path in (entry.partition("=") for entry in named)]
    return {"agent": [*places, older, board, *more], "miner": [here, *places, older]}


@dataclass
class Run:
    """The processes of all nodes."""

    network: Network
    places: dict[str, Place]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Start every node in its place; all are ended at the end of the block."""
        try:
            for node in self.network.nodes:
                place = self.places[node.name]
                command = place.build_command("-m", f"{node.role}.cli", "run", "--config", str(node.config.resolve()))
                with node.log.open("ab") as log:
                    self.processes[node.name] = subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        env={**os.environ, **place.env},
                        start_new_session=True,
                    )
            yield
        finally:
            for process in self.processes.values():
                process.kill()  # also everything in a root, which has its own process numbers
                process.wait()

    def until_all_have(self, rounds: int) -> None:
        """Until every device has had its update in so many rounds whose model all have computed."""
        begin = time.monotonic()
        while not all(len(self.list_accepted(agent)) >= rounds for agent in self.network.agents):
            for name, process in self.processes.items():
                assert process.poll() is None, f"{name} has ended\n{self.show()}"
            assert time.monotonic() - begin < DEADLINE_S, self.show()
            time.sleep(POLL_S)

    def list_accepted(self, agent: Node) -> set[int]:
        """Rounds with this device's update that every device has the model of."""
        known = [{row[0] for row in query(each.database, "SELECT round FROM rounds")} for each in self.network.agents]
        own = query(agent.database, "SELECT round FROM rounds WHERE is_accepted")
        return {row[0] for row in own}.intersection(*known)

    def show(self) -> str:
        """The end of every log."""
        return "\n".join(
            f"{node.name} on {self.places[node.name].name}:\n{node.log.read_text(errors='replace')[-LOG_TAIL:]}"
            for node in self.network.nodes
        )


def test_one_model_everywhere(tmp_path: Path) -> None:
    """Every device's update is taken, and each round's model has one hash: on all devices, and in a replay here."""
    if platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip(f"{platform.machine()}: no roots are made here")
    out = tmp_path / "network"
    out.mkdir()
    try:
        where = make_places(tmp_path / "roots", out)
    except ConfigError as missing:
        pytest.skip(str(missing))
    network = lay_out(out, len(where["agent"]))
    places = {
        node.name: place
        for role, nodes in (("miner", network.miners), ("agent", network.agents))
        for node, place in zip(nodes, where[role], strict=True)
    }
    run = Run(network, places)
    begin = time.monotonic()
    with start_broker("nats", tmp_path / "broker") as broker:
        write_configs(network, broker.host, broker.port, 0)
        with run.running():
            run.until_all_have(ROUNDS)
    found: dict[int, set[bytes]] = {}
    for agent in network.agents:
        for number, digest in query(agent.database, "SELECT round, model_hash FROM rounds"):
            found.setdefault(number, set()).add(digest)
    initial = compute_initial_model(TfliteModel((out / "model.tflite").read_bytes()))
    longest = max(network.miners, key=lambda miner: len(query(miner.database, "SELECT 1 FROM blocks")))
    replayed = {
        number: hash_model(model) for number, model in iterate_models(longest.database, network.genesis, initial)
    }
    for number in range(1, min(max(found), max(replayed)) + 1):
        assert found[number] == {replayed[number]}, f"round {number}"
    assert compare([audit_file(miner.database, None) for miner in network.miners]) > 0
    last = max(set(found) & set(replayed))
    print(f"{len(places)} nodes, {last} rounds in {time.monotonic() - begin:.0f} s, model {replayed[last].hex()[:32]}")
    for agent in network.agents:
        rows = query(agent.database, "SELECT avg(training_ms), sum(is_accepted) FROM rounds")
        print(f"  {agent.name} on {places[agent.name].name}: {rows[0][1]} updates, trained {rows[0][0]:.0f} ms a round")
