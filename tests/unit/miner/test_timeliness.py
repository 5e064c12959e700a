"""What a miner thinks of a new block, and how long it waits: nobody's clock, orders or absence may stop the chain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from flchain.base.crypto import Identity
from flchain.base.types import Millis, UnixMillis
from flchain.ledger.state import ChainState, find_device
from flchain.rules import blocks as chain_rules
from flchain.rules.blocks import build_block
from flchain.rules.transactions import verify_transaction
from flchain.wire.envelope import open_envelope
from flchain.wire.messages import Phase, ScoreReveal
from flchain.wire.packets import PacketType, encode_packet
from miner.core.agreement import check_block
from miner.core.machine import build_miner_state, step
from miner.core.pools import mempool
from miner.core.state import CheckedBlock, MinerState
from miner.core.timeliness import CLOCK_AHEAD_MAX_MS, is_timely
from miner.core.tip import Standing
from miner.core.values import (
    Connected,
    Effect,
    Event,
    MinerConfig,
    PacketReceived,
    StartTimer,
    Timer,
)
from tests.support.builders.chain import (
    NO_CLOCK,
    BuiltChain,
    make_reveal,
    make_scores,
    open_all,
    seal_commit,
    seal_reveal,
    seal_score_commit_of,
    seal_score_reveal_of,
)
from tests.support.builders.stake import StakeDriver, build_stake_chain, transfer

CHAIN = build_stake_chain()
PARAMS = CHAIN.genesis.params
YEARS_AHEAD = UnixMillis(10**13)
NOW = UnixMillis(10**12)


def go_to(phase: Phase, clock_ms: int = 0) -> ChainState:
    driver = StakeDriver(CHAIN)
    driver.go_to(phase)
    if clock_ms:
        driver.extend(clock_ms=clock_ms)
    return driver.state


def build_miner(state: ChainState, *waiting: bytes) -> MinerState:
    miner = build_miner_state(MinerConfig(CHAIN.miners[0]), Standing(state))
    return play(miner, *(say(miner, raw) for raw in waiting))[0]


def say(miner: MinerState, raw: bytes) -> PacketReceived:
    sender = open_envelope(raw, CHAIN.id).sender
    is_device = find_device(miner.chain, sender) is not None
    topic = miner.topics.device_up(sender) if is_device else miner.topics.miner_bft(sender)
    return PacketReceived(topic, encode_packet(PacketType.MESSAGE, raw))


def play(miner: MinerState, *events: Event) -> tuple[MinerState, tuple[Effect, ...]]:
    done: tuple[Effect, ...] = ()
    for event in events:
        miner, effects = step(miner, event, Millis(0), NO_CLOCK)
        done += effects
    return miner, done


def propose(state: ChainState, *transactions: bytes, clock_ms: UnixMillis = NO_CLOCK) -> CheckedBlock:
    block, _ = build_block(state, CHAIN.miners[1].address, open_all(transactions, CHAIN.id), (), clock_ms)
    return check_block(state, block, block.decode_body())


def get_waits(effects: tuple[Effect, ...]) -> list[int]:
    return [effect.delay_ms for effect in effects if isinstance(effect, StartTimer) and effect.timer is Timer.PATIENCE]


def seal_commits(*numbers: int) -> list[bytes]:
    return [seal_commit(CHAIN, number, make_reveal(CHAIN, number, 1)) for number in numbers]


def test_a_block_far_ahead_gets_no_vote() -> None:
    """A proposer's clock may be five minutes ahead of this miner's, no more."""
    state = go_to(Phase.COMMIT)
    miner = replace(build_miner(state), clock_ms=NOW)
    for ahead_ms, is_right in ((0, True), (CLOCK_AHEAD_MAX_MS, True), (CLOCK_AHEAD_MAX_MS + 1, False)):
        assert is_timely(miner, propose(state, clock_ms=UnixMillis(NOW + ahead_ms))) is is_right


def test_a_chain_that_is_ahead_of_all_clocks_goes_on() -> None:
    """After clocks that were years ahead are mended, blocks of the least possible time still get votes, others not."""
    state = go_to(Phase.COMMIT, clock_ms=YEARS_AHEAD)
    miner = replace(build_miner(state), clock_ms=NOW)
    assert is_timely(miner, propose(state, clock_ms=NOW))
    assert not is_timely(miner, propose(state, clock_ms=UnixMillis(YEARS_AHEAD + 60_000)))


def test_devices_that_all_were_absent_come_back() -> None:
    """With every device long absent nobody is expected, and the first one's commitment still gets into a block."""
    state = go_to(Phase.COMMIT)
    state = replace(state, devices=tuple(replace(device, absent=9) for device in state.devices))
    commits = seal_commits(0)
    miner = build_miner(state, *commits)
    assert is_timely(miner, propose(state, *commits))
    assert not is_timely(miner, propose(state))


def test_a_block_must_close_the_phase_only_if_one_body_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a body has room for all, less than all is voted nil; updates too long for one body go into several."""
    state = go_to(Phase.REVEAL)
    raws = [seal_reveal(CHAIN, number, make_reveal(CHAIN, number, 1)) for number in range(len(CHAIN.devices))]
    miner, some = build_miner(state, *raws), propose(state, *raws[:2])
    assert is_timely(miner, propose(state, *raws))
    assert not is_timely(miner, some)
    monkeypatch.setattr(chain_rules, "TRANSACTIONS_BYTES_MAX", sum(map(len, raws)) - 1)
    assert is_timely(miner, some)
    assert not is_timely(miner, propose(state))


def test_a_block_that_closes_a_phase_may_leave_nobody_out_either() -> None:
    """At the last height of COMMIT any block closes the phase: one without the device that has just come is voted nil,
    else one hasty proposer, when that height is its turn, shuts slow devices out of the round."""
    first, *others = seal_commits(*range(len(CHAIN.devices)))
    state = go_to(Phase.COMMIT)
    for _ in range(PARAMS.phase_heights_max - 1):
        state = propose(state, first).after or state
        first = b""
    assert state.round.phase is Phase.COMMIT
    hasty = propose(state)
    assert hasty.after is not None and hasty.after.round.phase is Phase.REVEAL
    miner = build_miner(state, *others)
    assert not is_timely(miner, hasty)
    assert not is_timely(miner, propose(state, *others[1:]))
    assert is_timely(miner, propose(state, *others))
    some = build_miner(state, *others[1:])
    assert not is_timely(some, hasty)
    assert is_timely(some, propose(state, others[1])), "somebody is missing anyway, and the heights are used up"


def check_that_a_mining_device_is_waited_for(state: ChainState, own: bytes, of_miners: list[bytes]) -> None:
    """A miner that has everybody's scores votes for a block with the device's only; a miner's own may be missing."""
    miner = build_miner(state, own, *of_miners[1:])
    said = verify_transaction(state, open_envelope(of_miners[0], CHAIN.id))
    pool, _ = mempool.insert(miner.mempool, state, said)
    miner = replace(miner, mempool=pool)
    assert not is_timely(miner, propose(state, *of_miners))
    assert is_timely(miner, propose(state, own, *of_miners))
    assert is_timely(miner, propose(state, own, *of_miners[1:])), "a miner can speak for itself"


def seal_scores(
    state: ChainState, seal_of: Callable[[BuiltChain, Identity, ScoreReveal], bytes]
) -> tuple[bytes, list[bytes]]:
    """The same scores of the first device and of four miners."""
    word = make_scores(state)
    return seal_of(CHAIN, CHAIN.devices[0], word), [seal_of(CHAIN, miner, word) for miner in CHAIN.miners[:4]]


def test_a_block_leaves_out_no_devices_scores_that_are_waited_for() -> None:
    """Nor may a proposer leave out the scores of a device that has pledged them, and then those it has committed to."""
    driver = StakeDriver(CHAIN)
    driver.go_to(Phase.SCORE, pledged=(0,))
    own, of_miners = seal_scores(driver.state, seal_score_commit_of)
    check_that_a_mining_device_is_waited_for(driver.state, own, of_miners)
    driver.extend([own, *of_miners])
    assert driver.state.round.phase is Phase.SETTLE
    check_that_a_mining_device_is_waited_for(driver.state, *seal_scores(driver.state, seal_score_reveal_of))


def test_orders_do_not_hurry_scorers() -> None:
    """In SCORE an order waits for the next block: blocks for its sake would use up the heights of slow scorers."""
    state = go_to(Phase.SCORE)
    order = transfer(state, CHAIN.holders[0], CHAIN.holders[1], 10)
    assert get_waits(play(build_miner(state), Connected())[1]) == [PARAMS.commit_patience_ms]
    miner = build_miner(state)
    assert get_waits(play(miner, say(miner, order))[1]) == [PARAMS.commit_patience_ms]


def test_orders_do_not_use_up_the_time_of_devices_that_train() -> None:
    """In COMMIT an order is reason enough for a block after a while; with the first commitment the wait begins anew."""
    state = go_to(Phase.COMMIT)
    order = transfer(state, CHAIN.holders[0], CHAIN.holders[1], 10)
    miner = build_miner(state)
    first, second = (say(miner, raw) for raw in seal_commits(0, 1))
    miner, effects = play(miner, say(miner, order))
    assert get_waits(effects) == [PARAMS.commit_patience_ms]
    miner, effects = play(miner, first)
    assert get_waits(effects) == [PARAMS.commit_patience_ms]
    assert get_waits(play(miner, second)[1]) == []
