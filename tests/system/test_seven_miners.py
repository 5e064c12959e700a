"""Seven miner processes, of which two may fail: killed again and again, cut off, and split in two, while devices learn.

`make test-long` runs the long form. The seed decides who fails and when, counted in heights and in messages of
agreement; what the processes make of it is up to the machine, so each run is another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from flchain.wire.topics import Topics
from flchain_edge.mqtt.settings import MqttSettings
from tests.support.chain_watch import ChainWatch
from tests.support.networks.broker_bridge import BrokerBridge, build_filter
from tests.support.networks.cuttable_proxy import CuttableProxy, started_proxy
from tests.support.networks.real import Ends, RealNetwork, lay_out, started_network
from tools.network.broker import Broker, start_broker
from tools.network.layout import Node

KILLS = int(os.environ.get("FLCHAIN_KILLS", "3"))
"""How often two miners are killed."""
CUTS = int(os.environ.get("FLCHAIN_CUTS", "1"))
"""How often each kind of cut is made."""
SEED = int(os.environ.get("FLCHAIN_SEED", "1"))
MESSAGES_PER_HEIGHT = 40
"""About what a height takes: the moment of a kill is drawn from it, so that it can be any step of agreement."""
NEAR, FAR = slice(0, 4), slice(4, 7)
"""The miners at two sites: neither alone has more than two thirds of the power."""
REPEATS = int(os.environ.get("FLCHAIN_REPEATS", "1"))
"""How often each miner must have repeated itself in vain, after a first time, before a height counts as stuck. It does
so in longer and longer intervals; the second takes longer than all waits of a view together."""
LOST = "no connection to the broker"
"""What a node logs when it gives a connection up."""

pytestmark = pytest.mark.timeout(120 + 40 * KILLS + 120 * CUTS)


def tell(what: str, started: float, network: RealNetwork, **seconds: float) -> None:
    """One line of figures, which the long form shows."""
    at = f"{time.monotonic() - started:6.1f} s, height {network.watch.height}, round {network.watch.round}"
    print("; ".join([f"{at}: {what}", *(f"{name.replace('_', ' ')} {value:.1f} s" for name, value in seconds.items())]))


def tell_ends(what: str, started: float, ends: Ends, network: RealNetwork) -> None:
    words = network.watch.words
    print(
        f"{what}: {time.monotonic() - started:.1f} s; {ends.height} heights, {ends.common} of them in all ledgers; "
        f"{ends.rounds} rounds; {words.count} signed words up to view {words.views_max}, none contradicts another; "
        f"{ends.certificate_signatures} signatures of certificates checked"
    )


# --- killed -----------------------------------------------------------------------------------------------------------


def test_two_of_seven_miners_are_killed_again_and_again(tmp_path: Path) -> None:
    """SIGKILL two miners at any moment: rounds go on without them, they catch up, nothing final is lost or doubled."""
    asyncio.run(run_kills(tmp_path, random.Random(SEED)))


async def run_kills(folder: Path, chooser: random.Random) -> None:
    started = time.monotonic()
    layout = lay_out(folder / "net")
    with start_broker("nats", folder / "broker") as broker:
        network = RealNetwork(layout, ChainWatch(layout.genesis))
        network.write_configs(broker.host, {node.name: broker.port for node in layout.nodes})
        await network.watch.start(broker.host, broker.port)
        async with started_network(network):
            await network.until_round(1)
            tell("all are up", started, network)
            settled = network.watch.round
            for number in range(1, KILLS + 1):
                await kill_two(network, chooser, number, started)
                if number % 10 in (3, 8):
                    await kill_three(network, chooser, started)
            await network.until_round(network.watch.round + 1)
            assert network.watch.round > settled
        ends = network.check_ends()
    assert ends.rounds > KILLS // 4, "rounds went on"
    tell_ends(f"{KILLS} kills of two of seven", started, ends, network)


async def kill_two(network: RealNetwork, chooser: random.Random, number: int, started: float) -> None:
    """At a drawn height and moment; the others go on for two heights at least, the second without the dead's votes."""
    watch, begun = network.watch, time.monotonic()
    await network.until_height(watch.height + chooser.randint(1, 4))
    victims = chooser.sample(network.network.miners, 2)
    for victim in victims:
        await until_heard(network, chooser)
        network.kill(victim)
    killed_at = watch.height
    without = await network.until_height(killed_at + 2 + chooser.randrange(3))
    await network.start(victims)
    caught_up = await network.until_caught_up(victims, watch.height)
    names = " and ".join(victim.name for victim in victims)
    took = time.monotonic() - begun
    tell(f"kill {number} of {names} at {killed_at}", started, network, without=without, catch_up=caught_up, cycle=took)


async def kill_three(network: RealNetwork, chooser: random.Random, started: float) -> None:
    """One too many: the others wait at the height that is open, and it ends once the three are back, votes and all.

    One of them has just proposed: had it forgotten that, it would propose something else.
    """
    watch, miners = network.watch, network.network.miners
    height, _ = watch.proposed
    await network.until(lambda: watch.proposed[0] > height, "a proposal")
    (proposer,) = (miner for miner in miners if miner.address == watch.proposed[1])
    victims = [proposer, *chooser.sample([miner for miner in miners if miner is not proposer], 2)]
    for victim in victims:
        network.kill(victim)
    begun = time.monotonic()
    alive = [miner for miner in miners if miner not in victims]
    stuck = await wait_until_stuck(network, alive)
    took = time.monotonic() - begun
    await network.start(victims)
    caught_up = await network.until_caught_up(miners, max(stuck.values()) + 2)
    names = ", ".join(victim.name for victim in victims)
    tell(f"killed {names}: nobody went on", started, network, stuck=took, two_heights_by_all=caught_up)


async def until_heard(network: RealNetwork, chooser: random.Random) -> None:
    """Let a drawn number of votes and proposals pass."""
    heard = network.watch.heard + chooser.randrange(MESSAGES_PER_HEIGHT)
    await network.until(lambda: network.watch.heard >= heard, "votes and proposals")


async def wait_until_stuck(network: RealNetwork, miners: Sequence[Node]) -> dict[str, int]:
    """These miners have said the same again and again, and no ledger has grown meanwhile: the height of each ledger."""
    watch = network.watch

    def are_repeating(times: int) -> bool:
        return all(watch.count_repeats(miner.address) >= times for miner in miners)

    watch.forget_repeats()
    await network.until(lambda: are_repeating(1), "miners to repeat themselves")
    before = network.get_ledger_heights()
    await network.until(lambda: are_repeating(1 + REPEATS), "miners to repeat themselves again")
    heights = network.get_ledger_heights()
    assert heights == before, "without a quorum nothing is final"
    return heights


# --- cut off ----------------------------------------------------------------------------------------------------------


class Sites:
    """Two brokers with a line between them, and a line from each miner to its broker; all lines can be cut."""

    def __init__(self, network: RealNetwork, link: CuttableProxy, lines: dict[str, CuttableProxy]) -> None:
        self.network, self.link, self.lines = network, link, lines
        miners = network.network.miners
        self.near, self.far = miners[NEAR], miners[FAR]


@contextlib.asynccontextmanager
async def started_sites(folder: Path, near: Broker, far: Broker) -> AsyncIterator[Sites]:
    """Miners 0 to 3 and agents 0 and 1 at the near site, the others at the far one."""
    layout = lay_out(folder / "net")
    brokers = {node.name: near for node in (*layout.miners[NEAR], *layout.agents[:2])}
    brokers |= {node.name: far for node in (*layout.miners[FAR], *layout.agents[2:])}
    async with contextlib.AsyncExitStack() as stack:
        link = await stack.enter_async_context(started_proxy(far.host, far.port))
        lines = {
            miner.name: await stack.enter_async_context(
                started_proxy(brokers[miner.name].host, brokers[miner.name].port)
            )
            for miner in layout.miners
        }
        network = RealNetwork(layout, ChainWatch(layout.genesis))
        ports = {name: broker.port for name, broker in brokers.items()} | {n: line.port for n, line in lines.items()}
        # One line's end is noticed by the nodes themselves in seconds, the others' only by what does not come.
        network.write_configs(near.host, ports, {"miner-0": 3, "miner-4": 3})
        bridge = build_bridge(network, near, link, brokers)
        await bridge.start()
        stack.push_async_callback(bridge.stop)
        await network.until(lambda: bridge.is_ready, "the bridge")
        for broker in (near, far):
            await network.watch.start(broker.host, broker.port)
        await stack.enter_async_context(started_network(network))
        yield Sites(network, link, lines)


def build_bridge(network: RealNetwork, near: Broker, link: CuttableProxy, brokers: dict[str, Broker]) -> BrokerBridge:
    """Its far end is behind the line that can be cut."""
    topics = Topics.of_chain(network.network.genesis.compute_id())
    filters = {
        is_near: [
            build_filter(topics, "miner" if node.role == "miner" else "device", node.address)
            for node in network.network.nodes
            if (brokers[node.name] is near) == is_near
        ]
        for is_near in (True, False)
    }
    # Its own sign of life would end a one-way cut by closing the connection.
    here, there = (MqttSettings(near.host, port, keepalive_s=600) for port in (near.port, link.port))
    return BrokerBridge(here, there, filters[True], filters[False])


def test_cut_lines_stop_at_most_who_is_cut_off_and_never_fork(tmp_path: Path) -> None:
    """Silent cuts, one-way cuts and a split into 4 and 3: no fork, heights only where a quorum is, and all catch up."""
    asyncio.run(run_cuts(tmp_path, random.Random(SEED)))


async def run_cuts(folder: Path, chooser: random.Random) -> None:
    started = time.monotonic()
    with start_broker("nats", folder / "near") as near, start_broker("nats", folder / "far") as far:
        async with started_sites(folder, near, far) as sites:
            network = sites.network
            await network.until_round(1)
            tell("all are up", started, network)
            for number in range(CUTS):
                await cut_two_off(sites, chooser, started)
                await make_mute_and_deaf(sites, chooser, started)
                await split(sites, started, is_lost=number % 2 == 1)
                await split_one_way(sites, started, is_up=number % 2 == 0)
            await network.until_round(network.watch.round + 1)
        ends = network.check_ends()
    tell_ends(f"{CUTS} cuts of each kind", started, ends, network)


async def cut_two_off(sites: Sites, chooser: random.Random, started: float) -> None:
    """Two miners, one of which notices by itself that its broker is silent: the others go on, the two stand still."""
    network, watch, begun = sites.network, sites.network.watch, time.monotonic()
    noticing = chooser.choice(("miner-0", "miner-4"))
    other = chooser.choice([node.name for node in network.network.miners if node.name not in ("miner-0", "miner-4")])
    cut = get_nodes(network, (noticing, other))
    lost = network.count_lines(cut[0], LOST)
    for node in cut:
        sites.lines[node.name].cut()
    await network.until_height(watch.height + 2)
    stood = [network.get_ledger_height(node) for node in cut]
    await network.until_height(watch.height + 2)
    assert [network.get_ledger_height(node) for node in cut] == stood, "without a quorum nothing is final"
    await network.until(lambda: network.count_lines(cut[0], LOST) > lost, f"{noticing} to notice")
    took = time.monotonic() - begun
    for node in cut:
        sites.lines[node.name].heal()
    caught_up = await network.until_caught_up(cut, watch.height)
    tell(f"{noticing} and {other} were cut off", started, network, cut=took, catch_up=caught_up)


async def make_mute_and_deaf(sites: Sites, chooser: random.Random, started: float) -> None:
    """One miner hears and is not heard, another is heard and hears not: the first follows, the second stands still."""
    network, watch, begun = sites.network, sites.network.watch, time.monotonic()
    mute, deaf = get_nodes(network, chooser.sample(("miner-1", "miner-2", "miner-3", "miner-5", "miner-6"), 2))
    sites.lines[mute.name].cut(down=False)
    sites.lines[deaf.name].cut(up=False)
    followed = network.get_ledger_height(mute)
    await network.until_height(watch.height + 2)
    stood = network.get_ledger_height(deaf)
    await network.until_height(watch.height + 2)
    await network.until(lambda: network.get_ledger_height(mute) > followed, f"{mute.name} to follow")
    assert network.get_ledger_height(deaf) == stood, "who hears nothing can know of nothing final"
    took = time.monotonic() - begun
    for node in (mute, deaf):
        sites.lines[node.name].heal()
    caught_up = await network.until_caught_up((mute, deaf), watch.height)
    tell(f"{mute.name} was mute, {deaf.name} deaf", started, network, cut=took, catch_up=caught_up)


async def split(sites: Sites, started: float, *, is_lost: bool) -> None:
    """Four miners on one site and three on the other, each site connected: no one makes a block until both are."""
    begun = time.monotonic()
    sites.link.cut()
    stuck = await wait_until_stuck(sites.network, sites.network.network.miners)
    assert len(set(stuck.values())) <= 2 and max(stuck.values()) - min(stuck.values()) <= 1
    took = time.monotonic() - begun
    sites.link.heal(is_lost=is_lost)
    await go_on_together(sites, "4 | 3, nobody went on", started, took)


async def split_one_way(sites: Sites, started: float, *, is_up: bool) -> None:
    """One site hears the other and is not heard: it may end the block that had a quorum already, and stops there.

    It sees all prevotes, but the others see their own alone and precommit nothing new.
    """
    begun = time.monotonic()
    sites.link.cut(up=not is_up, down=is_up)
    hearing, unaware = (sites.far, sites.near) if is_up else (sites.near, sites.far)
    stuck = await wait_until_stuck(sites.network, sites.network.network.miners)
    ahead, behind = ({stuck[node.name] for node in site} for site in (hearing, unaware))
    assert len(ahead) == len(behind) == 1, "a site is whole in itself"
    assert 0 <= ahead.pop() - behind.pop() <= 1
    took = time.monotonic() - begun
    sites.link.heal()
    await go_on_together(sites, f"the {'far' if is_up else 'near'} site heard and was not heard", started, took)


async def go_on_together(sites: Sites, what: str, started: float, took: float) -> None:
    """The line is whole: all seven get to a height that none had."""
    network = sites.network
    goal = max(network.get_ledger_heights().values()) + 2
    caught_up = await network.until_caught_up(network.network.miners, goal)
    tell(what, started, network, cut=took, two_heights_by_all=caught_up)


def get_nodes(network: RealNetwork, names: Sequence[str]) -> tuple[Node, ...]:
    by_name = {node.name: node for node in network.network.nodes}
    return tuple(by_name[name] for name in names)
