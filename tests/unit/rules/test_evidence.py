"""Evidence of signing twice: what proves an offence, what it costs, and everything that proves none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flchain.base.errors import InvalidMessage
from flchain.base.types import Height, Round
from flchain.ledger.state import (
    Candidate,
    ChainState,
    compute_elected,
    find_candidate,
    get_delegation,
    get_owned,
    get_stake,
)
from flchain.rules.orders import process_election, process_matured, process_order, verify_order
from flchain.wire.envelope import open_envelope, seal
from flchain.wire.messages import Evidence, Proposal, Undelegate, Unjail, Vote
from tests.support.builders.chain import build_chain, build_identity
from tests.support.builders.stake import (
    STRANGER_HASH,
    accuse,
    build_stake_chain,
    delegate,
    register,
    seal_order,
    seal_vote,
    undelegate,
)

JAIL_ROUNDS, WINDOW = 4, 20
CHAIN = build_stake_chain(
    powers=[100, 200, 300, 400], slash_bp=1_000, jail_rounds=JAIL_ROUNDS, evidence_heights_max=WINDOW
)
GUILTY, INNOCENT, HOLDER = CHAIN.miners[1], CHAIN.miners[2], CHAIN.holders[0]
OTHER_CHAIN = build_chain(seed=2)
HEIGHT = 1


def do(state: ChainState, raw: bytes) -> ChainState:
    envelope = open_envelope(raw, state.chain)
    return process_order(state, verify_order(state, envelope).message, envelope.sender)


def get_guilty(state: ChainState) -> Candidate:
    candidate = find_candidate(state, GUILTY.address)
    assert candidate is not None
    return candidate


def at(state: ChainState, height: int, round_: int = 1) -> ChainState:
    """The state as it would be at another height and round."""
    return replace(state, height=Height(height), round=replace(state.round, number=Round(round_)))


def proposal(block_hash: bytes, view: int = 0, valid_view: int = -1, height: int = HEIGHT) -> bytes:
    return seal(Proposal(height, view, valid_view, block_hash), CHAIN.id, GUILTY)


def vote(block_hash: bytes | None, view: int = 0, step: int = 2, height: int = HEIGHT) -> bytes:
    return seal(Vote(height, view, step, block_hash), CHAIN.id, GUILTY)


def evidence(*words: bytes, height: int = HEIGHT) -> bytes:
    return seal(Evidence(height, *words), CHAIN.id, HOLDER)


# ------------------------------------------------------------------------------------------ punishment


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (vote(None), vote(STRANGER_HASH)),
        (vote(STRANGER_HASH, step=1), vote(None, step=1)),
        (vote(STRANGER_HASH), vote(b"t" * 32)),
        (proposal(STRANGER_HASH), proposal(b"t" * 32)),
        (proposal(STRANGER_HASH, view=2), proposal(STRANGER_HASH, view=2, valid_view=1)),
    ],
)
def test_two_words_that_exclude_each_other_are_punished(first: bytes, second: bytes) -> None:
    """Two votes of one step, or two proposals of one view, cost the seat, a share of the stake, and time in jail."""
    state = do(CHAIN.state, evidence(first, second))
    guilty = get_guilty(state)
    assert (guilty.power, guilty.is_jailed, guilty.jailed_until) == (0, True, 1 + JAIL_ROUNDS)
    assert get_stake(state, GUILTY.address) == 180
    assert state.burned == 20
    assert get_owned(state) == state.minted - state.burned
    assert [v.address for v in state.validators] == [k.address for k in CHAIN.miners[:4] if k is not GUILTY]


def test_evidence_costs_the_accuser_nothing() -> None:
    """Anybody with an account may submit it, with no fee and no sequence number."""
    chain = build_stake_chain(powers=[100] * 4, order_fee=5)
    state = do(chain.state, accuse(chain.state, chain.miners[0], chain.miners[1]))
    assert state.accounts == chain.state.accounts


def test_delegators_and_unbonding_stake_are_slashed_too() -> None:
    """All that is behind the guilty loses the same share, also what was on its way back; nothing else loses any."""
    state = do(CHAIN.state, delegate(CHAIN.state, HOLDER, GUILTY, 100))
    state = do(state, delegate(state, HOLDER, INNOCENT, 100))
    state = do(state, undelegate(state, HOLDER, GUILTY, 55))
    state = do(state, undelegate(state, HOLDER, INNOCENT, 50))
    state = do(state, accuse(state, CHAIN.miners[0], GUILTY))
    assert get_delegation(state, HOLDER.address, GUILTY.address) == 40  # of 45, rounded down
    assert get_delegation(state, HOLDER.address, INNOCENT.address) == 50
    assert [item.amount for item in state.unbondings] == [49, 50]
    assert state.burned == 20 + 5 + 6
    state = process_election(state)
    due = state.unbondings[-1].due_ms
    assert due is not None
    paid = process_matured(replace(state, time_ms=due))
    account = paid.accounts_by_address[HOLDER.address]
    assert account.balance == 1_000 - 200 + 49 + 50


def test_leaving_before_the_evidence_comes_does_not_help() -> None:
    """Who signs twice and takes all stake back at once is slashed all the same while it unbonds."""
    state = do(CHAIN.state, seal_order(CHAIN.state, GUILTY, Undelegate, GUILTY.address, 200))
    state = do(state, accuse(state, HOLDER, GUILTY))
    assert [item.amount for item in state.unbondings] == [180]


def test_slashing_everything_leaves_no_empty_entries() -> None:
    """At 100 % nothing is left behind the guilty, and its entries are gone."""
    chain = build_stake_chain(powers=[100] * 4, slash_bp=10_000)
    state = do(chain.state, accuse(chain.state, chain.holders[0], chain.miners[1]))
    assert all(d.candidate != chain.miners[1].address for d in state.delegations)
    assert state.burned == 100


def test_the_last_validator_keeps_its_seat() -> None:
    """A chain is never without validators: the only one is slashed and jailed, and goes on until another is elected."""
    chain = build_stake_chain(miners=1, powers=[100], slash_bp=1_000)
    state = do(chain.state, accuse(chain.state, chain.holders[0], chain.miners[0]))
    only = state.validators[0]
    assert (only.power, only.is_jailed) == (100, True)
    assert get_stake(state, only.address) == 90
    assert compute_elected(state) == state.candidates


def test_when_all_sign_twice_one_is_left() -> None:
    """One after the other is jailed; the last keeps its seat."""
    state = CHAIN.state
    for miner in CHAIN.miners[:4]:
        state = do(state, accuse(state, HOLDER, miner))
    assert [v.address for v in state.validators] == [CHAIN.miners[3].address]
    assert all(candidate.is_jailed for candidate in state.candidates)


def test_with_a_seat_less_nobody_is_above_the_cap() -> None:
    """When a seat is lost in mid-epoch the others' shares grow: they are capped anew at once."""
    chain = build_stake_chain(miners=5, powers=[100, 100, 100, 70, 60], power_cap_bp=3_000)
    state = do(chain.state, accuse(chain.state, chain.holders[0], chain.miners[0]))
    powers = [v.power for v in state.validators]
    assert powers == [97, 97, 70, 60] and max(powers) * 10 <= 3 * sum(powers)


# ---------------------------------------------------------------------------------------- what is none

STRANGER = build_identity(9, 9)
JUDGED = do(CHAIN.state, accuse(CHAIN.state, HOLDER, GUILTY))
LATER = at(CHAIN.state, WINDOW + 5)

REFUSALS: dict[str, tuple[ChainState, bytes, str]] = {
    "the same vote twice": (CHAIN.state, evidence(vote(STRANGER_HASH), vote(STRANGER_HASH)), "bad-evidence"),
    "votes of two views": (CHAIN.state, evidence(vote(None), vote(STRANGER_HASH, view=1)), "bad-evidence"),
    "a prevote and a precommit": (CHAIN.state, evidence(vote(None, step=1), vote(STRANGER_HASH)), "bad-evidence"),
    "a vote and a proposal": (CHAIN.state, evidence(vote(None), proposal(STRANGER_HASH)), "bad-evidence"),
    "votes of two heights": (CHAIN.state, evidence(vote(None), vote(STRANGER_HASH, height=2)), "bad-evidence"),
    "of another height than it says": (
        CHAIN.state,
        evidence(vote(None), vote(STRANGER_HASH), height=0),
        "bad-evidence",
    ),
    "of two validators": (
        CHAIN.state,
        evidence(vote(None), seal_vote(CHAIN.state, INNOCENT, STRANGER_HASH)),
        "bad-evidence",
    ),
    "of a stranger": (
        CHAIN.state,
        evidence(*(seal_vote(CHAIN.state, STRANGER, h) for h in (None, STRANGER_HASH))),
        "bad-evidence",
    ),
    "of another chain": (
        CHAIN.state,
        evidence(*(seal(Vote(HEIGHT, 0, 2, h), OTHER_CHAIN.id, GUILTY) for h in (None, STRANGER_HASH))),
        "bad-evidence",
    ),
    "a forged vote": (
        CHAIN.state,
        evidence(vote(None), vote(STRANGER_HASH)[:-1] + bytes([vote(STRANGER_HASH)[-1] ^ 1])),
        "bad-evidence",
    ),
    "no messages": (CHAIN.state, evidence(b"", b"\xff"), "bad-evidence"),
    "orders, not votes": (
        CHAIN.state,
        evidence(*(seal_order(CHAIN.state, GUILTY, Unjail, ahead=i) for i in (0, 1)), height=0),
        "bad-evidence",
    ),
    "too old": (LATER, accuse(CHAIN.state, HOLDER, GUILTY, 4), "wrong-round"),
    "of a height to come": (CHAIN.state, accuse(CHAIN.state, HOLDER, GUILTY, 2), "wrong-round"),
    "judged already": (JUDGED, accuse(CHAIN.state, CHAIN.miners[0], GUILTY), "wrong-round"),
    "older than the last judgement": (at(JUDGED, 9), accuse(CHAIN.state, HOLDER, GUILTY, 1), "wrong-round"),
    "by nobody known": (CHAIN.state, accuse(CHAIN.state, STRANGER, GUILTY), "unknown-sender"),
    "with a mis-signed frame": (
        CHAIN.state,
        accuse(CHAIN.state, HOLDER, GUILTY)[:-1] + bytes([accuse(CHAIN.state, HOLDER, GUILTY)[-1] ^ 1]),
        "bad-signature",
    ),
}


@pytest.mark.parametrize("fault", REFUSALS)
def test_what_proves_no_offence_punishes_nobody(fault: str) -> None:
    """Anything but two exclusive words of one candidate, of this time and not judged yet, is refused by its code."""
    state, raw, code = REFUSALS[fault]
    with pytest.raises(InvalidMessage) as refused:
        do(state, raw)
    assert refused.value.code == code


def test_the_oldest_offence_that_counts() -> None:
    """Exactly evidence_heights_max heights ago still counts."""
    state = at(CHAIN.state, WINDOW + 5)
    assert get_guilty(do(state, accuse(state, HOLDER, GUILTY, 5))).is_jailed


# ------------------------------------------------------------------------------------------------ jail


def test_in_jail_a_new_offence_is_punished_again() -> None:
    """A later double vote of one in jail slashes once more and lengthens the jail."""
    state = at(JUDGED, 9, round_=3)
    again = do(state, accuse(state, HOLDER, GUILTY, 8))
    assert get_guilty(again).jailed_until == 3 + JAIL_ROUNDS
    assert get_stake(again, GUILTY.address) == 162


def test_jail_ends_on_request_and_not_too_early() -> None:
    """Before its time is over a request is refused; then it makes electable, and the next election decides."""
    early = at(JUDGED, 9, round_=JAIL_ROUNDS)
    with pytest.raises(InvalidMessage, match="in jail until") as refused:
        do(early, seal_order(early, GUILTY, Unjail))
    assert refused.value.code == "refused-order"
    state = at(JUDGED, 9, round_=1 + JAIL_ROUNDS)
    freed = do(state, seal_order(state, GUILTY, Unjail))
    assert (get_guilty(freed).is_jailed, get_guilty(freed).power) == (False, 0)
    powers = {c.address: c.power for c in compute_elected(freed)}
    assert powers[GUILTY.address] == 180
    with pytest.raises(InvalidMessage, match="not in jail"):
        do(freed, seal_order(freed, GUILTY, Unjail))


def test_a_newcomer_cannot_be_judged_for_what_was_before() -> None:
    """Words signed before a registration, on whatever machine, are not held against the candidate."""
    chain = build_stake_chain(powers=[100] * 4)
    state = at(chain.state, 10)
    state = do(state, register(state, chain.holders[0], 100))
    with pytest.raises(InvalidMessage) as refused:
        do(state, accuse(state, chain.miners[0], chain.holders[0], 10))
    assert refused.value.code == "wrong-round"
    punished = do(state, accuse(state, chain.miners[0], chain.holders[0], 11))
    assert get_stake(punished, chain.holders[0].address) == 95
