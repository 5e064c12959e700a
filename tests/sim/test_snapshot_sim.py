"""States with proofs in whole networks: a miner that comes late or was away for long soon takes part again."""

from __future__ import annotations

import pytest

from miner.core import state_sync
from tools.sim.attacks.byzantine import Equivocate, make_byzantine
from tools.sim.network import Network


@pytest.fixture(autouse=True)
def ask_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five heights behind is far."""
    monkeypatch.setattr(state_sync, "BEHIND_HEIGHTS", 5)


@pytest.mark.parametrize("seed", range(3))
def test_a_miner_that_comes_late_takes_a_state_and_signs(seed: int) -> None:
    """It takes no old block, and the rounds that follow have its votes: the chain goes on when another one dies."""
    network = Network(seed, 8, silent=frozenset({"m3"}))
    network.run(lambda n: len(n.miners()) == 3 and all(m.state.chain.round.number > 4 for m in n.miners()))
    network.gone.discard("m3")
    network.at(0, network.start, "m3")
    network.run(lambda n: n.nodes["m3"].is_up and n.nodes["m3"].disk.base is not None)
    network.at(0, network.crash, "m0")
    network.gone.add("m0")
    network.run(end_ms=network.now + 120_000)
    assert network.violations == [], network.explain()
    assert network.counts["states taken"] == 1
    assert network.nodes["m3"].disk.base_height > 5


@pytest.mark.parametrize("seed", range(2))
def test_a_state_is_taken_across_a_change_of_validators(seed: int) -> None:
    """While it was away another was jailed: it skips to validators of which more than a third are those it knows."""
    network = Network(seed, 10, miners=5, silent=frozenset({"m4"}))
    make_byzantine(network, "m0", Equivocate)
    network.run(lambda n: any(len(m.state.chain.validators) == 4 for m in n.miners() if m.behaviour is None))
    height = max(network.checker.final)
    network.run(lambda n: max(n.checker.final) > height + 8)
    network.gone.discard("m4")
    network.at(0, network.start, "m4")
    network.run(end_ms=network.now + 120_000)
    assert network.violations == [], network.explain()
    late = network.nodes["m4"]
    assert late.disk.base_height > height
    assert len(late.state.chain.validators) == 4
