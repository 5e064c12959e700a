"""Validators that come and go while a real network learns: by the commands that an operator types."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flchain.base.crypto import compute_address
from flchain.base.errors import LedgerCorrupt
from flchain.wire.envelope import (
    BODY_BYTES_MAX,
    CERTIFICATE_BYTES_MAX,
    HEADER_BYTES_MAX,
    decode_struct,
    open_envelope,
)
from flchain.wire.fields import Kind
from flchain.wire.messages import Body, Certificate, Header
from miner.edge.ledger.file import open_ledger_file
from miner.edge.ledger.ledger import replay_block
from tests.support.made_by_hand import MODEL, make_node, run
from tools.inspect.stake_view import LedgerView
from tools.network.broker import Broker, start_broker

MINERS, AGENTS = 5, 2
DEADLINE_S = 150.0
pytestmark = pytest.mark.timeout(400)


class Network:
    """Four miners at genesis, a fifth that is not, two agents, and a holder of money."""

    def __init__(self, out: Path, broker: Broker) -> None:
        self.out, self.broker = out, broker
        self.miners = [make_node(out / f"miner-{i}", "miner", broker, i) for i in range(MINERS)]
        self.agents = [make_node(out / f"agent-{i}", "agent", broker, 10 + i) for i in range(AGENTS)]
        self.holder = make_node(out / "holder", "agent", broker, 20)
        shutil.copyfile(MODEL, out / "model.tflite")
        lines = ['name = "stake"', 'model = "model.tflite"', 'preset = "minimal"', "[training]", "local_epochs = 1"]
        lines += [f'[[validators]]\npublic_key = "{key}"' for key in self.miners[:-1]]
        lines += [f'[[devices]]\npublic_key = "{k}"\nhome = "{self.miners[i]}"' for i, k in enumerate(self.agents)]
        lines += [f'[[holders]]\npublic_key = "{self.holder}"\nbalance = 5000']
        (out / "network.toml").write_text("\n".join(lines) + "\n")
        genesis = str(out / "genesis.cbor")
        run("tools.cli", "genesis", "make", "--network", str(out / "network.toml"), "--out", genesis)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, role: str, index: int) -> None:
        name = f"{role}-{index}"
        with (self.out / name / "log.txt").open("wb") as log:
            command = [sys.executable, "-m", f"{role}.cli", "run", "--config", str(self.out / name / f"{role}.toml")]
            self.processes[name] = subprocess.Popen(command, stderr=log)

    def stake(self, *options: str) -> dict[str, Any]:
        """`flchain stake` with the first miner's ledger at hand."""
        data = str(self.out / "miner-0" / "data")
        told: dict[str, Any] = json.loads(
            run("tools.cli", "stake", *options, "--data", data, "--wait", "--timeout", "90", "--json")
        )
        return told

    def as_holder(self, *options: str) -> dict[str, Any]:
        access = ("--key", str(self.out / "holder" / "key.pem"), "--host", self.broker.host)
        return self.stake(*options, *access, "--port", str(self.broker.port))

    def as_miner(self, index: int, *options: str) -> dict[str, Any]:
        return self.stake(*options, "--config", str(self.out / f"miner-{index}" / "miner.toml"))

    def wait(self, view: LedgerView, is_done: Callable[[LedgerView], bool]) -> None:
        """Until the first miner's ledger shows it, all nodes alive."""
        deadline = time.monotonic() + DEADLINE_S
        while not is_done(view):
            dead = [name for name, process in self.processes.items() if process.poll() is not None]
            logs = "\n".join((self.out / name / "log.txt").read_text()[-2_000:] for name in dead)
            assert not dead, f"{dead} died:\n{logs}"
            assert time.monotonic() < deadline, f"stuck at height {view.state.height}, round {view.state.round}"
            time.sleep(0.2)
            try:
                view.read_on()
            except LedgerCorrupt as error:  # read in the very moment of a write: the next look finds it whole
                assert "file" in str(error)


@contextmanager
def start_network(out: Path) -> Iterator[Network]:
    with start_broker("nats", out / "broker") as broker:
        network = Network(out, broker)
        try:
            for index in range(MINERS - 1):
                network.start("miner", index)
            for index in range(AGENTS):
                network.start("agent", index)
            yield network
        finally:
            for process in network.processes.values():
                process.send_signal(signal.SIGTERM)
            for process in network.processes.values():
                process.wait(30)


def find_models(agent: Path) -> dict[int, bytes]:
    """The model hash of each round that an agent has computed itself."""
    with contextlib.closing(sqlite3.connect(f"file:{agent / 'data' / 'agent.db'}?mode=ro", uri=True)) as db:
        return dict(db.execute("SELECT round, model_hash FROM rounds"))


def find_words(ledger: Path, public_key: str) -> tuple[set[int], set[int], dict[int, bytes]]:
    """Rounds in which this miner has scored; heights that it has signed; the model that each settled round left."""
    address = compute_address(bytes.fromhex(public_key))
    scored, signed, settled = set(), set(), {}
    with open_ledger_file(ledger) as file:
        _, state = file.load_genesis_state()
        for row in file.iterate_blocks():
            header = decode_struct(row.header, Header, HEADER_BYTES_MAX)
            body = decode_struct(row.body, Body, BODY_BYTES_MAX)
            certificate = decode_struct(row.certificate, Certificate, CERTIFICATE_BYTES_MAX)
            if address in {state.validators[index].address for index, _ in certificate.signatures}:
                signed.add(header.height)
            envelopes = [open_envelope(raw, state.chain) for raw in body.transactions]
            if any(e.sender == address and e.kind is Kind.SCORE_REVEAL for e in envelopes):
                scored.add(header.round)
            if body.settlement is not None:
                settled[header.round] = header.model_hash
            state = replay_block(state, row)
    return scored, signed, settled


def test_a_fifth_miner_comes_and_another_leaves_while_rounds_go_on(tmp_path: Path) -> None:
    """Paid by a holder, the fifth registers and is elected when the epoch ends; it scores and signs. Another takes its
    bond back, loses its seat in an election and follows. No round is lost, and the agents follow through both."""
    with start_network(tmp_path) as network:
        ledger = tmp_path / "miner-0" / "data" / "ledger.db"
        deadline = time.monotonic() + DEADLINE_S
        while not ledger.exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        new, leaver = network.miners[4], network.miners[3]
        assert network.as_holder("transfer", "--to", new, "--amount", "2000")["height"] >= 1
        network.as_holder("transfer", "--to", leaver, "--amount", "10")
        network.start("miner", 4)
        registered = network.as_miner(4, "register", "--amount", "1500", "--commission-percent", "5")
        network.as_miner(3, "undelegate", "--candidate", "self", "--amount", "1000")
        network.as_holder("delegate", "--candidate", new, "--amount", "500")

        view = LedgerView(ledger)
        new_address, leaver_address = (compute_address(bytes.fromhex(key)) for key in (new, leaver))

        def get_seats() -> set[bytes]:
            return {validator.address for validator in view.state.validators}

        network.wait(view, lambda _: new_address in get_seats() and leaver_address not in get_seats())
        elected = view.state.height
        goal = view.state.round.number + 3
        network.wait(view, lambda v: v.state.round.number >= goal)
        scored, signed, settled = find_words(ledger, new)
        assert list(settled) == list(range(1, len(settled) + 1)), "no round was lost"
        agents = [tmp_path / f"agent-{index}" for index in range(AGENTS)]
        network.wait(view, lambda _: all(goal - 1 in find_models(agent) for agent in agents))
        for models in map(find_models, agents):
            assert models.items() & settled.items() >= {(goal - 1, settled[goal - 1])}
            assert all(settled[number] == models[number] for number in models if number in settled)
        assert min(signed, default=0) > registered["height"]
        assert signed and max(signed) > elected, "the new one signs"
        assert scored, "the new one scores"
        _, signed_by_leaver, _ = find_words(ledger, leaver)
        assert max(signed_by_leaver) <= elected
        shown = json.loads(run("tools.cli", "stake", "show", "--data", str(ledger), "--account", leaver, "--json"))
        assert shown["account"]["unbondings"][0]["amount"] == 1_000
        assert "rounds" in run("tools.cli", "audit", str(tmp_path / "miner-3" / "data"))
