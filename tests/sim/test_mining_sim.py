"""Devices that mine, in whole networks of the production machines: honest, lying and dying ones."""

from __future__ import annotations

from flchain.ledger.state import Device, find_device
from flchain.wire.envelope import open_envelope
from flchain.wire.fields import Kind
from flchain.wire.packets import decode_packet
from tests.support.builders.chain import get_balances
from tools.sim.attacks.byzantine import make_byzantine
from tools.sim.attacks.lying_devices import DEVICE_BEHAVIOURS, DeviceCopy, DeviceScoreFalsely
from tools.sim.chain import build_chain
from tools.sim.network import Network, Node

LIMIT = 2
"""`absent_rounds_max` here."""
MINE = frozenset({"d0", "d1"})


def build_network(rounds: int, mining: frozenset[str] = MINE, seed: int = 3) -> Network:
    """4 miners, 3 devices of which `mining` score; only scores are paid."""
    rules = {"score_margin_bp": 2_000, "absent_rounds_max": LIMIT, "reward_for_scores": 10_000, "reward_per_update": 0}
    chain = build_chain(4, 3, epoch_rounds=100, phase_heights_max=2, **rules)  # type: ignore[arg-type]
    return Network(seed, rounds, chain=chain, mining=mining)


def get_earned(network: Network) -> list[int]:
    return get_balances(network.nodes["m0"].state.chain, network.chain.devices)


def get_device(network: Network, number: int) -> Device:
    found = find_device(network.nodes["m0"].state.chain, network.chain.devices[number].address)
    assert found is not None
    return found


def when_said(network: Network, name: str, kind: Kind, round_number: int, do) -> None:
    """Once, just after a node has published its message of this kind and round."""
    is_done = False

    def listen(sender: Node, topic: str, packet: bytes) -> None:
        nonlocal is_done
        if is_done or sender.name != name or not topic.endswith("/up"):
            return
        envelope = open_envelope(decode_packet(packet).fields[0], network.chain.id)
        if envelope.kind is kind and envelope.number == round_number:
            is_done = True
            network.at(0, do, name)

    network.broker.on_publish.append(listen)


def test_honest_mining_devices_are_in_every_round_and_it_takes_no_more_heights() -> None:
    """Four heights per round as without mining; both that mine earn alike, the third nothing; nothing is refused."""
    network = build_network(rounds=4).run()
    assert network.violations == [], network.explain()
    assert len(network.checker.final) == 1 + 4 * 4
    first, second, third = get_earned(network)
    assert first == second > 0 == third
    assert network.refusals == {}
    assert not [text for _, _, text, _ in network.notes if text.startswith(("scores dropped", "no scores"))]


def test_a_device_that_lies_about_scores_is_not_paid_and_falls() -> None:
    """Its scores are outliers in every round; the honest one earns, and has more reputation."""
    network = build_network(rounds=5)
    make_byzantine(network, "d1", DeviceScoreFalsely)
    network.run()
    assert network.violations == [], network.explain()
    earned = get_earned(network)
    assert earned[0] > 0 == earned[1]
    assert get_device(network, 1).reputation < get_device(network, 0).reputation


def test_a_device_that_copies_another_is_not_paid_and_soon_not_waited_for() -> None:
    """Copied commitments cannot be opened; the rounds after the allowed ones take four heights again."""
    network = build_network(rounds=6)
    make_byzantine(network, "d1", DeviceCopy)
    network.run()
    assert network.violations == [], network.explain()
    earned = get_earned(network)
    assert earned[0] > 0 == earned[1]
    assert get_device(network, 1).unscored >= LIMIT
    assert len(network.checker.final) <= 1 + 4 * 6 + LIMIT * 2
    assert network.counts["refused bad-commitment"] > 0


def test_a_device_that_dies_after_its_commitment_holds_up_one_round_by_one_height() -> None:
    """SETTLE waits for it one height longer; the dead device pledges nothing, and no one waits for its scores again."""
    network = build_network(rounds=6)
    network.gone.add("d1")
    when_said(network, "d1", Kind.SCORE_COMMIT, 2, network.crash)
    network.run()
    assert network.violations == [], network.explain()
    waits = get_rounds_of(network)
    assert waits[1] == 4, "before"
    assert waits[2] == 5, "SETTLE once more"
    # Training devices that are away are waited for by COMMIT, for as many rounds: one height each. Then it is over.
    assert [waits[number] for number in (3, 4)] == [5, 5]
    assert [waits[number] for number in (5, 6)] == [4, 4]
    assert get_earned(network)[0] > get_earned(network)[1]


def get_rounds_of(network: Network) -> dict[int, int]:
    """How many heights each round took, the one that opens the chain aside."""
    counts: dict[int, int] = {}
    for block, _ in network.nodes["m0"].disk.blocks[1:]:
        counts[block.header.round] = counts.get(block.header.round, 0) + 1
    return counts


def test_a_restart_between_commitment_and_opening_costs_nothing() -> None:
    """The device comes back from its disk, opens what it has committed to, and is paid as the other is."""
    network = build_network(rounds=3)

    def restart(name: str) -> None:
        network.crash(name)
        network.at(5, network.start, name)

    when_said(network, "d1", Kind.SCORE_COMMIT, 2, restart)
    network.run()
    assert network.violations == [], network.explain()
    assert network.counts["crashes"] == 1
    assert get_earned(network)[0] == get_earned(network)[1]


def test_all_devices_may_lie_and_the_rounds_go_on() -> None:
    """All devices that mine are liars of one kind, for each kind: validators still settle every round."""
    for number, kind in enumerate(DEVICE_BEHAVIOURS.values()):
        network = build_network(rounds=4, mining=frozenset({"d0", "d1", "d2"}), seed=number)
        for name in ("d0", "d1", "d2"):
            make_byzantine(network, name, kind)
        network.run()
        assert network.violations == [], network.explain()
        assert network.nodes["m0"].state.chain.round.number == 5
        assert get_earned(network) == [0, 0, 0] or kind.kind == "device-flood", "a flood may hold honest scores too"
