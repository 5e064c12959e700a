"""The messages that one node has received at one height: the paper's message log, bounded, and the questions asked of
it.

Of a sender that contradicts itself the first message is kept, and so are the conflicting ones that can still matter;
all of them count, as in the paper. If only the first counted, one equivocator could split honest nodes for ever on
whether a proof of lock exists (line 28 of Algorithm 1, arXiv 1807.04938).
"""

from __future__ import annotations

from collections.abc import Iterator

from flchain.base.frozen import replace
from flchain.base.types import Address, Hash, View
from flchain.consensus.bft_types import (
    BftState,
    Effect,
    Equivocation,
    Proposal,
    Transition,
    Vote,
    VoteType,
)

VIEWS_AHEAD_MAX = 16
"""Of views further ahead than this, only the votes of each sender's highest view are kept."""
PROPOSALS_PER_VIEW_MAX = 4
"""Conflicting proposals kept of one view; beyond that only one that f+1 of power voted for in that view."""
VOTES_PER_SLOT_MAX = 2
"""Conflicting votes kept of one sender, view and type; beyond that only for a kept proposal or with f+1 of power.

A vote dropped by this limit is needed again only once one of the two holds: peers repeat it (`get_gossip`)."""


def get_certificate_votes(
    state: BftState, view: View, block_hash: Hash | None, vote_type: VoteType = VoteType.PRECOMMIT
) -> tuple[Vote, ...]:
    """Return the kept votes of one type for one block at one view, ascending by validator; a quorum or not."""
    slot = state.votes.get((view, vote_type), {})
    return tuple(vote for sender in sorted(slot) for vote in slot[sender] if vote.block_hash == block_hash)


def get_gossip(state: BftState) -> tuple[Proposal | Vote, ...]:
    """Return what to send repeatedly to peers that may lack it.

    That is everything of this view, the last and the decided one, and the proof of the valid block. Liveness rests on
    the paper's gossip property: what one correct node has, every correct node gets in the end.
    """
    views = {state.view, View(max(0, state.view - 1))} | ({state.decided.view} if state.decided else set())
    proposals = [p for view in sorted(views) for p, _ in state.proposals.get(view, ())]
    slots = [state.votes.get((view, kind), {}) for view in sorted(views) for kind in VoteType]
    votes = [vote for slot in slots for said in slot.values() for vote in said]
    proof: tuple[Vote, ...] = ()
    if state.valid_view >= 0 and state.valid_view not in views:
        proof = get_certificate_votes(state, View(state.valid_view), state.valid_hash, VoteType.PREVOTE)
    return (*proof, *proposals, *votes)


def count_kept(state: BftState) -> int:
    """Return how many proposals and votes are kept; see `get_kept`."""
    proposals = sum(map(len, state.proposals.values()))
    return proposals + sum(len(said) for slot in (*state.votes.values(), state.far_votes) for said in slot.values())


def get_kept(state: BftState) -> set[Proposal | Vote]:
    """Return all proposals and votes of this height that are kept."""
    proposals = {proposal for kept in state.proposals.values() for proposal, _ in kept}
    votes = {vote for slot in (*state.votes.values(), state.far_votes) for said in slot.values() for vote in said}
    return proposals | votes


def get_sender(message: Proposal | Vote) -> Address:
    """Return the signer of a message."""
    return message.validator if isinstance(message, Vote) else message.proposer


def is_begun_by_one_honest(state: BftState) -> bool:
    """Return True if validators with more than a third of the power have said anything at this height."""
    senders = {sender for slot in state.votes.values() for sender in slot} | set(state.heard) | set(state.far_votes)
    senders |= {proposal.proposer for kept in state.proposals.values() for proposal, _ in kept}
    validators = state.config.validators
    return validators.is_one_honest(sum(validators.get_power(sender) for sender in senders))


def is_quorum_for(state: BftState, view: View, vote_type: VoteType, block_hash: Hash | None) -> bool:
    """Return True if 2f+1 votes of one view and type are for this block, or for nil."""
    return state.config.validators.is_quorum(_compute_power_for(state, view, vote_type, block_hash))


def _compute_power_for(state: BftState, view: View, vote_type: VoteType, block_hash: Hash | None) -> int:
    power, get_power = 0, state.config.validators.get_power
    for sender, said in state.votes.get((view, vote_type), {}).items():
        for vote in said:  # asked at every message: a plain loop takes half the time of any()
            if vote.block_hash == block_hash:
                power += get_power(sender)
                break
    return power


def is_quorum_of_any(state: BftState, vote_type: VoteType) -> bool:
    """Return True for 2f+1 votes of this view for anything (the * of lines 34 and 47); a sender counts once."""
    validators = state.config.validators
    return validators.is_quorum(sum(validators.get_power(s) for s in state.votes.get((state.view, vote_type), {})))


def record_proposal(state: BftState, proposal: Proposal, is_valid: bool) -> Transition:
    """Keep a proposal; a conflicting one is evidence."""
    view, block_hash = proposal.view, proposal.block_hash
    kept = state.proposals.get(view, ())
    if any(proposal == earlier for earlier, _ in kept):
        return state, ()
    if len(kept) >= PROPOSALS_PER_VIEW_MAX and not _is_backed(state, view, block_hash):
        return state, ()
    evidence = (Equivocation(kept[0][0], proposal),) if kept else ()
    return replace(state, proposals={**state.proposals, view: (*kept, (proposal, is_valid))}), evidence


def record_vote(state: BftState, vote: Vote) -> Transition:
    """Keep a vote, and thereby count it; a conflicting one is evidence."""
    slot = state.votes.get((vote.view, vote.type), {})
    said = slot.get(vote.validator, ())
    if vote in said:
        return state, ()
    is_proposed = vote.block_hash in _iterate_proposed(state)
    if len(said) >= VOTES_PER_SLOT_MAX and not is_proposed and not _is_backed(state, vote.view, vote.block_hash):
        return state, ()
    votes = {**state.votes, (vote.view, vote.type): {**slot, vote.validator: (*said, vote)}}
    return replace(state, votes=votes), ((Equivocation(said[0], vote),) if said else ())


def _is_backed(state: BftState, view: View, block_hash: Hash | None) -> bool:
    """Return True if f+1 of power voted for it, so that an honest node did.

    Any quorum shows this much, even before the votes whose counting an equivocator can prevent.
    """
    validators = state.config.validators
    powers = (_compute_power_for(state, view, kind, block_hash) for kind in VoteType)
    return any(validators.is_one_honest(power) for power in powers)


def _iterate_proposed(state: BftState) -> Iterator[Hash | None]:
    return (proposal.block_hash for kept in state.proposals.values() for proposal, _ in kept)


def keep_far_vote(state: BftState, vote: Vote) -> BftState:
    """Keep a sender's first vote of each type of its highest far view: two votes per validator in memory."""
    said = state.far_votes.get(vote.validator, ())
    if said and (vote.view < said[0].view or (vote.view == said[0].view and vote.type in {v.type for v in said})):
        return state
    same_view = tuple(v for v in said if v.view == vote.view)
    return replace(state, far_votes={**state.far_votes, vote.validator: (*same_view, vote)})


def absorb_far_votes(state: BftState) -> Transition:
    """Record the far votes that are near now."""
    near = {s: said for s, said in state.far_votes.items() if said[0].view <= state.view + VIEWS_AHEAD_MAX}
    effects: tuple[Effect, ...] = ()
    for vote in (vote for said in near.values() for vote in said):
        state, more = record_vote(state, vote)
        effects += more
    return replace(state, far_votes={s: v for s, v in state.far_votes.items() if s not in near}), effects


def record_view(state: BftState, message: Proposal | Vote) -> BftState:
    """Note the highest view beyond this node's that the sender has shown to have reached (for line 55)."""
    if message.view <= max(state.view, state.heard.get(get_sender(message), 0)):
        return state
    return replace(state, heard={**state.heard, get_sender(message): message.view})
