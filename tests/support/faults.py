"""Fault schedules and liars for the network of `network`: drawn from the seed, over before `CALM_MS`."""

from __future__ import annotations

from collections.abc import Iterable

from flchain.messages import Vote
from flchain.packets import PacketType, decode_packet, encode_packet
from flchain.wire import open_envelope, seal
from tests.support.network import Links, Network, Node

CALM_MS = 8_000
ROUGH = Links(delay_ms=(1, 30), slow_ms=(30, 600), slow_share=0.1, twice_share=0.1)


def schedule_outage(network: Network, name: str, start_ms: int, length_ms: int, effects: int | None) -> None:
    """A crash with a restart: at an instant, or (`effects`) in the middle of what the node does from then on."""
    if effects is None:
        network.at(start_ms, network.crash, name)
    else:
        network.at(start_ms, network.crash_between_effects, name, effects)
        network.at(start_ms + length_ms - 1, network.crash, name)  # at the latest now
    network.at(start_ms + length_ms, network.start, name)


def schedule_absence(network: Network, name: str, start_ms: int, length_ms: int) -> None:
    """The link of a node is down for a while."""
    network.at(start_ms, network.disconnect, name)
    network.at(start_ms + length_ms, network.connect, name)


def schedule_faults(network: Network) -> Network:
    """One miner at a time crashes and comes back; devices crash; links of anyone go down. Then it is calm."""
    rng = network.rng
    miners = sorted(name for name in network.nodes if name.startswith("m"))
    devices = sorted(name for name in network.nodes if name.startswith("d"))
    time_ms = rng.randint(60, 1_500)
    while time_ms < CALM_MS - 1_500:
        length_ms = rng.choice((20, 300, 1_500, 4_000))
        length_ms = min(length_ms, CALM_MS - time_ms)
        schedule_outage(network, rng.choice(miners), time_ms, length_ms, _draw_effects(network))
        time_ms += length_ms + rng.randint(50, 2_500)
    for _ in range(rng.randint(0, 4)):
        start_ms = rng.randint(60, CALM_MS - 2_000)
        schedule_outage(network, rng.choice(devices), start_ms, rng.randint(10, 1_900), _draw_effects(network))
    for _ in range(rng.randint(0, 5)):
        start_ms = rng.randint(60, CALM_MS - 2_000)
        schedule_absence(network, rng.choice(miners + devices), start_ms, rng.randint(10, 1_900))
    for name in miners + devices:  # whatever overlapped
        network.at(CALM_MS, network.start, name)
        network.at(CALM_MS, network.connect, name)
    return network


def _draw_effects(network: Network) -> int | None:
    return network.rng.randint(0, 12) if network.rng.random() < 0.6 else None


def make_equivocator(network: Network, name: str) -> None:
    """This miner signs a second, different vote for each one that it casts, and tells it to some of the others."""
    network.checker.byzantine.add(name)
    node = network.nodes[name]

    def lie(sender: Node, topic: str, packet: bytes) -> None:
        decoded = decode_packet(packet)
        if sender is not node or decoded.type is not PacketType.MESSAGE or not topic.endswith("/bft"):
            return
        envelope = open_envelope(decoded.fields[0], network.chain.id)
        if envelope.sender != node.identity.address or envelope.kind is not Vote.kind:
            return
        height, view, step, block_hash = envelope.fields
        other = None if block_hash is not None and network.rng.random() < 0.5 else network.rng.randbytes(32)
        raw = seal(Vote(height, view, step, other), network.chain.id, node.identity)
        targets = {other.name for other in network.miners() if network.rng.random() < 0.5}
        network.inject(topic, encode_packet(PacketType.MESSAGE, raw), targets - {name})

    network.on_publish.append(lie)


def run_seeds(seeds: Iterable[int], rounds: int = 2) -> list[Network]:
    """The runs of these seeds that end with a violation."""
    return [n for seed in seeds if (n := schedule_faults(Network(seed, rounds, links=ROUGH)).run()).violations]
