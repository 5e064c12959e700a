"""The miner's pool: one word of a kind per sender and round, bounded, the least reputed go first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flchain.base.errors import DuplicateMessage, PoolFull
from flchain.base.types import BasisPoints, Round
from flchain.ledger.state import ChainState
from flchain.wire.envelope import Verified, seal_verified
from flchain.wire.fields import Kind
from flchain.wire.messages import Commit, Phase
from miner.core.pools import mempool
from miner.core.pools.mempool import Mempool
from tests.support.builders.chain import Driver, build_chain, make_reveal, seal_commit

CHAIN = build_chain(devices=4)


def make_letter(number: int, round_: int = 1, fill: bytes = b"c") -> Verified:
    return seal_verified(Commit(round_, fill * 32, False), CHAIN.id, CHAIN.devices[number])


def set_reputations(*reputations: int) -> ChainState:
    devices = zip(CHAIN.state.devices, reputations, strict=True)
    return replace(CHAIN.state, devices=tuple(replace(d, reputation=BasisPoints(r)) for d, r in devices))


def fill_pool(state: ChainState, *numbers: int) -> Mempool:
    pool = Mempool()
    for number in numbers:
        pool, dropped = mempool.insert(pool, state, make_letter(number))
        assert dropped == ()
    return pool


def test_repeat_is_known_and_contradiction_is_refused() -> None:
    """The same bytes are known; other bytes of the same kind, sender and round are a duplicate."""
    pool = fill_pool(CHAIN.state, 0)
    assert mempool.is_known(pool, make_letter(0))
    assert not mempool.is_known(pool, make_letter(1))
    assert not mempool.is_known(pool, make_letter(0, round_=2))
    with pytest.raises(DuplicateMessage):
        mempool.is_known(pool, make_letter(0, fill=b"d"))


def test_full_pool_drops_the_lowest_reputation_first_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A better device's message takes the place of the worst one's; the caller hears which."""
    state = set_reputations(5_000, 1_000, 3_000, 9_000)
    pool = fill_pool(state, 0, 1, 2)
    monkeypatch.setattr(mempool, "POOL_BYTES_MAX", pool.bytes_held)
    after, dropped = mempool.insert(pool, state, make_letter(3))
    assert dropped == ((Round(1), Kind.COMMIT, CHAIN.devices[1].address),)
    assert after.bytes_held <= pool.bytes_held
    assert not mempool.is_known(after, make_letter(1)) and mempool.is_known(after, make_letter(3))


def test_full_pool_refuses_the_lowest_reputation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that is no better than those who wait gets no place, and nobody loses his."""
    state = set_reputations(5_000, 5_000, 5_000, 5_000)
    pool = fill_pool(state, 0, 1, 2)
    monkeypatch.setattr(mempool, "POOL_BYTES_MAX", pool.bytes_held)
    with pytest.raises(PoolFull):
        mempool.insert(pool, state, make_letter(3))
    assert all(mempool.is_known(pool, make_letter(number)) for number in (0, 1, 2))


def test_pool_counts_its_bytes() -> None:
    """What is removed or pruned is not counted any more."""
    state = CHAIN.state
    pool = fill_pool(state, 0, 1)
    pool, _ = mempool.insert(pool, state, make_letter(2, round_=2))
    assert pool.bytes_held == sum(len(said.raw) for _, said in pool.iterate())
    pruned = mempool.prune(pool, Round(2))
    assert [key for key, _ in pruned.iterate()] == [(Round(2), Kind.COMMIT, CHAIN.devices[2].address)]
    assert pruned.bytes_held == len(make_letter(2, round_=2).raw)
    assert mempool.remove(pruned, frozenset(key for key, _ in pruned.iterate())).bytes_held == 0


def test_updates_that_open_nothing_leave_when_their_phase_begins() -> None:
    """Before REVEAL nobody can tell; then what opens no commitment goes, with the reason, and the good stay."""
    driver = Driver(CHAIN)
    driver.go_to(Phase.COMMIT)
    good, bad = make_reveal(CHAIN, 0), make_reveal(CHAIN, 1)
    pool = Mempool()
    for number, reveal in enumerate((good, bad)):
        pool, _ = mempool.insert(pool, driver.state, seal_verified(reveal, CHAIN.id, CHAIN.devices[number]))
    driver.extend([seal_commit(CHAIN, 0, good)])
    while driver.state.round.phase is Phase.COMMIT:
        driver.extend()
    pool, refused = mempool.drop_refused(pool, driver.state)
    assert [error.code for error in refused] == ["bad-commitment"]
    assert [key[2] for key, _ in pool.iterate()] == [CHAIN.devices[0].address]
