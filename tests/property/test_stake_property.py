"""Any run of orders, rounds and offences: money is conserved, somebody can always sign, and a replay agrees."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from flchain.base.crypto import Identity
from flchain.base.types import SHARE_ALL
from flchain.ledger.state import build_genesis_state, compute_validators_hash, get_delegation, get_owned
from flchain.ledger.state_tree import compute_state_root
from flchain.rules.blocks import apply_block, select_orders
from flchain.wire.messages import Delegate, Phase, Register, Transfer, Undelegate, Unjail
from tests.support.builders.chain import BuiltChain, build_identity, make_scores, open_all
from tests.support.builders.stake import StakeDriver, accuse, build_stake_chain, seal_order

RULES: dict[str, Any] = {
    "epoch_rounds": 2, "jail_rounds": 1, "unbonding_s": 2, "trusting_s": 1, "bond_min": 20, "stake_min": 5,
    "order_fee": 2, "reward_for_scores": 400, "slash_bp": 1_500, "mining_weight_bp": 3_000,
}  # fmt: skip
CHAINS = [
    build_stake_chain(powers=[100, 90, 60, 50], seats=4, power_cap_bp=3_000, **RULES),
    build_stake_chain(miners=1, powers=[100], devices=1, seats=3, power_cap_bp=4_000, **RULES),
    build_stake_chain(miners=5, powers=[500, 20, 20, 20, 20], seats=5, power_cap_bp=3_333, **RULES),
]
STRANGER = build_identity(9, 9)
AMOUNTS = st.integers(1, 60) | st.integers(1, 1_200)
NUMBERS = st.integers(0, 31)


class StakeMachine(RuleBasedStateMachine):
    """Blocks of orders by anybody about anything, right or wrong, between and within rounds."""

    @initialize(chain=st.sampled_from(CHAINS))
    def begin(self, chain: BuiltChain) -> None:
        self.chain: BuiltChain = chain
        self.driver = StakeDriver(chain)
        self.people = (*chain.miners, *chain.devices, STRANGER)

    def pick(self, number: int) -> Identity:
        return self.people[number % len(self.people)]

    def pick_miner(self, number: int) -> Identity:
        return self.chain.miners[number % len(self.chain.miners)]

    def send(self, *raws: bytes, later_ms: int = 0) -> None:
        state = self.driver.state
        chosen = select_orders(state, open_all(raws, state.chain))
        self.driver.extend(orders=[said.raw for said in chosen], clock_ms=state.time_ms + later_ms)

    @rule(sender=NUMBERS, to=NUMBERS, amount=AMOUNTS)
    def transfer(self, sender: int, to: int, amount: int) -> None:
        key = self.pick(to).public_key
        self.send(seal_order(self.driver.state, self.pick(sender), Transfer, key, amount))

    @rule(sender=NUMBERS, amount=AMOUNTS, commission=st.integers(0, 10_000))
    def register(self, sender: int, amount: int, commission: int) -> None:
        self.send(seal_order(self.driver.state, self.pick_miner(sender), Register, commission, amount))

    @rule(sender=NUMBERS, to=NUMBERS, amount=AMOUNTS)
    def delegate(self, sender: int, to: int, amount: int) -> None:
        candidate = self.pick_miner(to).address
        self.send(seal_order(self.driver.state, self.pick(sender), Delegate, candidate, amount))

    @rule(sender=NUMBERS, to=NUMBERS, amount=AMOUNTS, is_all=st.booleans())
    def undelegate(self, sender: int, to: int, amount: int, is_all: bool) -> None:
        state, delegator, candidate = self.driver.state, self.pick(sender), self.pick_miner(to).address
        own = get_delegation(state, delegator.address, candidate)
        self.send(seal_order(state, delegator, Undelegate, candidate, own if is_all and own else amount))

    @rule(sender=NUMBERS)
    def unjail(self, sender: int) -> None:
        self.send(seal_order(self.driver.state, self.pick_miner(sender), Unjail))

    @rule(accuser=NUMBERS, guilty=NUMBERS, back=st.integers(0, 3))
    def accuse(self, accuser: int, guilty: int, back: int) -> None:
        height = max(1, self.driver.state.height + 1 - back)
        self.send(accuse(self.driver.state, self.pick(accuser), self.pick_miner(guilty), height))

    @rule(senders=st.lists(st.tuples(NUMBERS, NUMBERS, AMOUNTS), max_size=6), later_ms=st.integers(0, 3_000))
    def crowd(self, senders: list[tuple[int, int, int]], later_ms: int) -> None:
        """Many orders in one block, some time later; of one sender's only those in sequence count."""
        state = self.driver.state
        raws = [
            seal_order(state, self.pick(s), Delegate, self.pick_miner(to).address, amount, ahead=i % 2)
            for i, (s, to, amount) in enumerate(senders)
        ]
        self.send(*raws, later_ms=later_ms)

    @rule(lies=st.dictionaries(NUMBERS, st.integers(0, 10_000), max_size=2))
    def finish_round(self, lies: dict[int, int]) -> None:
        """Go on to the end of the round; a few validators say of everything what they like."""
        driver = self.driver
        if driver.state.round.phase < Phase.SCORE:
            driver.go_to(Phase.SCORE)
        words = {i: make_scores(driver.state) for i in driver.seated}
        for number, lie in lies.items():
            seat = driver.seated[number % len(driver.seated)]
            everything = [u.sender for u in driver.state.round.reveals] + list({d.home for d in driver.state.devices})
            words[seat] = make_scores(driver.state, scores=dict.fromkeys(everything, lie))
        driver.score_commit(words)
        driver.score_reveal(words)

    @invariant()
    def nothing_is_made_or_lost(self) -> None:
        """Balances, stake and unbondings are what was minted less what was burned, and none is negative."""
        state = self.driver.state
        assert get_owned(state) == state.minted - state.burned
        assert all(account.balance >= 0 for account in state.accounts)
        assert all(delegation.amount > 0 for delegation in state.delegations)
        assert all(unbonding.amount > 0 for unbonding in state.unbondings)
        assert all(before.burned <= after.burned for before, after in pairwise(self.driver.states[-2:]))

    @invariant()
    def tables_are_sorted(self) -> None:
        """One order of each table, without repeats, so that every node has the same root."""
        state = self.driver.state
        for table in (state.accounts, state.devices, state.candidates):
            addresses = [item.address for item in table]
            assert addresses == sorted(set(addresses))
        keys = [(item.delegator, item.candidate) for item in state.delegations]
        assert keys == sorted(set(keys))
        dues = [(item.due_ms is None, item.due_ms or 0) for item in state.unbondings]
        assert dues == sorted(dues)
        known = {account.address for account in state.accounts}
        owners = {d.delegator for d in state.delegations} | {u.delegator for u in state.unbondings}
        assert owners <= known
        assert {candidate.address for candidate in state.candidates} <= known

    @invariant()
    def somebody_can_sign_and_nobody_alone_more_than_the_cap(self) -> None:
        """There is a validator; no power is above the cap unless too few share it, and then all are equal."""
        state = self.driver.state
        powers = [validator.power for validator in state.validators]
        assert powers and len(powers) <= state.params.seats
        if len(powers) * state.params.power_cap_bp <= SHARE_ALL:
            assert len(set(powers)) == 1
        else:
            assert max(powers) * SHARE_ALL <= state.params.power_cap_bp * sum(powers)
        if len(powers) > 1:
            assert not any(validator.is_jailed for validator in state.validators)
        assert all(0 <= c.reputation <= 10_000 and 1 <= c.knowledge <= 10_000 for c in state.candidates)
        assert all(c.priority == 0 for c in state.candidates if not c.power)

    def teardown(self) -> None:
        """From the genesis the blocks alone give every root, and each header names the sets around it."""
        if not hasattr(self, "driver"):
            return
        state = build_genesis_state(self.chain.genesis, self.chain.model)
        for block in self.driver.blocks:
            assert block.header.validators_hash == compute_validators_hash(state.validators)
            _, state = apply_block(state, block.header_bytes, block.body_bytes)
            assert block.header.next_validators_hash == compute_validators_hash(state.validators)
            assert block.header.state_root == compute_state_root(state)
        assert compute_state_root(state) == compute_state_root(self.driver.state)


TestStake = StakeMachine.TestCase
TestStake.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
