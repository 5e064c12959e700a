"""Tendermint's rules one by one. "Line n" is Algorithm 1 of arXiv 1807.04938; me is number 0 of 4 equals."""

from __future__ import annotations

import pytest

from flchain.base.types import Height, Millis, Power, View
from flchain.consensus import bft
from flchain.consensus.bft import (
    BftState,
    CastVote,
    Decide,
    Equivocation,
    Propose,
    ScheduleTimeout,
    SendProposal,
    Step,
    Timeout,
    ValidatorSet,
    VoteType,
)
from tests.support.builders.bft import (
    HEIGHT,
    PRECOMMIT,
    PREVOTE,
    A,
    B,
    cast,
    configure,
    feed,
    fire,
    lock_on_a,
    name,
    propose,
    start,
    timers,
    vote,
)


def test_start_waits_for_the_proposer() -> None:
    """Lines 10-13 and 20-21: a validator that does not lead view 0 only schedules timeoutPropose."""
    state, effects = start()
    assert (state.view, state.step) == (0, Step.PROPOSE)
    assert effects == [ScheduleTimeout(fire(Step.PROPOSE), Millis(1000))]


def test_proposer_asks_for_a_value_and_prevotes_it() -> None:
    """Lines 14 and 18-19: the leader asks for a block, sends it as new and prevotes it like anybody."""
    state, effects = start(me=1)
    assert Propose(View(0)) in effects
    state, sent = bft.on_value(state, View(0), A)
    assert sent == (SendProposal(propose()), CastVote(vote(1, PREVOTE, A)))
    assert bft.on_value(state, View(0), B) == (state, ())


def test_late_value_is_dropped() -> None:
    """A value that comes after the leader's own timeoutPropose is not proposed: the leader has prevoted nil."""
    state, effects = start(fire(Step.PROPOSE), me=1)
    assert cast(effects) == [vote(1, PREVOTE, None)]
    assert bft.on_value(state, View(0), A) == (state, ())


def test_value_nobody_asked_for_is_dropped() -> None:
    """A value offered where another leads, or for another view, does nothing."""
    follower, leader = start()[0], start(me=1)[0]
    assert bft.on_value(follower, View(0), A) == (follower, ())
    assert bft.on_value(leader, View(4), A) == (leader, ())


def test_proposer_with_a_valid_value_proposes_it_again() -> None:
    """Lines 15-16: who saw a quorum of prevotes for A proposes A again with the view of that proof of lock."""
    state, _ = start(propose(), vote(1, PREVOTE, A), vote(2, PREVOTE, A), me=3)
    state, effects = feed(state, *(fire(Step.PRECOMMIT, view) for view in range(2)))
    assert state.view == 2
    assert SendProposal(propose(2, A, valid_view=0)) in effects
    assert cast(effects) == [vote(3, PREVOTE, A, 2)]
    assert len(bft.get_certificate_votes(state, View(0), A, PREVOTE)) == 3


def test_valid_new_proposal_is_prevoted() -> None:
    """Lines 22-24 and 27."""
    state, effects = start(propose())
    assert cast(effects) == [vote(0, PREVOTE, A)]
    assert state.step is Step.PREVOTE


def test_invalid_new_proposal_is_prevoted_nil() -> None:
    """Lines 25-27."""
    state, effects = bft.on_proposal(start()[0], propose(), False)
    assert cast(list(effects)) == [vote(0, PREVOTE, None)]
    assert state.step is Step.PREVOTE


def test_lock_refuses_another_new_block_and_takes_the_same() -> None:
    """Line 23: locked on A, a new B gets nil and a new A gets a prevote."""
    assert cast(feed(lock_on_a(), propose(1, B))[1]) == [vote(0, PREVOTE, None, 1)]
    assert cast(feed(lock_on_a(), propose(1, A))[1]) == [vote(0, PREVOTE, A, 1)]


def test_reproposal_waits_for_its_proof_of_lock() -> None:
    """Line 28: B re-proposed with valid view 1 moves nobody before 2f+1 prevotes for B at view 1 are here."""
    state, _ = feed(lock_on_a(), fire(Step.PRECOMMIT, 1))
    state, effects = feed(state, propose(2, B, valid_view=1), vote(1, PREVOTE, B, 1), vote(2, PREVOTE, B, 1))
    assert cast(effects) == []
    state, effects = feed(state, vote(3, PREVOTE, B, 1))
    assert cast(effects) == [vote(0, PREVOTE, B, 2)], "line 29: a newer proof opens the lock of view 0"


def test_older_proof_does_not_open_a_newer_lock() -> None:
    """Lines 29-32: locked on A at view 1, B with a proof of view 0 gets nil."""
    state, _ = start(fire(Step.PRECOMMIT), propose(1, A), vote(1, PREVOTE, A, 1), vote(2, PREVOTE, A, 1))
    assert state.locked_view == 1
    state, _ = feed(state, fire(Step.PRECOMMIT, 1), *(vote(n, PREVOTE, B) for n in (1, 2, 3)))
    assert cast(feed(state, propose(2, B, valid_view=0))[1]) == [vote(0, PREVOTE, None, 2)]
    assert cast(feed(state, propose(2, A, valid_view=0))[1]) == [], "line 28: no proof for A at view 0"


def test_invalid_reproposal_is_prevoted_nil() -> None:
    """Lines 29 and 31-32: a proof of lock does not make an invalid block valid."""
    state, _ = start(fire(Step.PRECOMMIT), *(vote(n, PREVOTE, B) for n in (1, 2, 3)))
    assert cast(list(bft.on_proposal(state, propose(1, B, valid_view=0), False)[1])) == [vote(0, PREVOTE, None, 1)]


def test_any_quorum_of_prevotes_starts_the_timer_once() -> None:
    """Lines 34-35: three prevotes for different things start timeoutPrevote, the fourth does not start it again."""
    state, effects = start(propose(), vote(1, PREVOTE, B))
    assert timers(effects) == [(Step.PROPOSE, 0, 1000)]
    state, effects = feed(state, vote(2, PREVOTE, None), vote(3, PREVOTE, None))
    assert timers(effects) == [(Step.PREVOTE, 0, 400)]


def test_quorum_of_prevotes_locks_and_precommits() -> None:
    """Lines 36-43 at step prevote."""
    state, effects = start(propose(), vote(1, PREVOTE, A), vote(2, PREVOTE, A))
    assert cast(effects) == [vote(0, PREVOTE, A), vote(0, PRECOMMIT, A)]
    assert (state.locked_hash, state.locked_view, state.valid_hash, state.valid_view) == (A, 0, A, 0)
    assert state.step is Step.PRECOMMIT


def test_late_quorum_of_prevotes_makes_valid_but_does_not_lock() -> None:
    """Lines 36 and 42-43 at step precommit: valid value yes, lock and second precommit no."""
    state, _ = start(propose(), vote(1, PREVOTE, A), vote(2, PREVOTE, None), fire(Step.PREVOTE))
    state, effects = feed(state, vote(3, PREVOTE, A))
    assert effects == []
    assert (state.locked_hash, state.locked_view, state.valid_hash, state.valid_view) == (None, -1, A, 0)


def test_quorum_of_prevotes_for_an_invalid_block_does_nothing() -> None:
    """Line 36, valid(v): an invalid block is not locked even if all the others prevote it."""
    state, _ = bft.on_proposal(start()[0], propose(), False)
    state, effects = feed(state, *(vote(n, PREVOTE, A) for n in (1, 2, 3)))
    assert cast(effects) == []
    assert (state.locked_view, state.valid_view) == (-1, -1)


def test_quorum_of_nil_prevotes_is_precommitted_nil() -> None:
    """Lines 44-46."""
    state, effects = start(propose(), *(vote(n, PREVOTE, None) for n in (1, 2, 3)))
    assert cast(effects) == [vote(0, PREVOTE, A), vote(0, PRECOMMIT, None)]
    assert (state.step, state.locked_view) == (Step.PRECOMMIT, -1)


def test_any_quorum_of_precommits_starts_the_timer_once_at_any_step() -> None:
    """Lines 47-48: also at step propose, and only once."""
    state, effects = start(vote(1, PRECOMMIT, A), vote(2, PRECOMMIT, None), vote(3, PRECOMMIT, B))
    assert timers(effects) == [(Step.PROPOSE, 0, 1000), (Step.PRECOMMIT, 0, 400)]
    assert timers(feed(state, propose(), vote(1, PREVOTE, A))[1]) == []


def test_quorum_of_precommits_decides() -> None:
    """Lines 49-51: the block, its view, and a certificate of more than two thirds."""
    votes = [vote(n, t, A) for t in (PREVOTE, PRECOMMIT) for n in (1, 2)]
    state, effects = start(propose(), *votes)
    assert state.decided == Decide(View(0), A)
    assert effects[-1] == Decide(View(0), A)
    assert bft.get_certificate_votes(state, View(0), A) == tuple(vote(n, PRECOMMIT, A) for n in range(3))


def test_decision_of_an_earlier_view() -> None:
    """Line 49, any view r: precommits of view 0 decide a node that is in view 3, also with the proposal last."""
    state, _ = start(*(fire(Step.PRECOMMIT, view) for view in range(3)))
    state, effects = feed(state, *(vote(n, PRECOMMIT, A) for n in (1, 2, 3)))
    assert state.decided is None
    state, effects = feed(state, propose())
    assert effects == [Decide(View(0), A)]


def test_invalid_block_is_never_decided() -> None:
    """Line 50."""
    state, _ = bft.on_proposal(start()[0], propose(), False)
    assert feed(state, *(vote(n, PRECOMMIT, A) for n in (1, 2, 3)))[0].decided is None


def test_nothing_follows_a_decision_but_evidence() -> None:
    """After the decision timeouts and values do nothing; a late conflicting vote is still evidence."""
    state, _ = start(propose(), *(vote(n, PRECOMMIT, A) for n in (1, 2, 3)))
    assert state.decided is not None
    for step in Step:
        assert bft.on_timeout(state, fire(step)) == (state, ())
    late = vote(1, PRECOMMIT, B)
    assert feed(state, late)[1] == [Equivocation(vote(1, PRECOMMIT, A), late)]


def test_two_nodes_from_a_higher_view_pull_along() -> None:
    """Lines 55-56: one (f) is not enough, two (f+1) are; of two different higher views the lower one counts."""
    state, _ = start(vote(1, PREVOTE, None, 5))
    assert state.view == 0
    state, effects = feed(state, vote(2, PRECOMMIT, None, 3))
    assert (state.view, state.step) == (3, Step.PROPOSE)
    assert timers(effects) == [(Step.PROPOSE, 3, 1300)], "timeouts grow with the view"


def test_timeout_propose_prevotes_nil() -> None:
    """Lines 57-60."""
    state, effects = start(fire(Step.PROPOSE))
    assert cast(effects) == [vote(0, PREVOTE, None)]
    assert state.step is Step.PREVOTE


def test_timeout_prevote_precommits_nil() -> None:
    """Lines 61-64."""
    _, effects = start(propose(), fire(Step.PREVOTE))
    assert cast(effects) == [vote(0, PREVOTE, A), vote(0, PRECOMMIT, None)]


def test_timeout_precommit_starts_the_next_view() -> None:
    """Lines 65-67, at any step."""
    assert start(fire(Step.PRECOMMIT))[0].view == 1


@pytest.mark.parametrize(
    "stale", [fire(Step.PROPOSE), fire(Step.PRECOMMIT, 1), Timeout(Step.PRECOMMIT, Height(6), View(0))]
)
def test_stale_timeout_does_nothing(stale: Timeout) -> None:
    """A timeout of a step that has passed, of another view or of another height changes nothing."""
    state, _ = start(propose())
    assert bft.on_timeout(state, stale) == (state, ())


def test_timeout_prevote_before_the_prevote_does_nothing() -> None:
    """Line 62: the step must be prevote."""
    state, _ = start()
    assert bft.on_timeout(state, fire(Step.PREVOTE)) == (state, ())


def test_messages_before_the_start_are_used_at_the_start() -> None:
    """Peers may be ahead: what they sent before this node starts the height counts when it does."""
    state, effects = feed(BftState(configure(), HEIGHT), propose(), *(vote(n, PRECOMMIT, A) for n in (1, 2, 3)))
    assert effects == []
    assert bft.on_start(state)[0].decided == Decide(View(0), A)
    started, _ = start()
    assert bft.on_start(started) == (started, ())


def test_single_validator_decides_alone() -> None:
    """Own votes count at once: with one validator the value is decided within on_value."""
    state, _ = bft.on_start(BftState(configure(count=1), HEIGHT))
    state, effects = bft.on_value(state, View(0), A)
    kinds = [type(effect) for effect in effects]
    assert kinds == [SendProposal, CastVote, CastVote, Decide]


def test_follower_without_power_decides_and_never_votes() -> None:
    """A node outside the validator set follows the same rules silently."""
    _, effects = start(propose(), *(vote(n, t, A) for t in VoteType for n in (1, 2, 3)), me=9)
    assert cast(effects) == []
    assert effects[-1] == Decide(View(0), A)


def test_quorum_is_strictly_more_than_two_thirds() -> None:
    """Of 6, 4 are no quorum and 5 are; 2 may all be faulty and 3 may not; powers weigh."""
    six = ValidatorSet(tuple((name(n), Power(1)) for n in range(6)))
    assert [six.is_quorum(power) for power in (4, 5)] == [False, True]
    assert [six.is_one_honest(power) for power in (2, 3)] == [False, True]
    weighted = ValidatorSet(((name(0), Power(5)), (name(1), Power(1)), (name(2), Power(1))))
    assert (weighted.total_power, weighted.get_power(name(0)), weighted.get_power(name(9))) == (7, 5, 0)
