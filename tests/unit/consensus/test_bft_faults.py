"""Agreement under faults: repeats, equivocation, floods, refusals and restarts. Me is number 0 of 4 equals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flchain.base.errors import LedgerCorrupt, MalformedMessage, UnknownSender, WrongHeight
from flchain.base.types import Address, Hash, Height, View
from flchain.consensus import bft, message_log
from flchain.consensus.bft import (
    BftState,
    CastVote,
    Decide,
    Equivocation,
    Proposal,
    Propose,
    SendProposal,
    Step,
    Vote,
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
    name,
    propose,
    start,
    timers,
    vote,
)


def test_repeats_do_nothing() -> None:
    """The same proposal or vote a second time (QoS 1 repeats) changes nothing and says nothing."""
    state, _ = start(propose(), vote(1, PREVOTE, A), vote(1, PRECOMMIT, None))
    assert feed(state, propose(), vote(1, PREVOTE, A), vote(1, PRECOMMIT, None)) == (state, [])


def test_conflicting_votes_are_evidence_once() -> None:
    """Two prevotes of one validator at one view are reported, once; its power counts once towards "any"."""
    first, second = vote(3, PREVOTE, A), vote(3, PREVOTE, B)
    _, effects = start(propose(), first, second, second)
    assert [e for e in effects if isinstance(e, Equivocation)] == [Equivocation(first, second)]
    assert timers(effects) == [(Step.PROPOSE, 0, 1000)]
    nil, for_block = vote(3, PREVOTE, None), vote(3, PREVOTE, A)
    _, effects = start(propose(), nil, for_block, for_block, nil, for_block)
    assert [e for e in effects if isinstance(e, Equivocation)] == [Equivocation(nil, for_block)]


def test_equivocator_cannot_hide_a_proof_of_lock() -> None:
    """Its vote for the block counts though two others came first: otherwise nodes could differ for ever on line 28."""
    state, _ = start(vote(3, PREVOTE, None), vote(3, PREVOTE, B), vote(1, PREVOTE, A), vote(2, PREVOTE, A))
    state, _ = feed(state, fire(Step.PRECOMMIT), propose(1, A, valid_view=0))
    assert state.step is Step.PROPOSE
    assert cast(feed(state, vote(3, PREVOTE, A))[1]) == [vote(0, PREVOTE, A, 1)]


def test_votes_that_an_equivocator_crowds_out_count_when_repeated() -> None:
    """Its third vote, for the block that is decided, is dropped while nothing speaks for it, and counts later."""
    third = vote(3, PRECOMMIT, A)
    state, _ = start(vote(3, PRECOMMIT, None), vote(3, PRECOMMIT, B), third)
    state, _ = feed(state, vote(1, PRECOMMIT, A), vote(2, PRECOMMIT, A), third)
    assert len(bft.get_certificate_votes(state, View(0), A)) == 3
    assert feed(state, propose())[0].decided == Decide(View(0), A)


def test_conflicting_proposals_are_evidence_and_either_can_be_decided() -> None:
    """The first is prevoted; the second is evidence, and is decided if that is what the others precommitted."""
    state, effects = start(propose(0, A), propose(0, B))
    assert cast(effects) == [vote(0, PREVOTE, A)]
    assert effects[-1] == Equivocation(propose(0, A), propose(0, B))
    assert feed(state, *(vote(n, PRECOMMIT, B) for n in (1, 2, 3)))[0].decided == Decide(View(0), B)


def test_flood_of_proposals_is_bounded_and_cannot_crowd_out_the_decision() -> None:
    """One view keeps a few conflicting proposals; one that f+1 voted for still gets in."""
    flood = [propose(0, Hash(bytes([n]) * 32)) for n in range(50)]
    state, _ = start(*flood)
    assert len(state.proposals[View(0)]) == message_log.PROPOSALS_PER_VIEW_MAX
    state, _ = feed(state, *(vote(n, PRECOMMIT, A) for n in (1, 2, 3)), propose(0, A))
    assert state.decided == Decide(View(0), A)


def test_flood_of_one_voter_is_bounded() -> None:
    """One validator that votes for many blocks in hundreds of near and far views costs a bounded number of votes."""
    hashes = [Hash(bytes([n]) * 32) for n in range(20)]
    flood = [vote(3, t, h, view) for view in range(0, 400, 3) for h in hashes for t in VoteType]
    state, _ = start(*flood)
    kept = sum(len(said) for slot in state.votes.values() for said in slot.values())
    slots_near = 2 * (message_log.VIEWS_AHEAD_MAX + 1)
    assert state.view == 0
    assert kept <= slots_near * message_log.VOTES_PER_SLOT_MAX
    assert len(state.far_votes[name(3)]) == 2
    assert state.heard == {name(3): 399}


def test_far_votes_count_when_their_view_comes() -> None:
    """Votes for a far view are not lost: after the jump there all of them count, the first included."""
    state, _ = start(vote(1, PREVOTE, None, 100))
    assert state.view == 0
    state, effects = feed(state, vote(2, PREVOTE, None, 100), vote(3, PREVOTE, None, 100), fire(Step.PROPOSE, 100))
    assert state.view == 100
    assert cast(effects) == [vote(0, PREVOTE, None, 100), vote(0, PRECOMMIT, None, 100)]


def test_far_proposal_does_not_ask_who_leads() -> None:
    """A view of 2^60 from one validator costs nothing: the proposer rule, which walks all views, is not asked."""

    def refuse(view: View) -> Address:
        assert view < 100
        return name(1)

    state, _ = bft.on_start(BftState(replace(configure(), proposer_of=refuse), HEIGHT))
    far = Proposal(HEIGHT, View(2**60), -1, A, name(2))
    state, effects = bft.on_proposal(state, far, True)
    assert (state.view, state.proposals, effects) == (0, {}, ())


def test_refused_messages() -> None:
    """Another height, a stranger, the wrong leader, a negative view, a proof from the future: each has its error."""
    state, _ = start()
    with pytest.raises(WrongHeight):
        bft.on_vote(state, replace(vote(1, PREVOTE, A), height=Height(8)))
    with pytest.raises(WrongHeight):
        bft.on_proposal(state, replace(propose(), height=Height(8)), True)
    with pytest.raises(UnknownSender):
        bft.on_vote(state, vote(9, PREVOTE, A))
    with pytest.raises(UnknownSender):
        bft.on_proposal(state, replace(propose(), proposer=name(2)), True)
    with pytest.raises(MalformedMessage):
        bft.on_vote(state, vote(1, PREVOTE, A, -1))
    for valid_view in (-2, 1, 5):
        with pytest.raises(MalformedMessage):
            bft.on_proposal(state, propose(1, A, valid_view), True)


def test_restore_keeps_its_word_and_its_lock() -> None:
    """After a crash in view 2 a node repeats its last votes and the one its lock rests on, and votes no other."""
    own = (vote(0, PREVOTE, A), vote(0, PRECOMMIT, A), vote(0, PRECOMMIT, None, 1), vote(0, PREVOTE, None, 2))
    state = bft.restore(configure(), HEIGHT, own, ())
    assert (state.view, state.step) == (2, Step.PREVOTE)
    assert (state.locked_hash, state.locked_view, state.valid_hash, state.valid_view) == (A, 0, A, 0)
    state, effects = bft.on_start(state)
    assert set(cast(list(effects))) == {vote(0, PREVOTE, A), vote(0, PRECOMMIT, None, 1), vote(0, PREVOTE, None, 2)}
    state, effects_after = feed(state, propose(2, B), fire(Step.PROPOSE, 2))
    assert cast(effects_after) == []
    state, effects_after = feed(state, fire(Step.PRECOMMIT, 2), vote(1, PREVOTE, None, 4), vote(2, PREVOTE, None, 4))
    assert cast(feed(state, propose(4, B))[1])[0] == vote(0, PREVOTE, None, 4), "the lock holds after the restart"


def test_restore_takes_the_newest_lock() -> None:
    """Of two precommits for blocks the later one is the lock, in whatever order the journal gives them."""
    own = (vote(0, PRECOMMIT, B, 3), vote(0, PRECOMMIT, A, 1), vote(0, PRECOMMIT, None, 4))
    state = bft.restore(configure(), HEIGHT, own, ())
    assert (state.locked_hash, state.locked_view, state.view, state.step) == (B, 3, 4, Step.PRECOMMIT)


def test_restored_proposer_repeats_its_proposal() -> None:
    """A leader that crashed after storing its proposal sends that one, asks for no other, and prevotes it."""
    state = bft.restore(configure(me=1), HEIGHT, (), (propose(),))
    state, effects = bft.on_start(state)
    assert SendProposal(propose()) in effects
    assert not any(isinstance(effect, Propose) for effect in effects)
    assert cast(list(effects)) == [vote(1, PREVOTE, A)]
    assert bft.on_value(state, View(0), B) == (state, ())


def test_restored_proposer_that_had_voted_repeats_both() -> None:
    """A leader that crashed after its prevote sends proposal and prevote again."""
    state = bft.restore(configure(me=1), HEIGHT, (vote(1, PREVOTE, A),), (propose(),))
    assert bft.on_start(state)[1] == (SendProposal(propose()), CastVote(vote(1, PREVOTE, A)))


def test_restore_of_nothing_is_a_new_start() -> None:
    """A node that had said nothing starts at view 0."""
    config = configure()
    assert bft.restore(config, HEIGHT, (), ()) == BftState(config, HEIGHT)


@pytest.mark.parametrize(
    "stored",
    [
        (vote(0, PREVOTE, A), vote(0, PREVOTE, B)),
        (vote(1, PREVOTE, A),),
        (replace(vote(0, PREVOTE, A), height=Height(8)),),
    ],
)
def test_restore_refuses_a_false_journal(stored: tuple[Vote, ...]) -> None:
    """A journal that contradicts itself, is another node's or of another height is a fault of the disk."""
    with pytest.raises(LedgerCorrupt):
        bft.restore(configure(), HEIGHT, stored, ())


def test_own_vote_heard_from_before_a_lost_journal_stands() -> None:
    """A node without its journal that hears its own earlier prevote back casts no other one in that slot."""
    _, effects = start(vote(0, PREVOTE, B), propose(0, A))
    assert cast(effects) == []


def test_gossip_holds_what_a_laggard_needs() -> None:
    """All of this and the last view, and the proof of the valid block from further back."""
    state, _ = start(propose(), *(vote(n, PREVOTE, A) for n in (1, 2, 3)))
    state, _ = feed(state, *(fire(Step.PRECOMMIT, view) for view in range(2)), vote(3, PREVOTE, None, 2))
    gossip = bft.get_gossip(state)
    assert {vote(n, PREVOTE, A) for n in range(4)} <= set(gossip)
    assert vote(3, PREVOTE, None, 2) in gossip
    assert propose() not in gossip
