"""The supervised brokers, with real processes and a real client over loopback."""

from __future__ import annotations

import queue
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import paho.mqtt.client as mqtt
import psutil
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from flchain.wire.packets import PAYLOAD_BYTES_MAX
from tools.network import broker as broker_module
from tools.network.broker import Broker, BrokerError, BrokerKind, find_program, start_broker

WAIT_S = 20.0


@pytest.fixture(params=["nats", "mosquitto"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    kind = cast(BrokerKind, request.param)
    try:
        find_program(kind)
    except BrokerError as missing:
        if kind == "nats":
            raise  # comes with make setup: its absence is a fault, not a choice
        pytest.skip(str(missing))
    with start_broker(kind, tmp_path / kind) as running:
        yield running


class Client:
    """A paho client whose callbacks only fill queues."""

    def __init__(self, client_id: str, clean: bool = True) -> None:
        self.messages: queue.Queue[mqtt.MQTTMessage] = queue.Queue()
        self.events: queue.Queue[str] = queue.Queue()
        self.paho = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=clean)
        self.paho.on_message = lambda _c, _u, message: self.messages.put(message)
        self.paho.on_connect = lambda *_: self.events.put("connected")
        self.paho.on_subscribe = lambda *_: self.events.put("subscribed")

    def expect_event(self, name: str) -> None:
        assert self.events.get(timeout=WAIT_S) == name

    def subscribe(self, topic: str) -> None:
        self.paho.subscribe(topic, qos=1)
        self.expect_event("subscribed")

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        self.paho.publish(topic, payload, qos=1, retain=retain).wait_for_publish(WAIT_S)

    def get(self) -> mqtt.MQTTMessage:
        return self.messages.get(timeout=WAIT_S)


@contextmanager
def connect(broker: Broker, client_id: str, **options: Any) -> Iterator[Client]:
    client = Client(client_id, **options)
    client.paho.connect(broker.host, broker.port)
    client.paho.loop_start()
    try:
        client.expect_event("connected")
        yield client
    finally:
        client.paho.disconnect()
        client.paho.loop_stop()


def test_a_qos1_message_passes(broker: Broker) -> None:
    """A QoS 1 message reaches a subscriber with its topic and payload."""
    with connect(broker, "reader") as reader, connect(broker, "writer") as writer:
        reader.subscribe("flchain/v1/+/update/#")
        writer.publish("flchain/v1/demo/update/a", b"payload")
        message = reader.get()
    assert (message.topic, message.payload, message.qos) == ("flchain/v1/demo/update/a", b"payload", 1)


def test_a_retained_message_waits_for_a_later_subscriber(broker: Broker) -> None:
    """A later subscriber gets the newest retained message, by a wildcard too."""
    with connect(broker, "writer") as writer:
        writer.publish("flchain/v1/demo/head", b"old", retain=True)
        writer.publish("flchain/v1/demo/head", b"new", retain=True)
    with connect(broker, "late") as late:
        late.subscribe("flchain/v1/demo/#")
        message = late.get()
    assert (message.payload, message.retain) == (b"new", True)


def test_the_largest_payload_passes_whole(broker: Broker) -> None:
    """A payload of exactly the largest size we ever send arrives byte for byte."""
    payload = bytes(range(250)) * (PAYLOAD_BYTES_MAX // 250)
    assert len(payload) == PAYLOAD_BYTES_MAX
    with connect(broker, "reader") as reader, connect(broker, "writer") as writer:
        reader.subscribe("flchain/v1/demo/body")
        writer.publish("flchain/v1/demo/body", payload)
        assert reader.get().payload == payload


def test_a_killed_broker_comes_back_on_its_port(broker: Broker) -> None:
    """After SIGKILL the watcher's call starts it again where clients look for it, and messages pass."""
    port, pid = broker.port, broker.pid
    assert not broker.ensure_running(), "a living broker is left alone"
    broker.kill()
    assert not broker.poll()
    assert broker.ensure_running()
    assert (broker.port, broker.restarts) == (port, 1)
    assert broker.pid != pid
    test_a_qos1_message_passes(broker)


def test_a_restart_keeps_retained_messages_and_sessions(broker: Broker) -> None:
    """An orderly restart loses neither a retained message nor what waits for a client that was away."""
    with connect(broker, "board-1", clean=False) as board:
        board.subscribe("flchain/v1/demo/receipt/board-1")
    with connect(broker, "miner") as miner:
        miner.publish("flchain/v1/demo/receipt/board-1", b"receipt")
        miner.publish("flchain/v1/demo/head", b"head", retain=True)
    broker.stop()
    broker.start()
    with connect(broker, "board-1", clean=False) as board:
        assert board.get().payload == b"receipt"
        board.subscribe("flchain/v1/demo/head")
        assert board.get().payload == b"head"


def test_what_a_killed_run_left_behind_is_ended(broker: Broker) -> None:
    """A second start on the same folder ends the first run's broker instead of sharing its files."""
    with start_broker(broker.kind, broker.data_dir) as second:
        assert not broker.poll()
        assert second.poll()


def test_a_foreign_process_in_the_pid_file_is_left_alone(tmp_path: Path) -> None:
    """A stale pid file whose number now belongs to another program harms nobody."""
    other = psutil.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=-1)
    try:
        (tmp_path / "broker.pid").write_text(f"{other.pid}\n")
        broker_module.end_leftover(tmp_path)
        assert other.poll() is None
        assert not (tmp_path / "broker.pid").exists()
    finally:
        other.kill()
        other.wait()


def test_its_folder_may_have_a_name_that_is_not_ascii(tmp_path: Path) -> None:
    """A broker starts in a folder with umlauts and a space in its name, and keeps its files there."""
    folder = tmp_path / "Größe 1"
    with start_broker("nats", folder) as running, connect(running, "reader") as reader:
        reader.publish("flchain/v1/demo/head", b"x", retain=True)
    assert (folder / "jetstream").is_dir()


def test_a_broker_that_cannot_start_says_why(tmp_path: Path) -> None:
    """A refused configuration is reported at once, with the broker's own words."""
    config = tmp_path / "nats.conf"
    config.write_text("no_such_key { deep: true }\nmax_payload: what\n")
    broken = Broker(
        "nats", broker_module.HOST, broker_module.find_free_port(), tmp_path, (find_program("nats"), "-c", str(config))
    )
    with pytest.raises(BrokerError, match=r"ended with status[\s\S]*no_such_key|ended with status[\s\S]*max_payload"):
        broken.start()


def test_an_unknown_kind_lists_the_known_ones(tmp_path: Path) -> None:
    """A misspelt kind is refused with the names that exist."""
    with pytest.raises(BrokerError, match="known: mosquitto, nats"):
        start_broker(cast(BrokerKind, "rabbit"), tmp_path)
