"""Several brokers for one link: turn to the next when one fails, come back when the first is back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flchain.base.errors import ConfigError
from flchain_edge.mqtt.broker_choice import BACKOFF_MAX_S, BrokerChoice
from flchain_edge.mqtt.inbox import LinkUp
from flchain_edge.mqtt.settings import Endpoint, MqttSettings
from flchain_edge.settings.config import load_config
from tests.support.floats import floats
from tests.support.networks.mqtt_link import InboxLink, until, wait_for
from tools.network.broker import Broker, start_broker


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[tuple[Broker, Broker]]:
    with start_broker("nats", tmp_path / "a") as first, start_broker("nats", tmp_path / "b") as second:
        yield first, second


def settings_for(*brokers: Broker, return_s: int = 1) -> MqttSettings:
    return MqttSettings(brokers=tuple(f"{b.host}:{b.port}" for b in brokers), return_s=return_s)


def test_the_next_broker_is_taken_and_the_first_again(
    brokers: tuple[Broker, Broker], caplog: pytest.LogCaptureFixture
) -> None:
    """The first dies: the second is used. The first comes back: it is used again, and the log has each change once."""
    first, second = brokers

    async def scenario() -> None:
        link = InboxLink(settings_for(first, second))
        await link.start()
        await wait_for(link, LinkUp)
        await asyncio.to_thread(first.kill)
        await wait_for(link, LinkUp)
        await asyncio.to_thread(first.start)
        await wait_for(link, LinkUp)
        assert link.counters.connections == 3
        await link.stop()

    with caplog.at_level(logging.INFO):
        asyncio.run(scenario())
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("connected")]
    assert [line.rpartition("=")[2] for line in said] == [str(b.port) for b in (first, second, first)]


def test_a_stand_in_is_kept_while_the_first_is_down(brokers: tuple[Broker, Broker]) -> None:
    """Looking for the first broker costs the connection to the second nothing; all down: it is tried on."""
    first, second = brokers

    async def scenario() -> None:
        link = InboxLink(settings_for(first, second))
        await asyncio.to_thread(first.kill)
        await link.start()
        await wait_for(link, LinkUp)
        looked = 0
        compute = link._choice.compute_return_s

        def count() -> float:
            nonlocal looked
            looked += 1
            return min(0.05, compute())

        link._choice.compute_return_s = count  # type: ignore[method-assign]
        await asyncio.to_thread(second.stop)
        await asyncio.to_thread(second.start)
        await wait_for(link, LinkUp)
        await until(lambda: looked >= 3)
        assert link.is_connected and link.counters.connections == 2
        await link.stop()

    asyncio.run(scenario())


def test_a_broker_that_is_cut_off_is_turned_away_from(brokers: tuple[Broker, Broker]) -> None:
    """The owner hears nobody: `turn_away` takes the next broker, `reconnect` the same one again."""
    first, second = brokers

    async def scenario() -> None:
        link = InboxLink(settings_for(first, second, return_s=600))
        await link.start()
        await wait_for(link, LinkUp)
        link.reconnect("new certificate")
        await wait_for(link, LinkUp)
        assert link._choice.current.port == first.port
        link.turn_away("nobody is heard")
        await wait_for(link, LinkUp)
        assert link._choice.current.port == second.port
        await link.stop()

    asyncio.run(scenario())


@given(st.integers(1, 16), st.lists(floats(0, 60), min_size=40, max_size=60), floats(0, 1, exclude_max=True))
def test_every_broker_gets_its_turn_and_no_wait_is_long(count: int, lasted: list[float], draw: float) -> None:
    """Whatever happens, each of n brokers is tried within n turns; the first round through them waits least."""
    endpoints = tuple(Endpoint("b", port) for port in range(1, count + 1))
    choice = BrokerChoice(endpoints, 300, lambda: draw)
    tried = []
    for number, lasted_s in enumerate(lasted):
        tried.append(choice.current.port)
        wait_s = choice.turn(lasted_s)
        assert 0 < wait_s <= BACKOFF_MAX_S
        if number < count:
            assert wait_s < 0.5
    assert all(set(tried[i : i + count]) == set(range(1, count + 1)) for i in range(len(tried) - count + 1))


def test_a_return_that_fails_waits_longer_each_time() -> None:
    """A first broker that answers and then refuses is looked for less and less often, up to a bound."""
    choice = BrokerChoice((Endpoint("a", 1), Endpoint("b", 2)), 10, lambda: 0.0)
    waits = []
    for _ in range(8):
        choice.turn(0.0)
        waits.append(choice.compute_return_s())
        choice.go_back()
        choice.turn(0.0)
        choice.go_back()
    assert waits == sorted(waits) and waits[-1] == 160.0


@pytest.mark.parametrize("text", ["nowhere", ":8883", "host:", "host:0", "host:65536", "host:x", "[]:1"])
def test_endpoints_that_are_none_are_told_at_start(text: str, tmp_path: Path) -> None:
    """A broker without host or port is a ConfigError that names the key."""
    (tmp_path / "m.toml").write_text(f'brokers = ["good:1883", "{text}"]\n')
    with pytest.raises(ConfigError, match="brokers"):
        load_config(tmp_path / "m.toml", MqttSettings)


def test_one_broker_or_several() -> None:
    """`brokers` stands in for host and port; IPv6 addresses have brackets."""
    assert MqttSettings(host="a", port=1).endpoints == (Endpoint("a", 1),)
    settings = MqttSettings(host="a", port=1, brokers=("b:2", "[::1]:3"))
    assert settings.endpoints == (Endpoint("b", 2), Endpoint("::1", 3))
    assert str(settings.endpoints[1]) == "[::1]:3"
