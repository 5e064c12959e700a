"""The MQTT link when something fails: the broker, the library, its owner."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flchain.wire.packets import PAYLOAD_BYTES_MAX
from flchain_edge.mqtt import session as mqtt_session
from flchain_edge.mqtt.inbox import Inbox, LinkDown, LinkEvent, LinkUp, Received
from flchain_edge.mqtt.link import OUTGOING_BYTES_MAX, MqttLink
from flchain_edge.mqtt.settings import MqttSettings
from tests.support.networks.mqtt_link import DEADLINE_S, InboxLink, settings_for, started, until, wait_for
from tools.network.broker import Broker, find_free_port, start_broker


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with start_broker("nats", tmp_path_factory.mktemp("broker")) as running:
        yield running


def test_killed_broker_is_survived(tmp_path: Path) -> None:
    """After kill -9 and restart of the broker the link reports both, refuses messages meanwhile, and receives again."""

    async def scenario(broker: Broker) -> None:
        topic = "flchain/v1/killed/x"
        async with started(InboxLink(settings_for(broker)), topic) as link:
            await wait_for(link, LinkUp)
            await asyncio.to_thread(broker.kill)
            await wait_for(link, LinkDown)
            assert not link.publish(topic, b"lost")
            assert link.counters.refused == 1
            await asyncio.to_thread(broker.start)
            await wait_for(link, LinkUp)
            await until(lambda: link.is_subscribed)
            assert link.publish(topic, b"after")
            assert (await wait_for(link, Received)).payload == b"after"
            assert link.counters.connections == 2

    with start_broker("nats", tmp_path) as broker:
        asyncio.run(scenario(broker))


def test_dead_broker_is_tried_quietly(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is down at the start costs one log line over many attempts, no traceback, and stop is prompt."""
    monkeypatch.setattr("flchain_edge.mqtt.broker_choice.BACKOFF_MAX_S", 0.01)
    attempts = 0
    connect = mqtt_session.Session.open

    async def counted(session: mqtt_session.Session) -> None:
        nonlocal attempts
        attempts += 1
        await connect(session)

    monkeypatch.setattr(mqtt_session.Session, "open", counted)

    async def scenario() -> None:
        link = InboxLink(MqttSettings(port=find_free_port()))
        await link.start()
        await until(lambda: attempts >= 5)
        assert not link.is_connected
        assert not link.publish("flchain/v1/x", b"")
        await link.stop()

    with caplog.at_level(logging.INFO):
        asyncio.run(scenario())
    said = [record for record in caplog.records if "no connection" in record.getMessage()]
    assert len(said) == 1
    assert not any(record.exc_info for record in caplog.records)


def test_broker_that_talks_nonsense_cannot_stop_the_link(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever bytes the other end sends, the link drops that connection and tries the next."""
    monkeypatch.setattr("flchain_edge.mqtt.broker_choice.BACKOFF_MAX_S", 0.01)
    answers = [b"", b"\x20\x02\x00\x05", b"\xff" * 64, b"\x20\x00", b"\x20\x02\x00\x00\x30\x00", b"\x30\x05\x00\xff"]
    answers += [b"\x20\x02\x00\x00\x30\x04\x00\x02\xff\xfe", b"\x20\x02\x00\x00\x90\x01\x00\x40\x00"]
    server = socket.create_server(("127.0.0.1", 0))
    served: list[bytes] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = server.accept()
                with peer:
                    peer.recv(1024)
                    answer = answers[len(served) % len(answers)]
                    served.append(answer)
                    peer.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    async def scenario() -> None:
        link = InboxLink(MqttSettings(port=server.getsockname()[1]))
        link.subscribe("flchain/v1/+")
        await link.start()
        await until(lambda: len(served) > 2 * len(answers))
        assert link._task is not None
        assert not link._task.done()
        await link.stop()

    with caplog.at_level(logging.INFO):
        asyncio.run(scenario())
    # An exception that gets past the link is what asyncio logs as an error.
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(DEADLINE_S)


def test_packets_that_arrive_together_or_in_parts_are_all_taken() -> None:
    """Of a hundred packets in one segment, the last cut in its head, every one is delivered once and in order, without
    waiting for more to come."""
    topic = b"flchain/v1/x"
    packets = [b"\x30" + bytes((len(topic) + 3, 0, len(topic))) + topic + bytes((number,)) for number in range(100)]
    last = b"\x30\x8f\x02\x00\x0c" + topic + bytes(257)
    have_come = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        peer, _ = server.accept()
        with peer:
            peer.recv(1024)
            peer.sendall(b"\x20\x02\x00\x00" + b"".join(packets) + last[:2])
            assert have_come.wait(DEADLINE_S)
            peer.sendall(last[2:])
            peer.recv(1024)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    async def scenario() -> None:
        link = InboxLink(MqttSettings(port=server.getsockname()[1]))
        await link.start()
        payloads = [(await wait_for(link, Received)).payload for _ in packets]
        assert payloads == [bytes((number,)) for number in range(100)]
        have_come.set()
        assert (await wait_for(link, Received)).payload == bytes(257)
        await link.stop()

    asyncio.run(scenario())
    server.close()
    thread.join(DEADLINE_S)


def test_failure_inside_paho_costs_one_connection(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the MQTT library itself raises, that connection ends and the next one works."""

    def fail() -> None:
        raise IndexError("inside the library")

    async def scenario() -> None:
        topic = "flchain/v1/inside/x"
        async with started(InboxLink(settings_for(broker)), topic) as link:
            await wait_for(link, LinkUp)
            assert link._session is not None
            monkeypatch.setattr(link._session._client, "loop_read", fail)
            assert link.publish(topic, b"read by nobody")
            assert (await wait_for(link, LinkDown)).reason == "IndexError: inside the library"
            await until(lambda: link.is_subscribed)
            assert link.publish(topic, b"read")
            assert (await wait_for(link, Received)).payload == b"read"

    asyncio.run(scenario())


def test_our_own_mistakes_are_refused_at_once(broker: Broker) -> None:
    """An oversized payload, a wildcard topic and QoS 2 raise ValueError, connected or not, and break nothing."""

    async def scenario() -> None:
        link = InboxLink(settings_for(broker))
        with pytest.raises(ValueError, match="chunks"):
            link.publish("flchain/v1/x", bytes(PAYLOAD_BYTES_MAX + 1))
        async with started(link, "flchain/v1/mistakes"):
            with pytest.raises(ValueError, match="chunks"):
                link.publish("flchain/v1/x", bytes(PAYLOAD_BYTES_MAX + 1))
            with pytest.raises(ValueError, match="topic"):
                link.publish("flchain/v1/+", b"")
            with pytest.raises(ValueError, match="QoS"):
                link.publish("flchain/v1/x", b"", qos=2)
            assert link.publish("flchain/v1/mistakes", b"fine")
            assert (await wait_for(link, Received)).payload == b"fine"

    asyncio.run(scenario())


def test_full_inbox_drops_and_counts(broker: Broker) -> None:
    """If the owner does not read, the newest messages are dropped and counted; those that waited stay in order."""

    async def scenario() -> None:
        topic = "flchain/v1/full/x"
        async with started(InboxLink(settings_for(broker), Inbox(messages_max=3)), topic) as link:
            for number in range(8):
                assert link.publish(topic, bytes([number]))
            await until(lambda: link.counters.messages_received == 8)
            assert link.counters.dropped == 5
            assert [(await wait_for(link, Received)).payload for _ in range(3)] == [b"\0", b"\1", b"\2"]

    asyncio.run(scenario())


def test_outgoing_is_bounded(broker: Broker) -> None:
    """Publishing faster than the broker takes it ends in False, never in unbounded memory, and recovers."""

    async def scenario() -> None:
        async with started(InboxLink(settings_for(broker))) as link:
            accepted = sum(link.publish("flchain/v1/bound/x", bytes(PAYLOAD_BYTES_MAX)) for _ in range(20))
            assert accepted == OUTGOING_BYTES_MAX // PAYLOAD_BYTES_MAX
            assert link.counters.refused == 20 - accepted
            await until(lambda: link.publish("flchain/v1/bound/x", bytes(PAYLOAD_BYTES_MAX)))

    asyncio.run(scenario())


def test_failing_handler_does_not_kill(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """A handler that raises is logged each time, and the next message still reaches it."""
    seen: list[bytes] = []

    def handler(event: LinkEvent) -> bool:
        if isinstance(event, Received):
            seen.append(event.payload)
        raise RuntimeError("a fault of the owner")

    async def scenario() -> None:
        topic = "flchain/v1/handler/x"
        async with started(MqttLink(settings_for(broker), handler), topic) as link:
            assert link.publish(topic, b"1")
            assert link.publish(topic, b"2")
            await until(lambda: seen == [b"1", b"2"])
            assert [r.message for r in caplog.records if r.exc_info] == ["a handler of link events failed"] * 3
            assert link.is_connected

    asyncio.run(scenario())
