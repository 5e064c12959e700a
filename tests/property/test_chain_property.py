"""Any run of the chain, honest or not: replay agrees, money is conserved, and no message breaks more than itself."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flchain.base.errors import InvalidMessage
from flchain.consensus.pok import compute_weighted_median
from flchain.ledger.state import ChainState, build_genesis_state, get_owned, hash_model
from flchain.ledger.state_tree import compute_state_root
from flchain.light.follow import LightState, build_light_state, process_body, process_head
from flchain.light.trust import CertifiedHeader
from flchain.rules.blocks import apply_block, build_block, select_transactions
from flchain.wire.messages import Phase, Reveal, ScoreReveal
from tests.support.builders.chain import (
    NO_CLOCK,
    BuiltChain,
    Driver,
    build_chain,
    make_reveal,
    make_scores,
    open_all,
    seal_commit,
    seal_reveal,
    seal_score_commit,
    seal_score_reveal,
)

CHAINS = [
    build_chain(),
    build_chain(miners=1, devices=2, codec="identity", reward_rule="by-samples"),
    build_chain(powers=[1, 2, 3, 40], proposer_rule="pos", absent_rounds_max=1),
]
few = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])


class Play:
    """Makes any sealed message that a device or miner could send now, rightly or wrongly."""

    def __init__(self, chain: BuiltChain, draw: Any) -> None:
        self.driver, self.draw, self.chain = Driver(chain), draw, chain
        self.updates: dict[tuple[int, int], Reveal] = {}
        self.words: dict[tuple[int, int], ScoreReveal] = {}
        self.sent: list[bytes] = []

    def make_message(self) -> bytes:
        state, draw = self.driver.state, self.draw
        what = draw(st.integers(0, 9))
        if what == 0 and self.sent:  # a replay of something old
            old: bytes = draw(st.sampled_from(self.sent))
            return old
        round_ = state.round.number if what > 1 else draw(st.integers(0, 5))
        phase = state.round.phase if what > 2 else draw(st.sampled_from(list(Phase)))
        if phase in (Phase.OPEN, Phase.COMMIT, Phase.REVEAL):
            number = draw(st.integers(0, len(self.chain.devices) - 1))
            default = make_reveal(self.chain, number, round_, samples=draw(st.sampled_from([1, 7, 2**20 - 1])))
            reveal = self.updates.setdefault((number, round_), default)
            raw = (seal_reveal if phase is Phase.REVEAL else seal_commit)(self.chain, number, reveal)
        else:
            number = draw(st.integers(0, len(self.chain.miners) - 1))
            scores: dict[bytes, int] = {device.address: draw(st.integers(0, 10_000)) for device in self.chain.devices}
            fresh = make_scores(state, draw(st.integers(0, 10_000)), scores)
            word = self.words.setdefault((number, state.round.number), fresh)
            raw = (seal_score_reveal if phase is Phase.SETTLE else seal_score_commit)(self.chain, number, word)
        self.sent.append(raw)
        return raw

    def make_block(self) -> None:
        pool = [self.make_message() for _ in range(self.draw(st.integers(0, 6)))]
        chosen = select_transactions(self.driver.state, open_all(pool, self.chain.id))
        self.driver.extend(said.raw for said in chosen)


def check_state(state: ChainState) -> None:
    assert get_owned(state) == state.minted - state.burned >= 0
    assert hash_model(state.model) == state.model_hash
    assert all(0 <= device.reputation <= 10_000 for device in state.devices)
    assert all(1 <= validator.knowledge <= 10_000 for validator in state.validators)
    limit = 2 * sum(v.power * 10_000 for v in state.validators) + 10_000 * len(state.validators)
    assert all(abs(validator.priority) <= limit for validator in state.validators)


@few
@given(st.data(), st.sampled_from(CHAINS))
def test_any_run_can_be_replayed_and_followed(data: st.DataObject, chain: BuiltChain) -> None:
    """Whatever devices and miners send, blocks of what is selected are valid, conserve money, and replay and follow."""
    play = Play(chain, data.draw)
    for _ in range(data.draw(st.integers(1, 25))):
        play.make_block()
        check_state(play.driver.state)
    state = build_genesis_state(chain.genesis, chain.model)
    light = build_light_state(chain.genesis, chain.model)
    for block, certificate in zip(play.driver.blocks, play.driver.certificates, strict=True):
        _, state = apply_block(state, block.header_bytes, block.body_bytes)
        light = process_head(light, CertifiedHeader(block.header_bytes, certificate), NO_CLOCK)
        light = process_body(light, block.header.height, block.body_bytes)
        assert light.is_synced
        assert light.model_hash == state.model_hash
    assert compute_state_root(state) == compute_state_root(play.driver.state)
    assert np.array_equal(light.model, play.driver.state.model)


@few
@given(st.data())
def test_any_order_and_loss_of_what_a_device_hears(data: st.DataObject) -> None:
    """Heads and bodies lost, repeated and out of order never make a device hold a model that was not the chain's."""
    driver = FOLLOWED
    models = {0: driver.states[0].model_hash}
    models |= {b.header.next_round - 1: s.model_hash for b, s in zip(driver.blocks, driver.states[1:], strict=True)}
    light: LightState = build_light_state(driver.chain.genesis, driver.chain.model)
    for place in data.draw(st.lists(st.integers(0, len(driver.blocks) - 1), max_size=40)):
        block, certificate = driver.blocks[place], driver.certificates[place]
        try:
            if data.draw(st.booleans()):
                light = process_head(light, CertifiedHeader(block.header_bytes, certificate), NO_CLOCK)
            else:
                light = process_body(light, block.header.height, block.body_bytes)
        except InvalidMessage:
            continue
        assert light.model_hash == models[light.model_round] == hash_model(light.model)


def _make_followed() -> Driver:
    made = Driver(build_chain())
    for devices in (None, [0, 2], [1]):
        made.run_round(devices)
    return made


FOLLOWED = _make_followed()


@few
@given(st.data())
def test_no_damaged_block_is_applied(data: st.DataObject) -> None:
    """A block with a few bytes of header or body changed is refused, unless only its proposer is another."""
    place = data.draw(st.integers(0, len(FOLLOWED.blocks) - 1))
    block, state = FOLLOWED.blocks[place], FOLLOWED.states[place]
    parts = [bytearray(block.header_bytes), bytearray(block.body_bytes)]
    part = parts[data.draw(st.integers(0, 1))]
    at = data.draw(st.integers(0, len(part) - 1))
    part[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    header, body = bytes(parts[0]), bytes(parts[1])
    if (header, body) == (block.header_bytes, block.body_bytes):
        return
    try:
        applied, _ = apply_block(state, header, body)
    except InvalidMessage:
        return
    proposer = applied.header.proposer
    assert msgspec.structs.replace(block.header, proposer=proposer) == applied.header


@few
@given(st.data())
def test_build_and_apply_agree(data: st.DataObject) -> None:
    """In any order of the candidates the proposer builds the block that every peer derives."""
    chain = CHAINS[0]
    driver = Driver(chain)
    driver.open()
    transactions = [seal_commit(chain, i, make_reveal(chain, i)) for i in range(3)]
    letters = open_all(transactions, chain.id)
    shuffled = data.draw(st.permutations(letters))
    block, built = build_block(driver.state, chain.miners[0].address, shuffled)
    again, after = apply_block(driver.state, block.header_bytes, block.body_bytes)
    assert again == build_block(driver.state, chain.miners[0].address, letters)[0]
    assert compute_state_root(built) == compute_state_root(after)


@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 50)), min_size=1, max_size=9),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 50)), max_size=9),
)
def test_less_than_half_of_the_weight_cannot_move_a_median(
    honest: list[tuple[int, int]], liars: list[tuple[int, int]]
) -> None:
    """While liars have less weight than the others, the median stays within the others' values."""
    if sum(weight for _, weight in liars) >= sum(weight for _, weight in honest):
        return
    median = compute_weighted_median((*honest, *liars))
    assert min(value for value, _ in honest) <= median <= max(value for value, _ in honest)
