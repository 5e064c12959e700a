"""A miner's own scores: what happens to them, and to the chain, where they cannot wait for a block."""

from __future__ import annotations

import pytest

from flchain.base.types import Millis
from flchain.wire.fields import Kind
from flchain.wire.messages import Phase
from flchain.wire.packets import PacketType, encode_packet
from flchain.wire.topics import Topics
from miner.core.machine import build_miner_state, step
from miner.core.pools import mempool
from miner.core.state import MinerState
from miner.core.tip import Standing
from miner.core.values import (
    ComputeScore,
    Connected,
    Effect,
    Event,
    MinerConfig,
    PacketReceived,
    Refuse,
    SaveBlock,
    ScoreComputed,
)
from tests.support.builders.chain import (
    BASE_SCORE,
    NO_CLOCK,
    Driver,
    build_chain,
    certify,
    make_scores,
    seal_score_commit,
    seal_score_reveal,
)

CHAIN = build_chain()
TOPICS = Topics.of_chain(CHAIN.id)


def play(state: MinerState, *events: Event) -> tuple[MinerState, tuple[Effect, ...]]:
    done: tuple[Effect, ...] = ()
    for event in events:
        state, effects = step(state, event, Millis(0), NO_CLOCK)
        done += effects
    return state, done


def answer_questions(state: MinerState, effects: tuple[Effect, ...]) -> MinerState:
    """The scorer answers every question with one score."""
    while asked := [effect for effect in effects if isinstance(effect, ComputeScore)]:
        state, effects = play(state, *(ScoreComputed(each.round, each.subject, BASE_SCORE) for each in asked))
    return state


def find_own(state: MinerState, kind: Kind) -> bytes | None:
    """This miner's word of a kind that waits for a block."""
    said = mempool.get_pending(state.mempool, state.chain.round.number, kind).get(state.config.identity.address)
    return said.raw if said is not None else None


def test_a_score_that_finds_no_room_costs_no_final_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """The block that asks for a miner's scores is taken and saved, though its word finds no room in a pool that peers'
    words fill; the miner says so, and says its scores when there is room."""
    driver = Driver(CHAIN)
    driver.go_to(Phase.SCORE)
    miner = build_miner_state(MinerConfig(CHAIN.miners[0]), Standing(driver.state))
    miner = answer_questions(*play(miner, Connected()))
    own = find_own(miner, Kind.SCORE_COMMIT)
    assert own is not None
    words = {number: make_scores(driver.state) for number in (1, 2, 3)}
    early = seal_score_reveal(CHAIN, 1, words[1])
    topic = TOPICS.miner_bft(CHAIN.miners[1].address)
    miner, _ = play(miner, PacketReceived(topic, encode_packet(PacketType.MESSAGE, early)))
    assert mempool.get_pending(miner.mempool, miner.chain.round.number, Kind.SCORE_REVEAL)
    before = driver.state
    block = driver.extend([own, *(seal_score_commit(CHAIN, number, word) for number, word in words.items())])
    assert driver.state.round.phase is Phase.SETTLE
    final = encode_packet(PacketType.BLOCK, block.header_bytes, certify(CHAIN, before, block), block.body_bytes)
    answer = PacketReceived(TOPICS.miner_to(CHAIN.miners[1].address, CHAIN.miners[0].address), final)
    with monkeypatch.context() as full:
        full.setattr(mempool, "POOL_BYTES_MAX", len(early))
        after, effects = play(miner, answer)
        assert after.chain.height == driver.state.height
        assert any(isinstance(effect, SaveBlock) for effect in effects)
        refused = [effect for effect in effects if isinstance(effect, Refuse)]
        assert [(one.code, "own score" in one.detail) for one in refused] == [("pool-full", True)]
        assert find_own(after, Kind.SCORE_REVEAL) is None
    after, _ = play(after, Connected())
    assert find_own(after, Kind.SCORE_REVEAL) is not None
