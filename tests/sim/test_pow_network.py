"""Whole rounds under proof of work, beside the same ones under BFT, and attackers on both sides of one half."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flchain.base.types import Millis
from flchain.wire.packets import PacketType, encode_packet
from miner.core.values import PacketReceived, Refuse
from tests.support.builders.pow import count_stale
from tools.sim.pow import machine as pow_machine
from tools.sim.pow.attack import compute_success, simulate_attack, withhold
from tools.sim.pow.machine import SealFound
from tools.sim.pow.network import RoundNetwork
from tools.sim.pow.values import LINKS, Setting

POW = Setting(seed=1, consensus="pow", validators=4, rounds=2)
CALM = replace(LINKS, slow_share=0.0, lost_share=0.0)


def test_the_same_rounds_end_in_the_same_model() -> None:
    """With links that lose nothing both rules take every update of every round: the models agree to the bit."""
    bft = RoundNetwork(replace(POW, consensus="bft", links=CALM)).run()
    pow_ = RoundNetwork(replace(POW, interval_ms=2_000, links=CALM)).run()
    assert not bft.record.violations and not pow_.record.violations
    models = {node.state.chain.model_hash for node in bft.nodes}
    models |= {node.state.final.model_hash for node in pow_.nodes}
    assert len(models) == 1
    assert bft.chain.state.model_hash not in models


@pytest.mark.parametrize("seed", range(5))
def test_forks_are_counted_and_heal(seed: int) -> None:
    """At an interval near the links' delay blocks go stale, tips move back and forth, and nothing final is undone."""
    network = RoundNetwork(replace(POW, seed=seed, validators=7, interval_ms=250, final_depth=10)).run()
    assert network.record.violations == []
    assert network.record.reorg_depth_max >= 1
    height = network.get_height()
    told = [header for _, header in network.record.created.values() if header.height <= height]
    assert len(told) > height
    assert len({node.finals[height - 1].hash for node in network.nodes}) == 1
    assert all(node.state.tree.finals_undone == 0 for node in network.nodes)
    assert any(count_stale(node.state.tree) > 0 for node in network.nodes)


def test_one_seed_decides_everything() -> None:
    """Two runs of one setting count the same messages, bytes, signatures and blocks; another seed does not."""
    first, second = (RoundNetwork(POW).run() for _ in range(2))
    other = RoundNetwork(replace(POW, seed=2)).run()
    assert first.record.counts == second.record.counts
    assert list(first.record.created) == list(second.record.created)
    assert list(first.record.created) != list(other.record.created)


def test_lost_blocks_are_asked_for() -> None:
    """With every third message between miners lost, orphans lead to their parents and the rounds still end."""
    network = RoundNetwork(replace(POW, links=replace(LINKS, lost_share=0.33))).run()
    assert network.record.violations == []
    assert network.record.counts["lost"] > 20


def test_a_miner_with_most_of_the_hashrate_breaks_finality() -> None:
    """Two thirds of the hashrate in one hand, mining in secret: a block that was final is undone, and the checker of
    the benchmark says so."""
    network = RoundNetwork(replace(POW, rounds=50, powers=(5, 5, 5, 30), final_depth=3))
    withhold(network, 3, start_ms=4_000)
    network.run(lambda n: bool(n.record.violations), end_ms=600_000)
    assert any("undoes" in violation for violation in network.record.violations)
    assert any("two final blocks" in violation for violation in network.record.violations)
    assert any(node.state.tree.finals_undone > 0 for node in network.nodes[:3])
    assert network.record.reorg_depth_max > 3


def test_more_than_half_wins() -> None:
    """With 60% of the hashrate every attack on 6 confirmations succeeds; with 51% most do before the victim's tree has
    forgotten where they began, and far more than with 45%."""
    rng = random.Random(1)
    assert all(simulate_attack(rng, 0.6, 6) for _ in range(100))
    won = [sum(simulate_attack(rng, share, 6) for _ in range(100)) for share in (0.45, 0.51)]
    assert won[1] > max(60, won[0])


@pytest.mark.parametrize(("share", "depth"), [(0.1, 1), (0.2, 3), (0.3, 2), (0.3, 6)])
def test_less_than_half_seldom_wins(share: float, depth: int) -> None:
    """Below one half success is as rare as the formula says, within four standard errors of 1,500 attacks."""
    rng, expected = random.Random(7), compute_success(share, depth)
    won = sum(simulate_attack(rng, share, depth) for _ in range(1_500)) / 1_500
    assert won == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 1_500) ** 0.5)


def test_confirmations_make_a_minority_harmless() -> None:
    """A tenth of the hashrate undoes a block of depth 6 less than once in ten thousand times; each block helps."""
    assert compute_success(0.1, 6) < 1e-4
    assert sum(simulate_attack(random.Random(3), 0.1, 6) for _ in range(500)) == 0
    chances = [compute_success(0.3, depth) for depth in range(12)]
    assert chances == sorted(chances, reverse=True)
    assert compute_success(0.5, 6) == 1


@pytest.fixture(scope="module")
def grown() -> RoundNetwork:
    return RoundNetwork(POW).run(lambda n: n.now > 6_000)


@given(garbage=st.one_of(st.binary(max_size=60), st.tuples(*[st.binary(max_size=40)] * 3)), channel=st.integers(0, 2))
@settings(max_examples=150)
def test_garbage_changes_nothing(grown: RoundNetwork, garbage: bytes | tuple[bytes, ...], channel: int) -> None:
    """Any bytes on any channel, blocks of garbage too, are refused and leave the miner as it was."""
    node, peer = grown.nodes[0], grown.nodes[1].identity.address
    topics = (grown.topics.miner_bft(peer), grown.topics.miner_to(peer, node.identity.address), "a/b")
    payload = garbage if isinstance(garbage, bytes) else encode_packet(PacketType.BLOCK, *garbage)
    after, effects = pow_machine.step(node.state, PacketReceived(topics[channel], payload), Millis(grown.now))
    assert after is node.state
    assert [type(effect) for effect in effects] == [Refuse]


def test_a_seal_cannot_be_moved_to_another_block(grown: RoundNetwork) -> None:
    """A true block with another one's seal, or none, is refused as a bad seal; with its own it is taken."""
    state, topic = grown.nodes[0].state, grown.topics.miner_bft(grown.nodes[1].identity.address)
    maker = replace(state, miner=replace(state.miner, config=grown.nodes[1].state.miner.config))
    grown.seals[b"new seal"] = None
    _, effects = pow_machine.step(maker, SealFound(b"new seal"), Millis(grown.now))
    told = next(effect.packet for effect in effects if hasattr(effect, "packet"))
    used = next(nonce for nonce, block_hash in grown.seals.items() if block_hash is not None)
    for wrong in (used, b"a guess!"):
        packet = told.replace(b"new seal", wrong)
        after, effects = pow_machine.step(state, PacketReceived(topic, packet), Millis(grown.now))
        assert after is state
        assert [effect.code for effect in effects if isinstance(effect, Refuse)] == ["bad-seal"]
    after, _ = pow_machine.step(state, PacketReceived(topic, told), Millis(grown.now))
    assert after.chain.height == state.chain.height + 1
