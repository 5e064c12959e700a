"""Whole networks of the production machines under faults. A failing run names its seed.

To repeat seed 7 alone: FLCHAIN_SIM_SEEDS=7-8 pytest tests/sim -k mixed_faults; FLCHAIN_SIM_SEEDS=0-5000 runs a night.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

import agent.core.values as av
import miner.core.values as mv
from flchain.wire.envelope import open_envelope, seal
from flchain.wire.fields import Kind
from flchain.wire.messages import Commit, Phase, Reveal, compute_update_commitment
from flchain.wire.packets import PacketType, decode_packet, encode_packet
from flchain.wire.topics import CHANNEL_RULES, Channel, read_topic_channel, read_topic_owner
from tests.support.builders.chain import build_chain, get_balances, make_reveal
from tests.support.sim_faults import ROUGH, make_equivocator, schedule_faults
from tools.sim.network import Network, Node

FIRST, LAST = (int(number) for number in os.environ.get("FLCHAIN_SIM_SEEDS", "0-150").split("-"))
SEEDS_PER_TEST = 10


def is_consistent(network: Network) -> bool:
    """Every node that is up has the same model, and every such miner the same head."""
    heads = {node.state.chain.head for node in network.miners()}
    models = {node.state.chain.model_hash for node in network.miners()}
    models |= {node.state.light.model_hash for node in network.devices()}
    return len(heads) == 1 and len(models) == 1


def get_accepted(network: Network, round_number: int) -> set[str]:
    return {name for (name, number), report in network.reports.items() if number == round_number and report.is_accepted}


@pytest.mark.parametrize("seed", range(3))
def test_calm_network_needs_four_heights_a_round(seed: int) -> None:
    """Nothing fails: one height opens the chain, each round takes four, every update is accepted, all models agree."""
    network = Network(seed, rounds=3).run()
    assert network.violations == [], network.explain()
    assert len(network.checker.final) == 1 + 4 * 3
    assert all(get_accepted(network, number) == {"d0", "d1", "d2"} for number in (1, 2, 3))
    assert is_consistent(network)
    assert network.refusals == {}


class WatchedNetwork(Network):
    """A network that compares each packet which a node publishes with the table of topics."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.seen: set[tuple[str, PacketType]] = set()

    def run_miner_effect(self, node: Node, effect: mv.Effect) -> None:
        if isinstance(effect, mv.Publish):
            self.compare(node, effect.topic, effect.packet, effect.retain, effect.qos)
        super().run_miner_effect(node, effect)

    def run_agent_effect(self, node: Node, effect: av.Effect) -> None:
        if isinstance(effect, av.Publish):
            self.compare(node, effect.topic, effect.packet, False, 1)
        super().run_agent_effect(node, effect)

    def compare(self, node: Node, topic: str, packet: bytes, retain: bool, qos: int) -> None:
        rule, type = CHANNEL_RULES[Channel(read_topic_channel(topic))], decode_packet(packet).type
        (carried,) = (found for found in rule.carries if found.type is type)
        assert (carried.is_retained, carried.qos) == (retain, qos), (topic, type)
        assert read_topic_owner(topic) == node.identity.address
        self.seen.add((rule.channel, type))


def test_nodes_publish_what_the_table_of_topics_says() -> None:
    """Under faults every packet is on a channel that carries its type, retained and at its QoS."""
    seen: set[tuple[str, PacketType]] = set()
    for seed in range(3):
        network = WatchedNetwork(seed, 2, links=ROUGH)
        schedule_faults(network).run()
        seen |= network.seen
    assert seen >= {("up", PacketType.MESSAGE), ("bft", PacketType.PROPOSAL), ("bft", PacketType.MESSAGE)}
    assert seen >= {("head", PacketType.HEAD), ("light", PacketType.LIGHT_BODY), ("to", PacketType.MESSAGE)}


def test_same_seed_same_run() -> None:
    """A failing seed can be run again: the run is a function of it."""
    first, second = (schedule_faults(Network(11, 2, links=ROUGH)).run() for _ in range(2))
    assert (first.checker.final, first.trace.hash, first.now) == (second.checker.final, second.trace.hash, second.now)


@pytest.mark.parametrize("first", range(FIRST, LAST, SEEDS_PER_TEST))
def test_mixed_faults_neither_fork_nor_stop_the_chain(first: int) -> None:
    """Delays, repeats, absences, and crashes between any two effects: no fork, nothing lost; once calm all agree."""
    for seed in range(first, min(first + SEEDS_PER_TEST, LAST)):
        network = schedule_faults(Network(seed, rounds=2, links=ROUGH)).run()
        assert network.violations == [], network.explain()
        assert is_consistent(network), network.explain()


@pytest.mark.parametrize("dead", ["m0", "m1", "m2", "m3"])
def test_rounds_go_on_without_one_miner_from_the_start(dead: str) -> None:
    """Three of four miners finish the rounds, the dead one's devices included once they follow another miner."""
    network = Network(5, rounds=5, silent=frozenset({dead})).run()
    assert network.violations == [], network.explain()
    assert is_consistent(network)
    assert get_accepted(network, 5) == {"d0", "d1", "d2"}


@pytest.mark.parametrize("heights", [1, 2, 3, 6])
def test_rounds_go_on_without_one_device_however_many_heights_a_phase_has(heights: int) -> None:
    """While a device is missing, blocks without a new message use up the heights of COMMIT: they get their votes."""
    chain = build_chain(phase_heights_max=heights)
    network = Network(1, rounds=2, chain=chain, silent=frozenset({"d1"})).run()
    assert network.violations == [], network.explain()
    assert get_accepted(network, 2) == {"d0", "d2"}


@pytest.mark.parametrize("at_ms", range(1_800, 2_800, 250))
def test_rounds_go_on_when_a_miner_dies_midway(at_ms: int) -> None:
    """A miner that dies for good at any time stops neither the rounds nor its own devices."""
    network = Network(6, rounds=12)
    network.at(at_ms, network.crash, "m1")
    network.gone.add("m1")
    network.run()
    assert network.violations == [], network.explain()
    assert get_accepted(network, 12) == {"d0", "d1", "d2"}


def test_restarted_miner_catches_up_from_a_network_that_rests() -> None:
    """The others have paused after many more blocks than one answer holds: it asks until it has them all."""
    network = Network(1, 20, devices=1, silent=frozenset({"m3"}), training_ms=(1, 2))
    network.run(lambda n: len(n.miners()) == 3 and all(m.state.chain.round.number > 20 for m in n.miners()))
    assert len(network.checker.final) > 64
    network.gone.discard("m3")
    network.at(0, network.start, "m3")
    network.run(end_ms=network.now + 120_000)
    assert network.violations == [], network.explain()
    assert len(network.nodes["m3"].disk.blocks) == len(network.checker.final)


def test_lagging_miner_asks_another_peer_if_the_first_has_died() -> None:
    """A miner away for the last blocks hears of them by retained heads only; the one it asks first is dead."""
    for dead in ("m0", "m1", "m2"):
        network = Network(2, rounds=1)
        network.at(2_200, network.disconnect, "m3")
        network.run(lambda n: n.now > 2_200 and all(m.state.chain.round.number > 1 for m in n.miners()[:3]))
        network.at(0, network.crash, dead)
        network.gone.add(dead)
        network.at(1, network.connect, "m3")
        network.run(end_ms=network.now + 60_000)
        assert network.violations == [], network.explain()
        assert is_consistent(network)


def test_miners_that_forget_a_receipted_commitment_hear_it_again() -> None:
    """All miners restart while they wait for a second device: the first one's commitment was in memory only."""
    network = Network(1, rounds=2, devices=2, silent=frozenset({"d1"}))
    device = network.nodes["d0"]
    network.run(lambda n: device.is_up and device.state.update.work is not None and not device.state.outbox)
    for miner in network.miners():
        network.at(5, network.crash, miner.name)
        network.at(100, network.start, miner.name)
    network.run()
    assert network.violations == [], network.explain()
    assert get_accepted(network, 1) == {"d0"}


@pytest.mark.parametrize("effects", range(6))
def test_device_that_crashes_around_its_commitment_still_reveals(effects: int) -> None:
    """Its work is durable before the commitment goes out: after a restart it opens that very commitment."""
    network = Network(3, rounds=1)
    device = network.nodes["d0"]
    network.run(lambda n: device.is_up and device.state.is_training)
    network.crash_between_effects("d0", effects)
    network.run(lambda n: not device.is_up)
    assert (device.disk.work is not None) == (effects >= 1)
    network.at(10, network.start, "d0")
    network.run()
    assert network.violations == [], network.explain()
    assert get_accepted(network, 1) == {"d0", "d1", "d2"}
    assert device.training == (1 if effects else 2), "what is on the disk is not trained again"


@pytest.mark.parametrize("is_crash", [False, True])
@pytest.mark.parametrize(("name", "is_full"), [("d0", False), ("d1", True)])
def test_device_away_for_rounds_comes_back_by_snapshot(name: str, is_full: bool, is_crash: bool) -> None:
    """It misses rounds, asks for the model or what leads to it when it is back, and sends updates again. (No one waits
    for them: the seed decides whether one is in time.)"""
    network = Network(4, rounds=12)
    network.run(lambda n: (name, 1) in n.reports)
    assert network.nodes[name].state.light.is_full == is_full
    (network.crash if is_crash else network.disconnect)(name)
    network.run(lambda n: n.nodes["m0"].state.chain.round.number >= 5)
    network.at(0, network.start if is_crash else network.connect, name)
    network.run()
    assert network.violations == [], network.explain()
    assert name not in get_accepted(network, 3) | get_accepted(network, 4)
    work = network.nodes[name].disk.work
    assert work is not None and work.round > 5
    assert (name, 3) not in network.reports, "it never computed what it was not there for"


def test_devices_of_a_dead_home_follow_another_miner() -> None:
    """A device whose home is silent turns to the next miner within twice the failover time."""
    network = Network(7, rounds=12)
    network.run(lambda n: ("d0", 1) in n.reports)
    home = next(node for node in network.miners() if node.identity.address == network.nodes["d0"].followed)
    network.crash(home.name)
    network.gone.add(home.name)
    died_ms = network.now
    network.run()
    assert network.violations == [], network.explain()
    words = ("a miner is silent", "another miner has news")
    turned = [when for when, name, text, _ in network.notes if name == "d0" and text.startswith(words)]
    assert turned and turned[0] - died_ms <= 20_000
    assert get_accepted(network, 12) == {"d0", "d1", "d2"}


def test_device_that_waits_in_peace_stays_with_its_home() -> None:
    """No message comes for a minute, since the other device trains for long: a ping keeps the device at its miner."""
    chain = build_chain(4, 2, commit_patience_ms=60_000)
    network = Network(8, rounds=1, chain=chain, training_ms=(50, 60))
    network.at(100, network.disconnect, "d1")
    network.at(61_000, network.connect, "d1")
    network.run()
    assert network.violations == [], network.explain()
    assert not [note for note in network.notes if note[1] == "d0" and note[2].startswith("a miner is silent")]


@pytest.mark.parametrize("seed", range(4))
def test_equivocating_miner_is_noted_and_does_not_fork(seed: int) -> None:
    """One of four miners votes for two things at once in every view: the others see it, and agree on one chain."""
    network = Network(seed, rounds=2, links=ROUGH)
    make_equivocator(network, "m2")
    network.run()
    assert network.violations == [], network.explain()
    assert is_consistent(network)
    guilty = network.nodes["m2"].identity.address.hex()
    accused = {fields["validator"] for _, _, text, fields in network.notes if text == "a validator has signed twice"}
    assert accused == {guilty}


class Liar:
    """Device d2 without its agent: it copies, opens what it cannot, sends garbage, replays and floods."""

    def __init__(self, network: Network) -> None:
        self.network, self.me = network, network.chain.devices[2]
        self.garbage = {2: make_reveal(network.chain, 2, 2, update=b"no ternary words at all")}
        self.copied: bytes | None = None
        self.sent: set[tuple[int, Kind]] = set()
        network.broker.on_publish.append(self.listen)

    def send(self, raw: bytes) -> None:
        topic = self.network.topics.device_up(self.me.address)
        self.network.broker.inject(topic, encode_packet(PacketType.MESSAGE, raw))

    def listen(self, sender: Node, topic: str, packet: bytes) -> None:
        if sender.name != "d0":
            return
        raw = decode_packet(packet).fields[0]
        envelope = open_envelope(raw, self.network.chain.id)
        if envelope.kind not in (Kind.COMMIT, Kind.REVEAL) or (envelope.number, envelope.kind) in self.sent:
            return
        self.sent.add((envelope.number, envelope.kind))
        {Kind.COMMIT: self.commit, Kind.REVEAL: self.reveal}[envelope.kind](envelope.number, envelope.fields, raw)

    def commit(self, number: int, fields: list, raw: bytes) -> None:
        chain = self.network.chain.id
        commitment = fields[1]
        if number in self.garbage:
            commitment = compute_update_commitment(chain, self.me.address, self.garbage[number])
        own = seal(Commit(number, commitment, False), chain, self.me)
        self.send(own)
        other = seal(Commit(number, b"x" * 32, False), chain, self.me)
        self.network.at(self.network.broker.links.delay_ms[1] + 1, self.send, other)  # after the first: duplicate
        self.send(raw)  # d0's own words under this topic: unknown-sender
        self.send(own[:-1] + bytes([own[-1] ^ 1]))  # known by its place, mis-signed: bad-signature
        if self.copied is not None:
            self.send(self.copied)  # of an earlier round: wrong-round
        self.copied = own
        for length in range(150):
            self.send(self.network.rng.randbytes(length))

    def reveal(self, number: int, fields: list, raw: bytes) -> None:
        reveal = self.garbage.get(number) or Reveal(number, fields[1], fields[2], fields[3])
        self.send(seal(reveal, self.network.chain.id, self.me))


def test_byzantine_device_changes_nothing_for_others() -> None:
    """Copies, garbage, replays and a flood are refused under their own codes; the others' updates are accepted."""
    chain = build_chain(4, 3, score_margin_bp=2_000, absent_rounds_max=9)
    network = Network(9, rounds=3, chain=chain, silent=frozenset({"d2"}))
    Liar(network)
    network.run()
    assert network.violations == [], network.explain()
    assert all(get_accepted(network, number) == {"d0", "d1"} for number in (1, 2, 3))
    assert get_balances(network.nodes["m0"].state.chain, network.chain.devices[2:]) == [0]
    for miner in ("m0", "m1", "m2", "m3"):
        counts = network.refusals[miner]
        assert counts["bad-commitment"] >= 1, "rounds 1 and 3: another's update under a copied commitment"
        assert counts["malformed-update"] >= 1, "round 2: garbage that was committed to"
        assert counts["duplicate"] >= 3
        assert counts["unknown-sender"] == 3
        assert counts["wrong-round"] >= 2
        assert sum(counts[code] for code in ("malformed", "truncated", "not-canonical", "unsigned")) >= 400
    assert network.nodes["m0"].state.chain.round.phase is Phase.COMMIT
