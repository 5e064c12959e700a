"""The real brokers under the rules that `flchain registrar broker` writes: what a certificate lets its holder do.

A PUBACK is no receipt: a broker acknowledges what it then drops. So what counts here is what subscribers see.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest

from flchain_edge.mqtt.inbox import Received
from flchain_edge.mqtt.settings import MqttSettings
from flchain_edge.newer_python import timeout
from tests.support.networks.mqtt_link import DEADLINE_S, InboxLink, started, until
from tests.support.networks.registrar import Member, Registrar, enrol_member, make_registrar
from tools.network.broker import Broker, BrokerError, BrokerKind, find_program

PREFIX = "flchain/v1/0123456789abcdef"
RELEASES = f"{PREFIX}/operator/+/release"
DAY_S = 86_400
CROWD = ("device", "device", "miner", "miner", "operator")


@dataclass
class Site:
    """A broker under rules, and its enrolled nodes: two devices, two miners, an operator."""

    kind: BrokerKind
    registrar: Registrar
    folder: Path
    broker: Broker
    members: list[Member]

    def reload(self) -> None:
        """Write the rules again and let the broker read them."""
        self.registrar.render_broker(self.kind, self.folder, self.broker.port)
        self.broker.reload()

    def link(self, index: int) -> InboxLink:
        return InboxLink(self.members[index].connect_to(self.broker))


def build_site(kind: BrokerKind, folder: Path) -> Iterator[Site]:
    try:
        find_program(kind)
    except BrokerError as missing:
        if kind == "nats":
            raise
        pytest.skip(str(missing))
    registrar = make_registrar(folder / "registrar")
    members = [enrol_member(registrar, folder / f"node-{i}", role) for i, role in enumerate(CROWD)]
    with registrar.start_broker(kind, folder / "broker") as broker:
        yield Site(kind, registrar, folder / "broker", broker, members)


@pytest.fixture(scope="module", params=["mosquitto", "nats"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from build_site(cast(BrokerKind, request.param), tmp_path_factory.mktemp("site"))


@pytest.fixture(params=["mosquitto", "nats"])
def own_site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    yield from build_site(cast(BrokerKind, request.param), tmp_path)


async def gather_until(link: InboxLink, *topics: str) -> list[tuple[str, bytes]]:
    """All that came until there was a message on each of these topics."""
    seen: list[tuple[str, bytes]] = []
    async with timeout(DEADLINE_S):
        while not {topic for topic, _ in seen} >= set(topics):
            event = await link.events.get()
            if isinstance(event, Received):
                seen.append((event.topic, event.payload))
    return seen


async def are_refused(*links: InboxLink) -> None:
    """Check that none of them gets in: each knows why, and has no connection."""
    for link in links:
        await link.start()
    try:
        for link in links:
            await until(lambda link=link: any("no connection" in text for text in link._said.values()))  # type: ignore[misc]
            assert link.counters.connections == 0, link._said
    finally:
        for link in links:
            await link.stop()


def test_each_speaks_under_its_own_address_and_hears_what_is_public(site: Site) -> None:
    """Device to miners, miner to devices, miner to one device, miner to miners: all that a round needs passes."""

    async def scenario() -> None:
        a, _, m, n, _ = site.members
        up, head = f"{PREFIX}/device/{a.address}/up", f"{PREFIX}/miner/{m.address}/head"
        to_a, bft = f"{PREFIX}/miner/{m.address}/to/{a.address}", f"{PREFIX}/miner/{m.address}/bft"
        light, to_me = f"{PREFIX}/miner/{m.address}/light", f"{PREFIX}/miner/+/to/{a.address}"
        async with (
            started(site.link(0), to_me, head, light, f"{PREFIX}/miner/{m.address}/body") as device,
            started(site.link(2), f"{PREFIX}/device/+/up", f"{PREFIX}/miner/+/to/{m.address}") as miner,
            started(site.link(3), f"{PREFIX}/miner/+/bft", f"{PREFIX}/miner/+/head") as other,
        ):
            assert device.publish(up, b"commit")
            assert (await gather_until(miner, up))[-1] == (up, b"commit")
            assert miner.publish(head, b"head", retain=True) and miner.publish(to_a, b"receipt")
            assert miner.publish(light, b"light")
            first = await gather_until(device, head, to_a, light)  # in any order: brokers may reorder
            assert {payload for _, payload in first} == {b"head", b"receipt", b"light"}
            assert miner.publish(bft, b"vote", qos=0)
            assert (bft, b"vote") in await gather_until(other, bft)
            assert n.address != m.address

    asyncio.run(scenario())


def test_a_stolen_certificate_says_nothing_for_another(site: Site) -> None:
    """With device A's certificate: nothing under B's address, a miner's, on a channel or chain that is not A's."""

    async def scenario() -> None:
        a, b, m, _, o = site.members
        marker = f"{PREFIX}/device/{a.address}/up"
        forged = [
            f"{PREFIX}/device/{b.address}/up",
            f"{PREFIX}/device/{b.address}/status",
            f"{PREFIX}/miner/{m.address}/bft",
            f"{PREFIX}/miner/{m.address}/head",
            f"{PREFIX}/miner/{m.address}/body",
            f"{PREFIX}/miner/{m.address}/light",
            f"{PREFIX}/miner/{m.address}/to/{b.address}",
            f"{PREFIX}/miner/{a.address}/bft",
            f"{PREFIX}/miner/{a.address}/head",
            f"{PREFIX}/operator/{o.address}/release",
            f"{PREFIX}/operator/{a.address}/release",
        ]
        heard = [f"{PREFIX}/device/+/up", f"{PREFIX}/device/+/status"]
        heard += [f"{PREFIX}/miner/+/{channel}" for channel in ("bft", "head", "body", "light")]
        async with (
            started(site.link(2), *heard) as miner,
            started(site.link(1), f"{PREFIX}/miner/+/to/{b.address}", f"{PREFIX}/miner/+/head", RELEASES) as victim,
            started(site.link(0)) as thief,
        ):
            for topic in forged:
                thief.publish(topic, b"forged", retain="head" in topic)
            # A broker may hang up on what it forbids, so the marker goes out once the thief is back.
            await until(lambda: thief.is_connected and thief.publish(marker, b"marker"))
            seen = await gather_until(miner, marker)
            assert (marker, b"marker") in seen and b"forged" not in {payload for _, payload in seen}
            m_head = f"{PREFIX}/miner/{m.address}/head"
            assert miner.publish(m_head, b"true head")
            assert b"forged" not in {payload for _, payload in await gather_until(victim, m_head)}

    asyncio.run(scenario())


def test_a_device_hears_nothing_that_is_not_for_it(site: Site) -> None:
    """Other devices' messages, miners' votes, answers to others, everything at once: subscribed, and never seen."""

    async def scenario() -> None:
        a, b, m, _, _ = site.members
        marker = f"{PREFIX}/miner/{m.address}/body"
        wanted = [
            f"{PREFIX}/device/+/status",
            f"{PREFIX}/device/{b.address}/status",
            f"{PREFIX}/device/+/up",
            f"{PREFIX}/device/{b.address}/up",
            f"{PREFIX}/miner/+/bft",
        ]
        wanted += [
            f"{PREFIX}/miner/+/to/{b.address}",
            f"{PREFIX}/miner/+/to/+",
            f"{PREFIX}/#",
            "#",
            "flchain/+/+/+/+/up",
        ]
        async with (
            started(site.link(0), marker) as nosy,
            started(site.link(1), f"{PREFIX}/miner/+/to/{b.address}") as device,
            started(site.link(2), f"{PREFIX}/device/+/up") as miner,
        ):
            for topic_filter in wanted:  # one each: a broker that hangs up on one must still be asked the others
                nosy.subscribe(topic_filter)
            await until(lambda: nosy._session is not None and nosy.is_connected and not nosy._session._asked)
            up, to_b = f"{PREFIX}/device/{b.address}/up", f"{PREFIX}/miner/{m.address}/to/{b.address}"
            assert device.publish(f"{PREFIX}/device/{b.address}/status", b"secret", retain=True)
            assert device.publish(up, b"secret")
            await gather_until(miner, up)
            assert miner.publish(to_b, b"secret") and miner.publish(f"{PREFIX}/miner/{m.address}/bft", b"secret")
            await gather_until(device, to_b)
            await until(lambda: nosy.is_connected and marker in (nosy._session.subscribed if nosy._session else ()))
            assert miner.publish(marker, b"public")
            assert b"secret" not in {payload for _, payload in await gather_until(nosy, marker)}
            assert a.address not in up

    asyncio.run(scenario())


def test_an_operator_hears_how_boards_do_and_announces_releases(site: Site) -> None:
    """Statuses reach the operator, also those of before; releases reach every board and miner; it stands for itself."""

    async def scenario() -> None:
        a, _, m, _, o = site.members
        status, release = f"{PREFIX}/device/{a.address}/status", f"{PREFIX}/operator/{o.address}/release"
        async with (
            started(site.link(0), RELEASES) as device,
            started(site.link(2), RELEASES, f"{PREFIX}/device/+/status") as miner,
        ):
            assert device.publish(status, b"well", retain=True)
            await gather_until(miner, status)
            async with started(site.link(4), f"{PREFIX}/device/+/status") as operator:
                assert (status, b"well") in await gather_until(operator, status)
                assert operator.publish(release, b"0.2.0", retain=True)
                for node in (device, miner):
                    assert (release, b"0.2.0") in await gather_until(node, release)
            async with started(site.link(1), RELEASES) as late:
                assert (release, b"0.2.0") in await gather_until(late, release)
            assert m.address != o.address

    asyncio.run(scenario())


def test_a_stolen_operators_certificate_is_no_miner(site: Site) -> None:
    """It says nothing as a miner or a board, and hears neither what boards send to miners nor miners' votes."""

    async def scenario() -> None:
        a, b, m, _, o = site.members
        marker, head = f"{PREFIX}/device/{o.address}/up", f"{PREFIX}/miner/{m.address}/head"
        forged = [head, f"{PREFIX}/miner/{o.address}/bft", f"{PREFIX}/device/{a.address}/status"]
        heard = [f"{PREFIX}/device/+/up", f"{PREFIX}/device/+/status", f"{PREFIX}/miner/+/bft", head]
        async with (
            started(site.link(2), *heard) as miner,
            started(site.link(4), head) as thief,
            started(site.link(1)) as device,
        ):
            for topic_filter in (f"{PREFIX}/device/+/up", f"{PREFIX}/miner/+/bft", f"{PREFIX}/miner/+/to/+", "#"):
                thief.subscribe(topic_filter)
            await until(lambda: thief._session is not None and thief.is_connected and not thief._session._asked)
            for topic in forged:
                thief.publish(topic, b"forged")
            await until(lambda: thief.is_connected and thief.publish(marker, b"marker"))
            seen = await gather_until(miner, marker)
            assert b"forged" not in {payload for _, payload in seen}
            up = f"{PREFIX}/device/{b.address}/up"
            assert device.publish(up, b"for miners")
            await gather_until(miner, up)
            await until(lambda: thief.is_connected and head in (thief._session.subscribed if thief._session else ()))
            assert miner.publish(head, b"public")
            assert b"for miners" not in {payload for _, payload in await gather_until(thief, head)}

    asyncio.run(scenario())


def test_without_a_good_certificate_nobody_gets_in(site: Site, tmp_path: Path) -> None:
    """No certificate, one of another authority, one that has expired: no connection, whatever else they know."""
    good = site.members[0].connect_to(site.broker)
    bare = replace(good, tls_certificate=None, tls_key=None)
    stranger = enrol_member(make_registrar(tmp_path / "other"), tmp_path / "stranger", "device")
    foreign = replace(stranger.connect_to(site.broker), tls_ca=good.tls_ca)
    old = enrol_member(site.registrar, tmp_path / "old", "device", int(time.time()) - 60 * DAY_S)
    plain = MqttSettings(host=good.host, port=good.port)
    links = [InboxLink(settings) for settings in (bare, foreign, old.connect_to(site.broker), plain)]
    asyncio.run(are_refused(*links))
    # The broker's alert may be lost with the connection: then the usual causes are named.
    causes = ("be expired", "has expired", "not know the authority", "bad certificate", "HANDSHAKE")
    for link in links[1:3]:
        assert any(cause in text for cause in causes for text in link._said.values()), link._said


def test_a_node_trusts_only_its_own_broker(site: Site, tmp_path: Path) -> None:
    """A broker with another authority's certificate, or another name, hears nothing from a node, which says why."""
    other = make_registrar(tmp_path / "other")
    shutil.copyfile(other.folder / "ca.pem", tmp_path / "ca.pem")
    wrong_ca = replace(site.members[0].connect_to(site.broker), tls_ca=tmp_path / "ca.pem")
    wrong_name = replace(site.members[0].connect_to(site.broker), host="127.0.0.1")
    links = [InboxLink(wrong_ca), InboxLink(wrong_name)]
    asyncio.run(are_refused(*links))
    assert any("not from the authority" in text for text in links[0]._said.values())
    assert any("for another name" in text for text in links[1]._said.values())


def test_nobody_takes_over_anothers_session(site: Site) -> None:
    """B with A's client id: A stays connected, and both are heard under their own names."""
    if site.kind == "nats":
        pytest.skip("NATS lets any certificate take any client id: docs/security.md says so")

    async def scenario() -> None:
        a, b, *_ = site.members
        async with (
            started(site.link(2), f"{PREFIX}/device/+/up") as miner,
            started(site.link(0)) as device,
            started(InboxLink(b_as_a := site.members[1].connect_to(site.broker, client_id=a.address))) as thief,
        ):
            assert b_as_a.client_id == a.address
            for link, member in ((thief, b), (device, a)):
                topic = f"{PREFIX}/device/{member.address}/up"
                assert link.publish(topic, b"here")
                await gather_until(miner, topic)
            assert device.counters.connections == thief.counters.connections == 1

    asyncio.run(scenario())


def test_revocation_shuts_out_after_a_reload(own_site: Site) -> None:
    """A revoked device is silenced on the connection that it has, and gets no new one; the others notice nothing."""

    async def scenario(site: Site) -> None:
        a, b, *_ = site.members
        up_a, up_b = f"{PREFIX}/device/{a.address}/up", f"{PREFIX}/device/{b.address}/up"
        async with (
            started(site.link(2), f"{PREFIX}/device/+/up") as miner,
            started(site.link(0)) as revoked,
            started(site.link(1)) as device,
        ):
            assert revoked.publish(up_a, b"before")
            await gather_until(miner, up_a)
            site.registrar.run("revoke", a.address)
            await asyncio.to_thread(site.reload)
            fresh = InboxLink(a.connect_to(site.broker, client_id="x"))
            await until_reloaded(site)
            revoked.publish(up_a, b"after")
            await are_refused(fresh)
            revoked.publish(up_a, b"after")
            await until(lambda: device.is_connected and device.publish(up_b, b"marker"))
            assert b"after" not in {payload for _, payload in await gather_until(miner, up_b)}
        await are_refused(site.link(0))

    asyncio.run(scenario(own_site))


async def until_reloaded(site: Site) -> None:
    """Wait until the broker says that it has read its files again."""
    words = {"mosquitto": "Reloading config", "nats": "Reloaded"}
    await until(lambda: words[site.kind] in site.broker.log_path.read_text(errors="replace"))
