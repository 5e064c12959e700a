"""A whole network as an operator sets it up: enrolled over HTTPS, mutual TLS, two mosquitto brokers with a bridge."""

from __future__ import annotations

import contextlib
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flchain.wire.messages import Phase
from tests.support.networks.enrolled import enrol_all
from tests.support.networks.registrar import Registrar, make_registrar, serving
from tools.inspect.audit import audit_file, compare
from tools.network.broker import Broker, BrokerError, find_program
from tools.network.layout import Node

NEAR, FAR = "localhost", "127.0.0.1"

"""Two names for this machine, so that each broker has a certificate of its own name."""


def prefer(node: Node, first: Broker, second: Broker) -> None:
    """Name the brokers in this order, and look for the first one again soon."""
    text = node.config.read_text()
    found = re.search(r"brokers = \[(.+)\]", text)
    assert found
    known = {int(entry.rpartition(":")[2].strip('"')): entry for entry in found[1].split(", ")}
    order = f"brokers = [{known[first.port]}, {known[second.port]}]\nreturn_s = 2"
    failover = "" if node.role == "miner" else "failover_s = 3\n"
    node.config.write_text(failover + text.replace(found[0], order))


@pytest.mark.timeout(240)
def test_a_broker_dies_in_mid_round_and_the_round_goes_on(tmp_path: Path) -> None:
    """All turn to the other broker, the round settles with every device's update, and they return once it is back."""
    try:
        find_program("mosquitto")
    except BrokerError as missing:
        pytest.skip(str(missing))
    registrar = make_registrar(tmp_path / "registrar")
    # At all addresses of its name: mosquitto's bridge tries the first only, which may be IPv6's.
    near = registrar.start_broker("mosquitto", tmp_path / "near", "--peer", FAR, bind=NEAR)
    bridge = ("--bridge", f"{NEAR}:{near.port}")
    far = registrar.start_broker("mosquitto", tmp_path / "far", *bridge, host=FAR)
    settings = registrar.folder / "registrar.toml"
    brokers = f'brokers = ["{NEAR}:{near.port}", "{FAR}:{far.port}"]'
    settings.write_text(re.sub(r"brokers = .*", brokers, settings.read_text()))
    with near, far:
        with serving(registrar):
            network = enrol_all(registrar, tmp_path, 4, 2)
        # Now that miners and chain are known, the rules name them.
        registrar.render_broker("mosquitto", tmp_path / "near", near.port, "--peer", FAR, bind=NEAR)
        registrar.render_broker("mosquitto", tmp_path / "far", far.port, *bridge, host=FAR)
        near.reload()
        far.reload()
        for index, node in enumerate(network.nodes):
            prefer(node, *((near, far) if index % 2 == 0 else (far, near)))
        with network.running():
            network.start(*network.nodes)
            network.until_settled(1)
            network.until(lambda: network.get_place().phase is Phase.REVEAL, "the middle of a round")
            number = network.get_place().round
            near.kill()
            network.until_settled(number + 1)
            for agent in network.agents:
                rounds = network.get_rounds(agent)
                assert rounds[number], f"{agent.name}: its update of the round in which the broker died was lost"
                assert len([n for n, _ in network.list_updates(agent) if n == number]) == 1
            homesick = [node for index, node in enumerate(network.nodes) if index % 2 == 0]
            away = f"connected to the broker host={FAR} port={far.port}"
            assert all(away in network.read_log(node) for node in homesick), "they have turned to the other"
            near.start()
            back = f"connected to the broker host={NEAR} port={near.port}"
            network.until(lambda: all(network.read_log(node).count(back) == 2 for node in homesick), "their return")
            network.until_settled(network.get_place().round + 1)
        audits = [audit_file(miner.database, None) for miner in network.miners]
        assert compare(audits) > 0


class Manager:
    """Stands in for systemd: what the services of a test tell it. The kernel holds ten lines only, so it listens on."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(path))
        self._sock.setblocking(False)
        self._lines: list[str] = []
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self._listening = threading.Thread(target=self._listen)
        self._listening.start()
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        monkeypatch.setenv("WATCHDOG_USEC", "2000000")

    def _listen(self) -> None:
        while not self._is_closed.is_set():
            select.select([self._sock], [], [], 0.1)
            self.count("")

    def count(self, start: str) -> int:
        """How many lines that begin so have come."""
        with self._lock:
            with contextlib.suppress(BlockingIOError):
                while True:
                    self._lines += self._sock.recv(4096).decode().split("\n")
            return sum(line.startswith(start) for line in self._lines)

    def close(self) -> None:
        self._is_closed.set()
        self._listening.join()
        self._sock.close()


@contextlib.contextmanager
def served(registrar: Registrar, manager: Manager) -> Iterator[None]:
    """`flchain registrar serve` as a service."""
    command = [sys.executable, "-m", "tools.cli", "registrar", "serve", "--dir", str(registrar.folder)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        before, deadline = manager.count("READY=1"), time.monotonic() + 60
        while manager.count("READY=1") == before:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        assert process.wait(20) == 0


@pytest.mark.timeout(240)
def test_services_over_nats_tell_systemd_how_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Registrar, miners and an agent run as services on NATS with mutual TLS: ready, fed, reloaded, stopped.

    The agent's first broker answers and brings it nobody: it turns to the second by itself.
    """
    registrar = make_registrar(tmp_path / "registrar")
    with (
        contextlib.closing(Manager(tmp_path / "notify", monkeypatch)) as manager,
        registrar.start_broker("nats", tmp_path / "broker") as broker,
        registrar.start_broker("nats", tmp_path / "desert") as desert,
    ):
        settings = registrar.folder / "registrar.toml"
        settings.write_text(re.sub(r"brokers = .*", f'brokers = ["{NEAR}:{broker.port}"]', settings.read_text()))
        with served(registrar, manager):
            network = enrol_all(registrar, tmp_path, 2, 1)
        for running in (broker, desert):
            registrar.render_broker("nats", running.data_dir.parent, running.port)
            running.reload()
        (board,) = network.agents
        both = f'brokers = ["{NEAR}:{desert.port}", "{NEAR}:{broker.port}"]'
        board.config.write_text("failover_s = 1\n" + re.sub(r"brokers = .*", both, board.config.read_text()))
        stopped = manager.count("STOPPING=1")
        with network.running():
            network.start(*network.nodes)
            network.until_settled(1)
            network.until(lambda: manager.count("READY=1") == 1 + len(network.nodes), "all to be ready")
            network.until(lambda: manager.count("STATUS=round") > 0 and manager.count("WATCHDOG=1") > 3, "feeds")
            assert "no miner is heard through this broker" in network.read_log(board)
            connections = network.read_log(board).count("connected to the broker")
            network.signal(board, signal.SIGHUP)
            network.until(lambda: network.read_log(board).count("connected to the broker") > connections, "a reload")
            network.until_settled(network.get_place().round + 1)
        assert manager.count("STOPPING=1") == stopped + len(network.nodes)
