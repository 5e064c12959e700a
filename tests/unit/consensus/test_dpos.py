"""Delegated proof of stake: who is elected, what power stake gives, how a reward is shared, what slashing leaves."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flchain.base.types import SHARE_ALL, Address, BasisPoints, Power, Round, Stake
from flchain.consensus.dpos import STAKE_BITS_MAX, cap_powers, compute_slashed, elect, scale_stakes
from flchain.consensus.proposer import Priorities, advance, compute_pok_weight
from flchain.incentives import split_reward
from flchain.ledger.state import ChainState, Delegation, Validator, compute_elected, compute_validators_hash
from flchain.light.trust import decode_sets, encode_sets
from flchain.rules.blocks import build_block
from tests.support.builders.chain import build_chain

STAKES = st.lists(st.integers(1, 2**40) | st.integers(1, 20), min_size=1, max_size=64)
SHARES = st.integers(1, SHARE_ALL)


def name(number: int) -> Address:
    return Address(bytes([number]) * 20)


# ------------------------------------------------------------------------------------------- elections


def test_the_seats_go_to_the_most_stake() -> None:
    """The K largest stakes win, and are listed by address whatever their stake."""
    stakes = [(name(1), Stake(5)), (name(4), Stake(9)), (name(2), Stake(7)), (name(3), Stake(6))]
    assert elect(stakes, 2) == ((name(2), Stake(7)), (name(4), Stake(9)))
    assert elect(stakes, 9) == tuple(sorted(stakes))


def test_of_equal_stakes_the_lower_address_wins() -> None:
    """A tie has one outcome, in whatever order the candidates come."""
    stakes = [(name(i), Stake(5)) for i in (3, 1, 2)]
    assert elect(stakes, 2) == elect(stakes[::-1], 2) == ((name(1), Stake(5)), (name(2), Stake(5)))


@given(st.dictionaries(st.binary(min_size=20, max_size=20), st.integers(1, 30), max_size=30), st.integers(1, 12))
def test_nobody_outside_has_more_stake_than_anybody_inside(stakes: dict[bytes, int], seats: int) -> None:
    """Each seat is filled while there are candidates, and the poorest inside is not poorer than the richest outside."""
    listed = [(Address(address), Stake(stake)) for address, stake in stakes.items()]
    seated = elect(listed, seats)
    outside = [stake for address, stake in listed if (address, stake) not in seated]
    assert len(seated) == min(seats, len(listed))
    assert list(seated) == sorted(set(seated))
    assert not outside or not seated or max(outside) <= min(stake for _, stake in seated)


def powers_of(state: ChainState) -> list[int]:
    return [candidate.power for candidate in compute_elected(state)]


def with_candidate(state: ChainState, index: int, **changes: object) -> ChainState:
    changed = [replace(c, **changes) if i == index else c for i, c in enumerate(state.candidates)]  # type: ignore[arg-type]
    return replace(state, candidates=tuple(changed))


def test_without_the_bond_nobody_is_elected() -> None:
    """Others' stake does not replace one's own: below bond_min a candidate is out, exactly at it it is in."""
    state = build_chain(powers=[10, 9, 10, 10], bond_min=10).state
    poor = state.candidates[1].address
    backed = replace(state, delegations=(*state.delegations, Delegation(name(9), poor, Stake(1_000))))
    assert powers_of(backed) == [10, 0, 10, 10]


def test_who_is_in_jail_is_not_elected() -> None:
    """A jailed candidate stays out, whatever its stake and also after its term, until it has asked."""
    state = build_chain(powers=[50, 10, 10, 10]).state
    assert powers_of(with_candidate(state, 0, is_jailed=True, jailed_until=Round(1))) == [0, 10, 10, 10]
    assert powers_of(with_candidate(state, 0, jailed_until=Round(99))) == [50, 10, 10, 10]


def test_with_nobody_electable_the_seats_stay() -> None:
    """A chain is never without validators: if all are in jail, those who have seats keep them and their power."""
    state = build_chain(powers=[4, 3, 2, 1], seats=3).state
    assert powers_of(state) == [4, 3, 2, 0]
    jailed = replace(state, candidates=tuple(replace(c, is_jailed=True) for c in state.candidates))
    assert compute_elected(jailed) == jailed.candidates


def test_delegated_stake_elects_and_gives_power() -> None:
    """Power follows all the stake behind a candidate, not its bond alone."""
    state = build_chain(powers=[10, 10, 10, 10], seats=2).state
    last = state.candidates[3].address
    backed = replace(state, delegations=(*state.delegations, Delegation(name(9), last, Stake(5))))
    assert powers_of(backed) == [10, 0, 0, 15]


def test_power_stays_an_integer_of_the_wire() -> None:
    """However much is delegated, powers can be told to devices and priorities kept in a state that others can read."""
    state = build_chain(powers=[10, 10, 10, 10]).state
    much = tuple(
        Delegation(name(n), state.candidates[i].address, Stake(2**53)) for n in range(9, 250) for i in range(3)
    )
    state = replace(state, delegations=(*state.delegations, *much))
    powers = powers_of(state)
    assert len(set(powers[:3])) == 1 and powers[3] == 1
    weights = tuple((name(i), compute_pok_weight(Power(power), SHARE_ALL)) for i, power in enumerate(powers))
    priorities: Priorities = ()
    for _ in range(50):
        priorities, _ = advance(priorities, weights, 1)
        assert all(abs(priority) < 2**63 for _, priority in priorities)
    same = tuple(Validator(c.address, c.public_key, Power(p)) for c, p in zip(state.candidates, powers, strict=True))
    block = build_block(state, state.candidates[0].address, ())[0]
    named = compute_validators_hash(same)
    header = msgspec.structs.replace(block.header, validators_hash=named, next_validators_hash=named)
    assert decode_sets(header, encode_sets(same, same)) == (same, same)


@given(st.lists(st.integers(1, 2**70), min_size=1, max_size=64))
def test_stakes_are_scaled_only_if_they_must(stakes: list[int]) -> None:
    """Usual stakes are power as they are; enormous ones keep their order, and nearly their shares."""
    scaled = scale_stakes(stakes)
    assert min(scaled) >= 1 and sum(scaled) <= 2**STAKE_BITS_MAX + len(stakes)
    if sum(stakes) < 2**STAKE_BITS_MAX:
        assert list(scaled) == stakes
    for stake, units in zip(stakes, scaled, strict=True):
        assert abs(units / sum(scaled) - stake / sum(stakes)) < 1e-9


def test_a_candidate_that_loses_its_seat_has_no_power() -> None:
    """After an election only the seated have power; standing in other things stays."""
    state = with_candidate(build_chain(powers=[4, 3, 2, 1]).state, 3, knowledge=BasisPoints(77))
    after = compute_elected(replace(state, params=build_chain(seats=3).genesis.params))
    assert [c.power for c in after] == [4, 3, 2, 0]
    assert after[3].knowledge == 77


# --------------------------------------------------------------------------------------------- the cap


@given(STAKES, SHARES)
def test_no_power_is_above_the_cap(stakes: list[int], cap_bp: int) -> None:
    """No validator holds more than the cap of all power; where that cannot be, all are equal. Nobody has none."""
    powers = cap_powers(stakes, cap_bp)
    assert len(powers) == len(stakes)
    assert min(powers) >= 1
    if len(stakes) * cap_bp <= SHARE_ALL:
        assert len(set(powers)) == 1
    else:
        assert max(powers) * SHARE_ALL <= cap_bp * sum(powers)
        assert all(power <= stake for power, stake in zip(powers, stakes, strict=True))


@given(STAKES, SHARES)
def test_more_stake_is_never_less_power(stakes: list[int], cap_bp: int) -> None:
    """Power is in the order of stake, and equal stakes have equal power."""
    ranked = sorted(zip(stakes, cap_powers(stakes, cap_bp), strict=True))
    assert [power for _, power in ranked] == sorted(power for _, power in ranked)
    assert len(dict(ranked)) == len(set(ranked))


@given(STAKES, SHARES, st.integers(0, 63), st.integers(1, 2**40))
def test_who_adds_stake_loses_no_power(stakes: list[int], cap_bp: int, place: int, more: int) -> None:
    """To stake more never lowers one's own power."""
    place %= len(stakes)
    richer = [stake + more * (i == place) for i, stake in enumerate(stakes)]
    assert cap_powers(richer, cap_bp)[place] >= cap_powers(stakes, cap_bp)[place]


@given(STAKES, SHARES)
def test_the_cap_cuts_no_more_than_it_must(stakes: list[int], cap_bp: int) -> None:
    """One unit more for those who are cut off would break the cap; capping again changes nothing."""
    powers = cap_powers(stakes, cap_bp)
    assert cap_powers(powers, cap_bp) == powers
    if len(stakes) * cap_bp > SHARE_ALL and list(powers) != stakes:
        level = max(powers) + 1
        raised = [min(stake, level) for stake in stakes]
        assert max(raised) * SHARE_ALL > cap_bp * sum(raised)


@pytest.mark.parametrize(
    ("stakes", "cap_bp", "powers"),
    [
        ((5, 5, 5, 5), 10_000, (5, 5, 5, 5)),
        ((97, 1, 1, 1), 3_000, (1, 1, 1, 1)),
        ((60, 30, 20, 10), 3_333, (29, 29, 20, 10)),
        ((9, 5, 1), 3_333, (5, 5, 5)),
        ((7,), 3_000, (7,)),
        ((1_000_000, 1), 5_000, (500_000, 500_000)),
    ],
)
def test_capped_powers(stakes: tuple[int, ...], cap_bp: int, powers: tuple[int, ...]) -> None:
    """Worked cases: no cap, one giant, two above, too few for the cap, one alone, exactly too few."""
    assert cap_powers(stakes, cap_bp) == powers


# --------------------------------------------------------------------------------------------- rewards


@given(
    st.integers(0, 2**50),
    st.integers(0, SHARE_ALL),
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 2**40)), min_size=1, max_size=12),
)
def test_a_reward_is_shared_to_the_last_unit(reward: int, commission: int, backers: list[tuple[int, int]]) -> None:
    """The parts add up to the reward, none is negative, and the validator gets at least its commission."""
    listed = [(name(number), Stake(amount)) for number, amount in backers]
    parts = split_reward(reward, name(0), BasisPoints(commission), listed)
    assert sum(parts.values()) == reward
    assert min(parts.values()) >= 0
    assert parts[name(0)] >= reward * commission // SHARE_ALL
    assert set(parts) <= {name(number) for number, _ in backers} | {name(0)}


def test_commission_first_then_by_stake() -> None:
    """Of 1,000 at 10 %: 100 to the validator, the rest by stake, its own included; odd units to the validator."""
    backers = [(name(0), Stake(10)), (name(1), Stake(20)), (name(2), Stake(40))]
    parts = split_reward(1_000, name(0), BasisPoints(1_000), backers)
    assert parts == {name(0): 100 + 128 + 1, name(1): 257, name(2): 514}


@pytest.mark.parametrize(("commission", "own"), [(0, 250), (10_000, 1_000)])
def test_the_ends_of_commission(commission: int, own: int) -> None:
    """With no commission everybody is paid alike by stake; with all of it delegators get nothing."""
    backers = [(name(0), Stake(1)), (name(1), Stake(3))]
    assert split_reward(1_000, name(0), BasisPoints(commission), backers)[name(0)] == own


# --------------------------------------------------------------------------------------------- slashing


@given(st.integers(1, 2**53), st.integers(0, SHARE_ALL))
def test_slashing_takes_at_least_the_share(amount: int, slash_bp: int) -> None:
    """What is left is never negative, never more than it was, and rounding favours nobody who is slashed."""
    left = compute_slashed(Stake(amount), BasisPoints(slash_bp))
    assert 0 <= left <= amount
    assert (amount - left) * SHARE_ALL >= amount * slash_bp
    assert (slash_bp < SHARE_ALL or left == 0) and (slash_bp > 0 or left == amount)
