"""Agreement on one block: Tendermint, Algorithm 1 of Buchman, Kwon, Milosevic, arXiv 1807.04938, as a pure machine.

A `BftState` is one height. Inputs (`on_*`) return the next state and the effects, which the caller carries out in
order; a `CastVote` or `SendProposal` must be durable before it is sent. Signatures are checked before a message comes
in here. "Line n" is a line of Algorithm 1, whose "round" is a `view` here. It differs where safety does not depend on
it:

- getValue (line 18) may answer later, so a proposer, too, runs timeoutPropose (line 21); a late value is dropped.
- Line 55 counts a sender at its highest view: f+1 of power at or above a view. So it needs one number per validator.
- The message log is bounded (see `message_log`).
"""

from __future__ import annotations

from flchain.base.errors import LedgerCorrupt, MalformedMessage, UnknownSender, WrongHeight
from flchain.base.frozen import replace
from flchain.base.types import Hash, Height, Millis, View
from flchain.consensus.bft_types import (
    BftConfig,
    BftState,
    CastVote,
    Decide,
    Effect,
    Equivocation,
    Proposal,
    Propose,
    ScheduleTimeout,
    SendProposal,
    Step,
    Timeout,
    Transition,
    ValidatorSet,
    Vote,
    VoteType,
)
from flchain.consensus.message_log import (
    VIEWS_AHEAD_MAX,
    absorb_far_votes,
    count_kept,
    get_certificate_votes,
    get_gossip,
    get_kept,
    get_sender,
    is_begun_by_one_honest,
    is_quorum_for,
    is_quorum_of_any,
    keep_far_vote,
    record_proposal,
    record_view,
    record_vote,
)

__all__ = [
    "BftConfig",
    "BftState",
    "CastVote",
    "Decide",
    "Effect",
    "Equivocation",
    "Proposal",
    "Propose",
    "ScheduleTimeout",
    "SendProposal",
    "Step",
    "Timeout",
    "Transition",
    "ValidatorSet",
    "Vote",
    "VoteType",
    "count_kept",
    "get_certificate_votes",
    "get_gossip",
    "get_kept",
    "is_begun_by_one_honest",
    "is_lock_open",
    "is_near_and_due",
    "on_proposal",
    "on_start",
    "on_timeout",
    "on_value",
    "on_vote",
    "restore",
]

# --- inputs ---------------------------------------------------------------------------------------------------------


def on_start(state: BftState, untimely: frozenset[Hash] = frozenset()) -> Transition:
    """Begin the height (line 10).

    After `restore`, repeat what this node last said and go on. A second call does nothing.

    `untimely` are the blocks known already that this node would not have proposed now (see `on_proposal`).
    """
    if state.is_started:
        return state, ()
    state = replace(state, is_started=True, untimely=untimely)
    if state.step is Step.PROPOSE:
        return _apply_rules(*_start_view(state, state.view))
    own = [message for message in get_gossip(state) if get_sender(message) == state.config.me]
    return _apply_rules(state, tuple(CastVote(m) if isinstance(m, Vote) else SendProposal(m) for m in own))


def on_value(state: BftState, view: View, block_hash: Hash) -> Transition:
    """Take the block that `Propose` asked for, held and valid. If it is late or was not asked for, do nothing."""
    is_due = _is_live(state) and view == state.view and state.step is Step.PROPOSE and _is_my_turn(state, view)
    if not is_due or view in state.proposals:
        return state, ()
    return _apply_rules(*_send_proposal(state, block_hash, -1))


def on_proposal(state: BftState, proposal: Proposal, is_valid: bool, is_timely: bool = True) -> Transition:
    """Take a proposal whose body is held and checked: `is_valid` is the paper's valid(v).

    A new block that is not timely is prevoted nil by this node, but a quorum can still decide on it. Raises
    WrongHeight, MalformedMessage, or UnknownSender, also for a validator whose turn it is not.
    """
    _check(state, proposal)
    if not -1 <= proposal.valid_view < proposal.view:
        raise MalformedMessage("a proof of lock is of an earlier view")
    state, effects = _apply_rules(record_view(state, proposal), ())
    if not is_near_and_due(state, proposal):
        return state, effects
    state, more = record_proposal(state, proposal, is_valid)
    is_kept = any(kept == proposal for kept, _ in state.proposals.get(proposal.view, ()))
    if is_kept and not is_timely:
        state = replace(state, untimely=state.untimely | {proposal.block_hash})
    return _apply_rules(state, effects + more)


def is_near_and_due(state: BftState, proposal: Proposal) -> bool:
    """Return False for a view that is too far ahead for anything of it to be kept: a cheap check before the block's.

    Raises UnknownSender for a validator whose turn it is not.
    """
    if proposal.view > state.view + VIEWS_AHEAD_MAX:
        return False
    if state.config.proposer_of(proposal.view) != proposal.proposer:
        raise UnknownSender("not the proposer of this view")
    return True


def on_vote(state: BftState, vote: Vote) -> Transition:
    """Take a vote of any node. Raises WrongHeight, MalformedMessage or UnknownSender; a repeat does nothing."""
    _check(state, vote)
    state = record_view(state, vote)
    if vote.view > state.view + VIEWS_AHEAD_MAX:
        return _apply_rules(keep_far_vote(state, vote), ())
    return _apply_rules(*record_vote(state, vote))


def on_timeout(state: BftState, timeout: Timeout) -> Transition:
    """Take a timeout (lines 57 to 67). One of another height, view or step, or after the decision, does nothing."""
    if not _is_live(state) or (timeout.height, timeout.view) != (state.height, state.view):
        return state, ()
    if timeout.step is Step.PRECOMMIT:  # lines 65-67
        return _apply_rules(*_start_view(state, View(state.view + 1)))
    if timeout.step is not state.step:
        return state, ()
    nil_vote = VoteType.PREVOTE if timeout.step is Step.PROPOSE else VoteType.PRECOMMIT  # lines 57-60, 61-64
    return _apply_rules(*_cast(state, nil_vote, None))


def restore(
    config: BftConfig, height: Height, own_votes: tuple[Vote, ...], own_proposals: tuple[Proposal, ...]
) -> BftState:
    """Return the state after a crash, from what this node stored (bodies too) before sending it; `on_start` comes next.

    It stands at the step after its newest message, so it never contradicts one, and is locked on its newest precommit
    that is not nil. Raises LedgerCorrupt if the messages are not its own, of another height, or contradict each other.
    """
    state = BftState(config, height)
    effects: tuple[Effect, ...] = ()
    messages: tuple[Proposal | Vote, ...] = (*own_proposals, *own_votes)
    for message in messages:
        if (message.height, get_sender(message)) != (height, config.me):
            raise LedgerCorrupt(height, "a stored vote or proposal is not of this node and height")
        if isinstance(message, Vote):
            state, more = record_vote(state, message)
        else:
            state, more = record_proposal(state, message, True)
        effects += more
    if effects:
        raise LedgerCorrupt(height, "stored votes or proposals contradict each other")
    newest = [(v.view, int(v.type)) for v in own_votes] + [(p.view, int(Step.PROPOSE)) for p in own_proposals]
    view, step = max(newest, default=(View(0), 0))
    locks = [(v.view, v.block_hash) for v in own_votes if v.type is VoteType.PRECOMMIT and v.block_hash is not None]
    lock_view, lock_hash = max(locks, default=(-1, None))
    state = replace(state, view=view, step=Step(step), locked_view=lock_view, locked_hash=lock_hash)
    return replace(state, valid_view=lock_view, valid_hash=lock_hash)


# --- the rules: each returns None unless its condition holds ----------------------------------------------------------


def _upon_proposal(state: BftState) -> Transition | None:
    """Lines 22-27 for a new block, 28-33 for one with a proof of lock that this node has seen as well."""
    if state.step is not Step.PROPOSE:
        return None
    for proposal, is_valid in state.proposals.get(state.view, ()):
        valid_view, block_hash = proposal.valid_view, proposal.block_hash
        if valid_view == -1 or is_quorum_for(state, View(valid_view), VoteType.PREVOTE, block_hash):
            is_new = valid_view == -1
            is_wanted = is_valid and is_lock_open(state, proposal) and not (is_new and block_hash in state.untimely)
            return _cast(state, VoteType.PREVOTE, block_hash if is_wanted else None)
    return None


def is_lock_open(state: BftState, proposal: Proposal) -> bool:
    """Return True if the lock allows a vote (lines 23 and 29).

    With valid_view -1 the first part says that nothing is locked.
    """
    return state.locked_view <= proposal.valid_view or state.locked_hash == proposal.block_hash


def _upon_any_prevotes(state: BftState) -> Transition | None:
    """Lines 34-35."""
    is_first = state.prevote_timer_view < state.view
    if state.step is not Step.PREVOTE or not is_first or not is_quorum_of_any(state, VoteType.PREVOTE):
        return None
    return replace(state, prevote_timer_view=state.view), (_schedule(state, Step.PREVOTE),)


def _upon_prevotes(state: BftState) -> Transition | None:
    """Lines 36-43; "for the first time" is that the valid view is not this view yet."""
    if state.step is Step.PROPOSE or state.valid_view == state.view:
        return None
    for proposal, is_valid in state.proposals.get(state.view, ()):
        block_hash = proposal.block_hash
        if is_valid and is_quorum_for(state, state.view, VoteType.PREVOTE, block_hash):
            effects: tuple[Effect, ...] = ()
            if state.step is Step.PREVOTE:
                state = replace(state, locked_hash=block_hash, locked_view=state.view)
                state, effects = _cast(state, VoteType.PRECOMMIT, block_hash)
            return replace(state, valid_hash=block_hash, valid_view=state.view), effects
    return None


def _upon_nil_prevotes(state: BftState) -> Transition | None:
    """Lines 44-46."""
    if state.step is not Step.PREVOTE or not is_quorum_for(state, state.view, VoteType.PREVOTE, None):
        return None
    return _cast(state, VoteType.PRECOMMIT, None)


def _upon_any_precommits(state: BftState) -> Transition | None:
    """Lines 47-48."""
    if state.precommit_timer_view >= state.view or not is_quorum_of_any(state, VoteType.PRECOMMIT):
        return None
    return replace(state, precommit_timer_view=state.view), (_schedule(state, Step.PRECOMMIT),)


def _upon_precommits(state: BftState) -> Transition | None:
    """Lines 49-51, of any view. The next height (lines 52-54) is a new state."""
    for view, kept in state.proposals.items():
        for proposal, is_valid in kept:
            if is_valid and is_quorum_for(state, view, VoteType.PRECOMMIT, proposal.block_hash):
                decided = Decide(view, proposal.block_hash)
                return replace(state, decided=decided), (decided,)
    return None


def _upon_higher_view(state: BftState) -> Transition | None:
    """Lines 55-56: the highest view that f+1 of power have reached."""
    power = 0
    for sender, view in sorted(state.heard.items(), key=lambda item: -item[1]):
        power += state.config.validators.get_power(sender)
        if view > state.view and state.config.validators.is_one_honest(power):
            return _start_view(state, view)
    return None


_RULES = (
    _upon_precommits,
    _upon_higher_view,
    _upon_proposal,
    _upon_prevotes,
    _upon_nil_prevotes,
    _upon_any_prevotes,
    _upon_any_precommits,
)


def _apply_rules(state: BftState, effects: tuple[Effect, ...]) -> Transition:
    """Apply the rules until none holds. This ends: each raises the view, the step, a timer's view or the valid view."""
    while _is_live(state):
        outcome = next((found for rule in _RULES if (found := rule(state)) is not None), None)
        if outcome is None:
            break
        state, effects = outcome[0], effects + outcome[1]
    return state, effects


# --- parts of the rules -----------------------------------------------------------------------------------------------


def _start_view(state: BftState, view: View) -> Transition:
    """Begin a view (lines 11-21).

    A proposal that this node made for the view before a crash is sent again, never another one.
    """
    state, effects = absorb_far_votes(replace(state, view=view, step=Step.PROPOSE))
    effects += (_schedule(state, Step.PROPOSE),)
    if not _is_my_turn(state, view):
        return state, effects
    if kept := state.proposals.get(view):
        return state, (*effects, SendProposal(kept[0][0]))
    if state.valid_hash is None:
        return state, (*effects, Propose(view))
    state, more = _send_proposal(state, state.valid_hash, state.valid_view)
    return state, effects + more


def _send_proposal(state: BftState, block_hash: Hash, valid_view: int) -> Transition:
    proposal = Proposal(state.height, state.view, valid_view, block_hash, state.config.me)
    state, _ = record_proposal(state, proposal, True)
    return state, (SendProposal(proposal),)


def _cast(state: BftState, vote_type: VoteType, block_hash: Hash | None) -> Transition:
    """Count and send this node's vote, and take the step after it. A vote already cast in this slot stands."""
    me = state.config.me
    state = replace(state, step=Step(vote_type))
    if not state.config.validators.get_power(me) or me in state.votes.get((state.view, vote_type), {}):
        return state, ()
    vote = Vote(state.height, state.view, vote_type, block_hash, me)
    return record_vote(state, vote)[0], (CastVote(vote),)


def _schedule(state: BftState, step: Step) -> ScheduleTimeout:
    config = state.config
    base_ms = config.timeout_propose_ms if step is Step.PROPOSE else config.timeout_vote_ms
    timeout_ms = Millis(base_ms + state.view * config.timeout_growth_ms)
    return ScheduleTimeout(Timeout(step, state.height, state.view), timeout_ms)


def _check(state: BftState, message: Proposal | Vote) -> None:
    if message.height != state.height:
        raise WrongHeight(f"height {message.height}, not {state.height}")
    if message.view < 0:
        raise MalformedMessage("views start at 0")
    if not state.config.validators.get_power(get_sender(message)):
        raise UnknownSender("not a validator of this height")


def _is_live(state: BftState) -> bool:
    return state.is_started and state.decided is None


def _is_my_turn(state: BftState, view: View) -> bool:
    config = state.config
    return bool(config.validators.get_power(config.me)) and config.proposer_of(view) == config.me
