"""Orders that wait for a block: what is kept, what is refused, when they are dropped, and what a sender is told."""

from __future__ import annotations

import pytest

from flchain.base.errors import InvalidMessage, PoolFull
from flchain.base.types import Address, Hash, Millis
from flchain.ledger.state import ChainState
from flchain.rules.blocks import select_orders
from flchain.wire.envelope import open_envelope, verify_envelope
from flchain.wire.messages import Receipt
from flchain.wire.packets import PacketType, decode_packet, encode_packet
from flchain.wire.topics import Topics
from miner.core.machine import build_miner_state, step
from miner.core.pools import order_pool
from miner.core.pools.order_pool import ORDERS_PER_SENDER_MAX, OrderPool, insert, prune
from miner.core.state import MinerState
from miner.core.tip import Standing
from miner.core.values import Effect, MinerConfig, PacketReceived, Publish, Refuse
from tests.support.builders.chain import NO_CLOCK, build_identity, open_all
from tests.support.builders.stake import (
    StakeDriver,
    accuse,
    build_stake_chain,
    delegate,
    register,
    transfer,
    undelegate,
    unjail,
)

CHAIN = build_stake_chain(order_fee=1, holders=3)
RICH, OTHER, THIRD = CHAIN.holders
MINER = CHAIN.miners[0]
STRANGER = build_identity(9, 9)
TOPICS = Topics.of_chain(CHAIN.id)


def put(pool: OrderPool, state: ChainState, raw: bytes) -> OrderPool:
    return insert(pool, state, open_envelope(raw, state.chain))


def test_orders_of_now_and_of_later_wait() -> None:
    """The next order, those after it, and one that still lacks the money are kept, each once."""
    state = CHAIN.state
    raws = [
        transfer(state, RICH, OTHER, 10),
        transfer(state, RICH, OTHER, 10, ahead=3),
        transfer(state, OTHER, RICH, 2_000),
        accuse(state, THIRD, MINER),
    ]
    pool: OrderPool = {}
    for raw in raws:
        pool = put(pool, state, raw)
    assert list(pool) == raws == [said.raw for said in pool.values()]
    assert {said.raw for said in select_orders(state, pool.values())} == {raws[0], raws[3]}


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (transfer(CHAIN.state, STRANGER, RICH, 10), "unknown-sender"),
        (undelegate(CHAIN.state, RICH, MINER, 10), None),  # may come to own it
        (unjail(CHAIN.state, RICH), "refused-order"),
        (delegate(CHAIN.state, RICH, OTHER, 10), "refused-order"),
        (transfer(CHAIN.state, RICH, OTHER, 10)[:-1] + b"\x00", "bad-signature"),
        (accuse(CHAIN.state, RICH, STRANGER), "bad-evidence"),
    ],
)
def test_what_no_block_can_carry_does_not_wait(raw: bytes, code: str | None) -> None:
    """An order that a rule refuses now takes nobody's place; one that only lacks money may come right."""
    if code is None:
        assert put({}, CHAIN.state, raw)
        return
    with pytest.raises(InvalidMessage) as refused:
        put({}, CHAIN.state, raw)
    assert refused.value.code == code


def test_what_is_done_is_refused_and_dropped() -> None:
    """After its block an order leaves the pool, and coming again it is of a past sequence; evidence likewise."""
    driver = StakeDriver(CHAIN)
    raws = [transfer(driver.state, RICH, OTHER, 10), accuse(driver.state, THIRD, CHAIN.miners[1])]
    next_raw = transfer(driver.state, RICH, OTHER, 10, ahead=1)
    pool: OrderPool = {}
    for raw in (*raws, next_raw):
        pool = put(pool, driver.state, raw)
    driver.extend(orders=[said.raw for said in select_orders(driver.state, open_all(raws, CHAIN.id))])
    assert list(prune(pool, driver.state)) == [next_raw]
    for raw, code in zip(raws, ("wrong-sequence", "wrong-round"), strict=True):
        with pytest.raises(InvalidMessage) as refused:
            put({}, driver.state, raw)
        assert refused.value.code == code


def test_what_has_become_wrong_is_dropped() -> None:
    """Of two orders under one sequence number one is carried out; the other, and what it made impossible, goes."""
    driver = StakeDriver(CHAIN)
    state = driver.state
    first, rival = register(state, RICH, 100), delegate(state, RICH, MINER, 5)
    pool = put(put({}, state, first), state, rival)
    chosen = select_orders(state, pool.values())
    assert len(chosen) == 1
    driver.extend(orders=[said.raw for said in chosen])
    assert prune(pool, driver.state) == {}


def test_one_sender_has_few_places() -> None:
    """A sender fills its own places and nobody else's; when one is free again it may go on."""
    state = CHAIN.state
    pool: OrderPool = {}
    for i in range(ORDERS_PER_SENDER_MAX):
        pool = put(pool, state, transfer(state, RICH, OTHER, 1, ahead=i))
    with pytest.raises(PoolFull):
        put(pool, state, transfer(state, RICH, OTHER, 1, ahead=ORDERS_PER_SENDER_MAX))
    assert put(pool, state, transfer(state, OTHER, RICH, 1))
    driver = StakeDriver(CHAIN)
    driver.extend(orders=[said.raw for said in select_orders(state, pool.values())])
    assert prune(pool, driver.state) == {}


def test_a_full_pool_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no place left nothing is dropped for a newcomer: it may try again later."""
    monkeypatch.setattr(order_pool, "WAITING_ORDERS_MAX", 2)
    pool = put(
        put({}, CHAIN.state, transfer(CHAIN.state, RICH, OTHER, 1)), CHAIN.state, transfer(CHAIN.state, OTHER, RICH, 1)
    )
    with pytest.raises(PoolFull) as refused:
        put(pool, CHAIN.state, transfer(CHAIN.state, THIRD, RICH, 1))
    assert refused.value.code == "pool-full"


# -------------------------------------------------------------------------------------- in the machine


def build_miner() -> MinerState:
    driver = StakeDriver(CHAIN)
    driver.open()
    return build_miner_state(MinerConfig(MINER), Standing(driver.state))


def hear(state: MinerState, owner: Address, raw: bytes) -> tuple[MinerState, tuple[Effect, ...]]:
    packet = PacketReceived(TOPICS.device_up(owner), encode_packet(PacketType.MESSAGE, raw))
    return step(state, packet, Millis(0), NO_CLOCK)


def get_receipts(effects: tuple[Effect, ...], owner: Address) -> list[tuple[Hash, str]]:
    said = []
    for effect in effects:
        if isinstance(effect, Publish) and effect.topic == TOPICS.miner_to(MINER.address, owner):
            envelope = open_envelope(decode_packet(effect.packet).fields[0], CHAIN.id)
            receipt = verify_envelope(envelope, CHAIN.id, MINER.public_key).message
            assert isinstance(receipt, Receipt)
            said.append((Hash(receipt.digest), receipt.code))
    return said


def test_the_sender_of_an_order_gets_a_receipt() -> None:
    """A holder that is neither device nor miner hears that its order waits, and hears the same when it repeats it."""
    raw = transfer(CHAIN.state, RICH, OTHER, 10)
    digest = open_envelope(raw, CHAIN.id).digest()
    state, effects = hear(build_miner(), RICH.address, raw)
    assert get_receipts(effects, RICH.address) == [(digest, "ok")]
    assert list(state.orders) == [raw]
    again, effects = hear(state, RICH.address, raw)
    assert again == state and get_receipts(effects, RICH.address) == [(digest, "ok")]


def test_the_sender_of_a_wrong_order_hears_why() -> None:
    """What a rule refuses is told to who signed it, under the rule's code, and counted."""
    raw = unjail(CHAIN.state, RICH)
    before = build_miner()
    state, effects = hear(before, RICH.address, raw)
    assert state == before
    assert get_receipts(effects, RICH.address) == [(open_envelope(raw, CHAIN.id).digest(), "refused-order")]
    assert [e.code for e in effects if isinstance(e, Refuse)] == ["refused-order"]


def test_a_miner_hears_its_own_operator() -> None:
    """An order of a miner's account, sent by its operator with the same key, waits in that miner's pool too; and the
    other miners' receipts, which reach the miner besides, are nothing wrong."""
    state = build_miner()
    raw = undelegate(state.chain, MINER, MINER, 1)
    after, effects = hear(state, MINER.address, raw)
    assert list(after.orders) == [raw]
    receipt = next(e for e in effects if isinstance(e, Publish))
    assert step(state, PacketReceived(receipt.topic, receipt.packet), Millis(0), NO_CLOCK) == (state, ())


@pytest.mark.parametrize("raw", [transfer(CHAIN.state, STRANGER, RICH, 10), unjail(CHAIN.state, RICH)[:-1] + b"\x00"])
def test_strangers_and_forgers_get_no_answer(raw: bytes) -> None:
    """Without an account or with a wrong signature nothing is sent: a miner is nobody's amplifier."""
    owner = open_envelope(raw, CHAIN.id).sender
    _, effects = hear(build_miner(), owner, raw)
    assert [type(effect) for effect in effects] == [Refuse]


def test_an_order_is_nobody_elses_to_send() -> None:
    """An order under another's topic is refused, so that receipts go only to who signed."""
    _, effects = hear(build_miner(), OTHER.address, transfer(CHAIN.state, RICH, OTHER, 10))
    assert [effect.code for effect in effects if isinstance(effect, Refuse)] == ["unknown-sender"]


def test_orders_that_cannot_be_carried_out_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Orders ahead of their turn or without money cost nothing: of a full pool they go for one that a block can carry,
    the furthest ahead first; among themselves none goes for another."""
    monkeypatch.setattr(order_pool, "WAITING_ORDERS_MAX", 3)
    state = CHAIN.state
    poor, near, far = (
        transfer(state, RICH, OTHER, 2_000),
        transfer(state, OTHER, RICH, 1, ahead=1),
        transfer(state, OTHER, RICH, 1, ahead=2),
    )
    pool: OrderPool = {}
    for raw in (poor, far, near):
        pool = put(pool, state, raw)
    with pytest.raises(PoolFull):
        put(pool, state, transfer(state, THIRD, RICH, 1, ahead=1))
    ready = [transfer(state, THIRD, RICH, 1), accuse(state, THIRD, MINER), accuse(state, RICH, MINER)]
    for raw, left in zip(ready, ([poor, near], [poor], []), strict=True):
        pool = put(pool, state, raw)
        assert [waiting for waiting in pool if waiting not in ready] == left
    with pytest.raises(PoolFull):
        put(pool, state, transfer(state, OTHER, RICH, 1))
