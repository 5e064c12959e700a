"""Faults and liars of simulated networks that only tests ask for."""

from __future__ import annotations

from flchain.wire.envelope import open_envelope, seal
from flchain.wire.messages import Vote
from flchain.wire.packets import PacketType, decode_packet, encode_packet
from tools.sim.attacks.byzantine import Equivocate, make_byzantine
from tools.sim.faults import draw_effects, schedule_outage
from tools.sim.network import Network
from tools.sim.world import Links, Node

CALM_MS = 8_000
ROUGH = Links(delay_ms=(1, 30), slow_ms=(30, 600), slow_share=0.1, twice_share=0.1)


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
        schedule_outage(network, rng.choice(miners), time_ms, length_ms, draw_effects(network))
        time_ms += length_ms + rng.randint(50, 2_500)
    for _ in range(rng.randint(0, 4)):
        start_ms = rng.randint(60, CALM_MS - 2_000)
        schedule_outage(network, rng.choice(devices), start_ms, rng.randint(10, 1_900), draw_effects(network))
    for _ in range(rng.randint(0, 5)):
        start_ms = rng.randint(60, CALM_MS - 2_000)
        schedule_absence(network, rng.choice(miners + devices), start_ms, rng.randint(10, 1_900))
    for name in miners + devices:  # whatever overlapped
        network.at(CALM_MS, network.start, name)
        network.at(CALM_MS, network.connect, name)
    return network


def make_equivocator(network: Network, name: str) -> None:
    """This miner signs a second, different vote for each one that it casts, and tells it to some of the others."""
    network.checker.byzantine.add(name)
    node = network.nodes[name]
    network.checker.guilty.add(bytes(node.identity.address))

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
        network.broker.inject(topic, encode_packet(PacketType.MESSAGE, raw), targets - {name})

    network.broker.on_publish.append(lie)


def conspire(network: Network, names: list[str]) -> None:
    """The worst that these miners can do together: half of the honest ones, cut off from the others, each see one copy
    of every key, and the other half the other."""
    for name in names:
        make_byzantine(network, name, Equivocate)
    honest = sorted(name for name, node in network.nodes.items() if node.is_miner and node.behaviour is None)
    devices = {name for name, node in network.nodes.items() if not node.is_miner}
    sides = set(honest[::2]), set(honest[1::2])
    network.broker.cut({(a, b) for one, other in (sides, sides[::-1]) for a in one for b in other})
    for node in network.nodes.values():
        if isinstance(node.behaviour, Equivocate):
            is_twin = node.name.endswith("-twin")
            fellows = {n for n in network.nodes if network.nodes[n].behaviour and n.endswith("-twin") == is_twin}
            node.slow_ms = 0  # both copies do their best
            node.behaviour.side = (sides[is_twin] | fellows | devices) - {node.name}
