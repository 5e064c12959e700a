"""The MQTT link against a real broker on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flchain.base.errors import ConfigError
from flchain.wire.packets import PAYLOAD_BYTES_MAX
from flchain_edge.mqtt.broker_choice import BACKOFF_MAX_S, compute_backoff_s
from flchain_edge.mqtt.inbox import Inbox, LinkDown, LinkUp, Received
from flchain_edge.mqtt.link import compute_publish_bytes
from flchain_edge.mqtt.settings import MqttSettings, Will
from tests.support.floats import floats
from tests.support.networks.mqtt_link import InboxLink, settings_for, started, until, wait_for
from tools.network.broker import Broker, start_broker


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with start_broker("nats", tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.mark.parametrize("qos", [0, 1])
def test_round_trip(broker: Broker, qos: int) -> None:
    """What one node publishes another receives unchanged, up to the largest payload, and both count the same bytes."""

    async def scenario() -> None:
        topic = f"flchain/v1/round-trip-{qos}/x"
        async with (
            started(InboxLink(settings_for(broker)), topic) as reader,
            started(InboxLink(settings_for(broker))) as writer,
        ):
            for payload in (b"", b"hello", bytes(range(256)) * 100, b"\xff" * PAYLOAD_BYTES_MAX):
                assert writer.publish(topic, payload, qos=qos)
                assert await wait_for(reader, Received) == Received(topic, payload, False)
            assert reader.counters.messages_received == 4
            assert reader.counters.bytes_received + reader.counters.bytes_sent >= PAYLOAD_BYTES_MAX
            assert writer.counters.bytes_sent == sum(
                compute_publish_bytes(topic, size, qos) for size in (0, 5, 25_600, PAYLOAD_BYTES_MAX)
            )

    asyncio.run(scenario())


def test_retained_is_told_from_live(broker: Broker) -> None:
    """A message stored at the broker comes marked as retained; the same message live does not."""

    async def scenario() -> None:
        topic = "flchain/v1/retained/head"
        async with started(InboxLink(settings_for(broker)), topic) as writer:
            assert writer.publish(topic, b"head 1", retain=True)
            assert await wait_for(writer, Received) == Received(topic, b"head 1", False)
            async with started(InboxLink(settings_for(broker)), "flchain/v1/retained/+") as late:
                assert await wait_for(late, Received) == Received(topic, b"head 1", True)

    asyncio.run(scenario())


def test_unsubscribed_is_not_heard(broker: Broker) -> None:
    """After an unsubscribe a topic's messages stop; other filters go on."""

    async def scenario() -> None:
        async with started(InboxLink(settings_for(broker)), "flchain/v1/un/a", "flchain/v1/un/b") as link:
            link.unsubscribe("flchain/v1/un/a", "never/asked")
            assert link.publish("flchain/v1/un/a", b"a")
            assert link.publish("flchain/v1/un/b", b"b")
            assert (await wait_for(link, Received)).payload == b"b"
            assert link.is_subscribed

    asyncio.run(scenario())


def test_will_is_sent_for_the_vanished_only(broker: Broker) -> None:
    """The broker sends the will of a node whose connection breaks, and not of one that says goodbye."""

    async def scenario() -> None:
        async with started(InboxLink(settings_for(broker)), "flchain/v1/will/+") as watcher:
            polite = InboxLink(settings_for(broker), will=Will("flchain/v1/will/polite", b"gone"))
            async with started(polite):
                pass
            broken = InboxLink(settings_for(broker), will=Will("flchain/v1/will/broken", b"gone"))
            async with started(broken):
                assert broken._session is not None
                broken._session.abort()
                assert (await wait_for(watcher, Received)).topic == "flchain/v1/will/broken"

    asyncio.run(scenario())


def test_small_messages_are_not_held_back(broker: Broker) -> None:
    """The socket has TCP_NODELAY, and the process no thread for MQTT once it is connected."""

    async def scenario() -> None:
        async with started(InboxLink(settings_for(broker))) as link:
            assert link._session is not None
            sock = link._session._client.socket()
            assert isinstance(sock, socket.socket)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            await until(lambda: not any("mqtt" in thread.name for thread in threading.enumerate()))

    asyncio.run(scenario())


@contextlib.asynccontextmanager
async def tls_in_front_of(broker: Broker, certificate: Path, key: Path) -> AsyncIterator[int]:
    """A port that speaks TLS, asks for a client certificate, and passes everything on to the broker."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificate))
    context.load_cert_chain(str(certificate), str(key))
    context.verify_mode = ssl.CERT_REQUIRED

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(broker.host, broker.port)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with the openssl program")
def test_tls_with_client_certificate(broker: Broker, tmp_path: Path) -> None:
    """Over TLS small bursts and the largest payload arrive whole; a node without a certificate does not get in."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=127.0.0.1"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *request.split(), *names], check=True, capture_output=True)

    async def scenario() -> None:
        topic = "flchain/v1/tls/x"
        async with tls_in_front_of(broker, certificate, key) as port:
            settings = MqttSettings(port=port, tls_ca=certificate, tls_certificate=certificate, tls_key=key)
            async with started(InboxLink(settings), topic) as link:
                # In one TLS record many packets come at once; none may wait for the next to arrive.
                for number in range(200):
                    assert link.publish(topic, bytes([number]), qos=0)
                assert [(await wait_for(link, Received)).payload[0] for _ in range(200)] == list(range(200))
                assert link.publish(topic, b"x" * PAYLOAD_BYTES_MAX)
                assert len((await wait_for(link, Received)).payload) == PAYLOAD_BYTES_MAX
                stranger = InboxLink(MqttSettings(port=port, tls_ca=certificate))
                await stranger.start()
                await until(lambda: any("no connection" in text for text in stranger._said.values()))
                assert not stranger.is_connected
                assert stranger.counters.connections == 0
                await stranger.stop()

    asyncio.run(scenario())


def test_unusable_tls_files_are_told_at_start(tmp_path: Path) -> None:
    """A missing or broken certificate file is a ConfigError at start, not an endless retry."""
    broken = tmp_path / "ca.pem"
    broken.write_text("no certificate")

    async def start(settings: MqttSettings) -> None:
        await InboxLink(settings).start()

    for settings in (
        MqttSettings(tls_ca=tmp_path / "missing.pem"),
        MqttSettings(tls_ca=broken),
        MqttSettings(tls_key=broken),
        MqttSettings(tls_ca=broken, tls_certificate=broken),
    ):
        with pytest.raises(ConfigError, match="tls_"):
            asyncio.run(start(settings))


@given(st.lists(st.sampled_from(["up", "down", "message", "read"]), max_size=60))
def test_inbox_is_bounded_whatever_happens(steps: list[str]) -> None:
    """Flapping and flooding without a reader never hold more than the maximum, and the last state is never lost."""
    inbox, is_up, is_up_told = Inbox(messages_max=2, bytes_max=3), False, False
    for step in steps:
        if step == "message":
            inbox.put(Received("t", b"xx", False))
        elif step == "read":
            event = inbox.get_nowait()
            is_up_told = isinstance(event, LinkUp) or (is_up_told and not isinstance(event, LinkDown))
        elif (step == "up") != is_up:
            is_up = not is_up
            assert inbox.put(LinkUp() if is_up else LinkDown("x"))
        assert len(inbox) <= 1 + 3 * 2
    while (event := inbox.get_nowait()) is not None:
        is_up_told = isinstance(event, LinkUp) or (is_up_told and not isinstance(event, LinkDown))
    assert is_up_told == is_up


@given(st.integers(1, 10_000), floats(0, 1, exclude_max=True))
def test_backoff_is_capped_and_spread(failures: int, draw: float) -> None:
    """The delay never exceeds its cap and never falls below half of what the failures ask for."""
    ceiling = compute_backoff_s(failures, 1.0)
    assert 0 < ceiling / 2 <= compute_backoff_s(failures, draw) <= ceiling <= BACKOFF_MAX_S
