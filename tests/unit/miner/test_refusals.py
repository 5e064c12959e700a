"""What a miner refuses because of what was said before. What each wrong field gets: test_refusals.py."""

from __future__ import annotations

import pytest

from flchain.base.types import Millis
from flchain.wire.envelope import seal
from flchain.wire.messages import Commit, Phase
from flchain.wire.packets import PacketType, encode_packet
from flchain.wire.topics import Topics
from miner.core.machine import build_miner_state, step
from miner.core.state import MinerState
from miner.core.tip import Standing
from miner.core.values import MinerConfig, PacketReceived, Refuse
from tests.support.builders.chain import NO_CLOCK, Driver, build_chain, make_reveal, seal_commit

CHAIN = build_chain()
TOPICS = Topics.of_chain(CHAIN.id)
DEVICE = CHAIN.devices[0]
UP = TOPICS.device_up(DEVICE.address)
COMMIT = seal_commit(CHAIN, 0, make_reveal(CHAIN, 0))


def build_miner() -> MinerState:
    driver = Driver(CHAIN)
    driver.go_to(Phase.COMMIT)
    return build_miner_state(MinerConfig(CHAIN.miners[0]), Standing(driver.state))


def message(raw: bytes) -> bytes:
    return encode_packet(PacketType.MESSAGE, raw)


def commit_of(round_number: int) -> bytes:
    return seal(Commit(round_number, b"c" * 32, False), CHAIN.id, DEVICE)


def play(state: MinerState, *payloads: bytes) -> tuple[MinerState, list[str]]:
    codes: list[str] = []
    for payload in payloads:
        state, effects = step(state, PacketReceived(UP, payload), Millis(0), NO_CLOCK)
        codes += [effect.code for effect in effects if isinstance(effect, Refuse)]
    return state, codes


def test_contradiction_is_a_duplicate_and_a_repeat_is_not() -> None:
    """The same bytes again are QoS 1; other bytes in the same place are refused, and the first ones stay."""
    state, codes = play(build_miner(), message(COMMIT), message(COMMIT))
    assert codes == []
    again, codes = play(state, message(commit_of(1)))
    assert codes == ["duplicate"]
    assert again is state


@pytest.mark.parametrize("number", [1, 2])
def test_replay_of_a_past_phase_is_of_the_wrong_round(number: int) -> None:
    """A commitment that comes in REVEAL, or a round later, is refused, unless it is the one in the chain."""
    driver = Driver(CHAIN)
    if number == 2:
        driver.run_round()
    else:
        driver.go_to(Phase.REVEAL)
    state = build_miner_state(MinerConfig(CHAIN.miners[0]), Standing(driver.state))
    assert play(state, message(commit_of(1)))[1] == ["wrong-round"]
    if number == 1:
        assert play(state, message(COMMIT))[1] == [], "that one is final: a receipt was lost, no fault"
