"""Orders: what each does to money and stake, and what each fault of one gets; blocks that carry them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flchain.base.errors import InvalidBlock, InvalidMessage
from flchain.base.types import Address, Power, Stake, UnixMillis
from flchain.ledger.block import compute_body_root
from flchain.ledger.limits import ORDERS_MAX
from flchain.ledger.state import (
    ChainState,
    Unbonding,
    find_account,
    find_candidate,
    get_delegation,
    get_owned,
    get_stake,
)
from flchain.rules import orders
from flchain.rules.blocks import apply_block, build_block, select_orders
from flchain.rules.orders import (
    UNBONDINGS_PER_ACCOUNT_MAX,
    process_election,
    process_matured,
    process_order,
    verify_order,
)
from flchain.wire.envelope import encode_struct, open_envelope, seal
from flchain.wire.messages import Body, Commit, Delegate, Phase, Register, Transfer, Undelegate
from tests.support.builders.chain import build_identity, open_all, replace_header
from tests.support.builders.stake import (
    StakeDriver,
    build_stake_chain,
    delegate,
    register,
    seal_order,
    transfer,
    undelegate,
    unjail,
)

FEE, BOND_MIN, STAKE_MIN, START = 3, 50, 10, 1_000
RULES: dict[str, Any] = {"order_fee": FEE, "bond_min": BOND_MIN, "stake_min": STAKE_MIN, "powers": [100] * 4}
CHAIN = build_stake_chain(**RULES)
MINER, RICH, OTHER = CHAIN.miners[0], *CHAIN.holders
NEW = build_identity(7, 7)


def do(state: ChainState, raw: bytes) -> ChainState:
    envelope = open_envelope(raw, state.chain)
    return process_order(state, verify_order(state, envelope).message, envelope.sender)


def do_all(state: ChainState, *raws: bytes) -> ChainState:
    for raw in raws:
        state = do(state, raw)
    return state


def mature(state: ChainState, index: int) -> ChainState:
    """At the time when this unbonding is due."""
    due = state.unbondings[index].due_ms
    assert due is not None
    return process_matured(replace(state, time_ms=due))


def get_balance(state: ChainState, address: Address) -> int:
    account = find_account(state, address)
    assert account is not None
    return account.balance


def fill(state: ChainState, table: str, count: int) -> ChainState:
    """The state with a table of `count` copies of its first entry."""
    return replace(state, **{table: getattr(state, table)[:1] * count})


# -------------------------------------------------------------------------------------------- payments


def test_a_transfer_moves_money_and_burns_the_fee() -> None:
    """The receiver gets the amount, the sender pays it and the fee, and the fee is gone for good."""
    state = do(CHAIN.state, transfer(CHAIN.state, RICH, OTHER, 100))
    assert get_balance(state, RICH.address) == START - 100 - FEE
    assert get_balance(state, OTHER.address) == START + 100
    assert state.burned == FEE
    assert get_owned(state) == state.minted - state.burned
    assert state.accounts_by_address[RICH.address].sequence == 1


def test_a_transfer_makes_an_account() -> None:
    """The first payment to a key makes an account, in the order of addresses, and may spend at once."""
    state = do(CHAIN.state, transfer(CHAIN.state, RICH, NEW, 100))
    assert get_balance(state, NEW.address) == 100
    assert [a.address for a in state.accounts] == sorted(a.address for a in state.accounts)
    assert get_balance(do(state, transfer(state, NEW, OTHER, 97)), NEW.address) == 0


def test_a_transfer_to_oneself_costs_the_fee_alone() -> None:
    """Paying oneself moves nothing."""
    state = do(CHAIN.state, transfer(CHAIN.state, RICH, RICH, START - FEE))
    assert get_balance(state, RICH.address) == START - FEE


# --------------------------------------------------------------------------- candidates and delegation


def test_registration_bonds_and_waits_for_the_election() -> None:
    """A new candidate has its bond behind it, its commission, and no power before the epoch ends."""
    state = do(CHAIN.state, register(CHAIN.state, RICH, 200, 500))
    candidate = find_candidate(state, RICH.address)
    assert candidate is not None and (candidate.power, candidate.commission_bp) == (0, 500)
    assert get_delegation(state, RICH.address, RICH.address) == get_stake(state, RICH.address) == 200
    assert get_balance(state, RICH.address) == START - 200 - FEE
    assert [c.address for c in state.candidates] == sorted(c.address for c in state.candidates)
    assert state.validators == CHAIN.state.validators


def test_delegations_to_one_candidate_add_up() -> None:
    """Two delegations of one holder are one entry; those of others stand beside it, in order."""
    state = do(CHAIN.state, delegate(CHAIN.state, RICH, MINER, 10))
    state = do(state, delegate(state, OTHER, MINER, 30))
    state = do(state, delegate(state, RICH, MINER, 15))
    assert get_delegation(state, RICH.address, MINER.address) == 25
    assert get_stake(state, MINER.address) == 100 + 25 + 30
    keys = [(d.delegator, d.candidate) for d in state.delegations]
    assert keys == sorted(set(keys))


def test_undelegated_stake_waits_and_gives_no_power() -> None:
    """What is taken back is behind nobody at once, and nobody's money before the delay is over."""
    state = do(CHAIN.state, delegate(CHAIN.state, RICH, MINER, 100))
    state = do(replace(state, time_ms=UnixMillis(5)), undelegate(state, RICH, MINER, 60))
    assert get_stake(state, MINER.address) == 140
    assert get_balance(state, RICH.address) == START - 100 - 2 * FEE
    waiting = Unbonding(RICH.address, MINER.address, Stake(60))
    assert state.unbondings == (waiting,)
    elected = process_election(replace(state, time_ms=UnixMillis(7)))
    due = UnixMillis(7 + state.params.unbonding_s * 1_000)
    assert elected.unbondings == (replace(waiting, due_ms=due),)
    later = process_election(replace(elected, time_ms=UnixMillis(9)))
    assert later.unbondings == elected.unbondings, "a second election puts nothing off"


def test_unbonding_is_paid_when_due_by_block_time() -> None:
    """A millisecond before it is due nothing is paid; at the very millisecond all of it, once."""
    state = do(CHAIN.state, delegate(CHAIN.state, RICH, MINER, 100))
    state = process_election(do(state, undelegate(state, RICH, MINER, 60)))
    due = state.unbondings[0].due_ms
    assert due is not None
    before = process_matured(replace(state, time_ms=UnixMillis(due - 1)))
    assert before.unbondings == state.unbondings and before.accounts == state.accounts
    paid = process_matured(replace(state, time_ms=due))
    assert paid.unbondings == ()
    assert get_balance(paid, RICH.address) == get_balance(state, RICH.address) + 60
    assert process_matured(paid).accounts == paid.accounts
    assert get_owned(paid) == get_owned(state)


def test_several_unbondings_are_paid_each_in_its_time() -> None:
    """Of an account's unbondings only the due ones are paid, and the others keep their order."""
    state = do(CHAIN.state, delegate(CHAIN.state, RICH, MINER, 100))
    for time_ms in (1, 2, 2, 3):
        state = do(replace(state, time_ms=UnixMillis(time_ms)), undelegate(state, RICH, MINER, 10))
        state = process_election(state)
    paid = mature(state, 2)
    assert get_balance(paid, RICH.address) == get_balance(state, RICH.address) + 30
    assert paid.unbondings == state.unbondings[3:]


def test_a_candidate_without_stake_is_forgotten() -> None:
    """One that has taken all back is no candidate once it is paid, and may register anew; a device's home is kept."""
    state = do(CHAIN.state, register(CHAIN.state, RICH, 200))
    state = process_election(do(state, undelegate(state, RICH, RICH, 200)))
    assert find_candidate(process_matured(state), RICH.address) is not None, "what unbonds can be slashed"
    left = mature(state, 0)
    assert find_candidate(left, RICH.address) is None
    assert find_candidate(do(left, register(left, RICH, 60)), RICH.address) is not None
    bare = replace(
        CHAIN.state, delegations=(), candidates=tuple(replace(c, power=Power(0)) for c in CHAIN.state.candidates)
    )
    homes = {device.home for device in bare.devices}
    assert {c.address for c in process_matured(bare).candidates} == homes < {c.address for c in bare.candidates}


# -------------------------------------------------------------------------------------------- refusals

S = CHAIN.state
BACKED = do_all(S, delegate(S, RICH, MINER, 100))
REGISTERED = do_all(S, register(S, RICH, 100))
UNBONDING = do_all(S, delegate(S, RICH, MINER, 500))
for _ in range(UNBONDINGS_PER_ACCOUNT_MAX):
    UNBONDING = do(UNBONDING, undelegate(UNBONDING, RICH, MINER, 10))

REFUSALS: dict[str, tuple[ChainState, bytes, str]] = {
    "a sequence that is done": (BACKED, transfer(S, RICH, OTHER, 10), "wrong-sequence"),
    "a sequence ahead": (S, transfer(S, RICH, OTHER, 10, ahead=1), "wrong-sequence"),
    "more than one owns": (S, transfer(S, RICH, OTHER, START + 1), "insufficient-funds"),
    "all, and no fee left": (S, transfer(S, RICH, OTHER, START), "insufficient-funds"),
    "no money for the fee": (S, transfer(S, MINER, OTHER, 1), "insufficient-funds"),
    "an account for dust": (S, transfer(S, RICH, NEW, STAKE_MIN - 1), "refused-order"),
    "an account of no key": (S, seal_order(S, RICH, Transfer, b"\x00" * 32, 10), "refused-order"),
    "of nobody known": (S, transfer(S, NEW, OTHER, 10), "unknown-sender"),
    "under another's name": (
        S,
        transfer(S, RICH, OTHER, 10)[:-1] + bytes([transfer(S, RICH, OTHER, 10)[-1] ^ 1]),
        "bad-signature",
    ),
    "no order at all": (S, seal(Commit(1, b"c" * 32, False), S.chain, RICH), "malformed"),
    "of no amount": (S, seal_order(S, RICH, Transfer, OTHER.public_key, 0), "malformed"),
    "of a negative amount": (S, seal_order(S, RICH, Delegate, MINER.address, -5), "malformed"),
    "a bond too small": (S, register(S, RICH, BOND_MIN - 1), "refused-order"),
    "a bond not owned": (S, register(S, RICH, START), "insufficient-funds"),
    "a candidate already": (REGISTERED, register(REGISTERED, RICH, 100), "refused-order"),
    "a commission above all": (S, seal_order(S, RICH, Register, 10_001, 100), "malformed"),
    "a candidate too many": (
        fill(S, "candidates", orders.CANDIDATES_MAX),
        register(S, RICH, 100),
        "refused-order",
    ),
    "a delegation to no candidate": (S, delegate(S, RICH, OTHER, 100), "refused-order"),
    "a delegation of dust": (S, delegate(S, RICH, MINER, STAKE_MIN - 1), "refused-order"),
    "a delegation not owned": (S, delegate(S, RICH, MINER, START), "insufficient-funds"),
    "a delegation too many": (
        fill(S, "delegations", orders.DELEGATIONS_MAX),
        delegate(S, RICH, MINER, 100),
        "refused-order",
    ),
    "more back than is there": (BACKED, undelegate(BACKED, RICH, MINER, 101), "insufficient-funds"),
    "of another's stake": (BACKED, undelegate(BACKED, OTHER, MINER, 50), "insufficient-funds"),
    "dust left behind": (BACKED, undelegate(BACKED, RICH, MINER, 95), "refused-order"),
    "an unbonding too many": (UNBONDING, undelegate(UNBONDING, RICH, MINER, 10), "refused-order"),
    "not in jail": (REGISTERED, unjail(REGISTERED, RICH), "refused-order"),
    "no candidate to leave jail": (S, unjail(S, RICH), "refused-order"),
}


@pytest.mark.parametrize("fault", REFUSALS)
def test_each_fault_of_an_order_has_its_code(fault: str) -> None:
    """What an order does wrong is told by its code; it costs nothing, since no block carries it."""
    state, raw, code = REFUSALS[fault]
    with pytest.raises(InvalidMessage) as refused:
        do(state, raw)
    assert refused.value.code == code
    assert select_orders(state, open_all([raw], state.chain)) == ()


def test_full_tables_refuse_only_what_makes_them_longer() -> None:
    """With accounts and delegations full, existing ones are still paid, raised, and taken back."""
    state = do(S, delegate(S, RICH, MINER, 100))
    others = tuple(
        replace(state.accounts[0], address=Address(i.to_bytes(20, "big"))) for i in range(orders.ACCOUNTS_MAX)
    )
    full = replace(state, accounts=tuple(sorted((*others, *state.accounts), key=lambda a: a.address)))
    with pytest.raises(InvalidMessage, match="already 4096 accounts"):
        do(full, transfer(full, RICH, NEW, 100))
    assert get_balance(do(full, transfer(full, RICH, OTHER, 100)), OTHER.address) == START + 100
    more = tuple(replace(state.delegations[0], delegator=a.address) for a in others)
    full = replace(
        state, delegations=tuple(sorted((*more, *state.delegations), key=lambda d: (d.delegator, d.candidate)))
    )
    raised = do(full, delegate(full, RICH, MINER, 10))
    assert get_delegation(raised, RICH.address, MINER.address) == 110
    assert get_delegation(do(raised, undelegate(raised, RICH, MINER, 110)), RICH.address, MINER.address) == 0


def test_one_account_cannot_keep_the_others_stake_bonded() -> None:
    """Whoever has as many unbondings as are allowed stands in nobody else's way, and gets more once they are paid."""
    state = do(UNBONDING, delegate(UNBONDING, OTHER, MINER, 100))
    assert len(do(state, undelegate(state, OTHER, MINER, 100)).unbondings) == UNBONDINGS_PER_ACCOUNT_MAX + 1
    paid = mature(process_election(state), -1)
    assert len(do(paid, undelegate(paid, RICH, MINER, 10)).unbondings) == 1


# -------------------------------------------------------------------------------------------- in blocks


def apply_orders(state: ChainState, listed: tuple[bytes, ...]) -> None:
    """Apply a block with any list of orders, its header right except for what follows from them."""
    block, _ = build_block(state, state.validators[0].address, ())
    body = Body((), listed, None)
    apply_block(state, replace_header(block, body_root=compute_body_root(body)), encode_struct(body))


def test_a_block_carries_many_orders_of_one_sender_in_sequence() -> None:
    """Orders are carried out by sender and sequence, whatever order they came in; a gap stops only what is behind."""
    driver = StakeDriver(CHAIN)
    state = driver.state
    own = [transfer(state, RICH, OTHER, 10 + i, ahead=i) for i in (0, 1, 2)]
    late = transfer(state, RICH, OTHER, 10, ahead=4)
    waiting = [late, *own[::-1], delegate(state, OTHER, MINER, 50)]
    chosen = [said.raw for said in select_orders(state, open_all(waiting, state.chain))]
    assert set(chosen) == {*own, delegate(state, OTHER, MINER, 50)}
    driver.extend(orders=chosen[::-1])
    assert driver.state.accounts_by_address[RICH.address].sequence == 3


def test_orders_in_another_order_or_twice_are_no_block() -> None:
    """A body whose orders do not strictly rise by sender and sequence is refused."""
    driver = StakeDriver(CHAIN)
    state = driver.state
    first, second = (transfer(state, RICH, OTHER, 10, ahead=i) for i in (0, 1))
    for listed in ((second, first), (first, first)):
        with pytest.raises(InvalidBlock, match="order"):
            apply_orders(driver.state, listed)


def test_a_block_of_too_many_orders_is_refused() -> None:
    """A proposer takes at most so many, and a block with one more is no block."""
    chain = build_stake_chain(powers=[100] * 4)
    driver = StakeDriver(chain)
    many = [transfer(driver.state, chain.holders[0], chain.holders[1], 1, ahead=i) for i in range(ORDERS_MAX + 1)]
    assert len(select_orders(driver.state, open_all(many, chain.id))) == ORDERS_MAX
    with pytest.raises(InvalidBlock, match="too many"):
        apply_orders(driver.state, tuple(many))


def test_orders_alone_do_not_use_up_the_devices_time() -> None:
    """Blocks for the sake of orders before the first commitment leave the phase where it is, however many come."""
    driver = StakeDriver(CHAIN)
    driver.extend()
    for _ in range(3 * driver.state.params.phase_heights_max):
        driver.order(RICH, Transfer, OTHER.public_key, 10)
    assert (driver.state.round.phase, driver.state.round.heights) == (Phase.COMMIT, 0)
    driver.run_round()
    assert driver.state.round.number == 2


def test_what_unbonds_is_paid_by_the_settlement_after_it_is_due() -> None:
    """Only block time pays: rounds go by and nothing is paid; once the clock is there the next settlement does."""
    driver = StakeDriver(build_stake_chain(order_fee=FEE, epoch_rounds=1))
    driver.order(RICH, Delegate, MINER.address, 100)
    driver.order(RICH, Undelegate, MINER.address, 100)
    driver.run_round()
    due = driver.state.unbondings[0].due_ms
    assert due is not None
    driver.go_to(Phase.SETTLE)
    before = get_balance(driver.state, RICH.address)
    driver.extend(clock_ms=due)
    assert driver.state.unbondings and get_balance(driver.state, RICH.address) == before, "no settlement yet"
    driver.finish_round()
    assert not driver.state.unbondings and get_balance(driver.state, RICH.address) == before + 100


def test_registration_needs_a_sequence_of_its_own() -> None:
    """The same signed order cannot be carried out twice, in one block or in two."""
    driver = StakeDriver(CHAIN)
    raw = seal_order(driver.state, RICH, Register, 0, 100)
    driver.extend(orders=[raw])
    assert select_orders(driver.state, open_all([raw], CHAIN.id)) == ()
