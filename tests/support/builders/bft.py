"""Small values for the tests of agreement; me is number 0 of 4 equals."""

from __future__ import annotations

from flchain.base.types import Address, Hash, Height, Millis, Power, View
from flchain.consensus import bft
from flchain.consensus.bft import (
    BftConfig,
    BftState,
    CastVote,
    Effect,
    Proposal,
    ScheduleTimeout,
    Step,
    Timeout,
    ValidatorSet,
    Vote,
    VoteType,
)

HEIGHT = Height(7)
A, B = Hash(b"A" * 32), Hash(b"B" * 32)
PREVOTE, PRECOMMIT = VoteType.PREVOTE, VoteType.PRECOMMIT


def name(number: int) -> Address:
    return Address(bytes([number]) * 20)


def configure(me: int = 0, count: int = 4, first_proposer: int = 1) -> BftConfig:
    """Validator `first_proposer` leads view 0, the next one view 1, and so on."""
    members = ValidatorSet(tuple((name(number), Power(1)) for number in range(count)))
    return BftConfig(
        me=name(me),
        validators=members,
        proposer_of=lambda view: name((view + first_proposer) % count),
        timeout_propose_ms=Millis(1000),
        timeout_vote_ms=Millis(400),
        timeout_growth_ms=Millis(100),
    )


def propose(view: int = 0, block_hash: Hash = A, valid_view: int = -1) -> Proposal:
    return Proposal(HEIGHT, View(view), valid_view, block_hash, name((view + 1) % 4))


def vote(number: int, vote_type: VoteType, block_hash: Hash | None, view: int = 0) -> Vote:
    return Vote(HEIGHT, View(view), vote_type, block_hash, name(number))


Input = Proposal | Vote | Timeout


def feed(state: BftState, *inputs: Input) -> tuple[BftState, list[Effect]]:
    """Feed proposals (as valid), votes and timeouts, and collect the effects."""
    effects: list[Effect] = []
    for item in inputs:
        if isinstance(item, Proposal):
            state, more = bft.on_proposal(state, item, True)
        elif isinstance(item, Vote):
            state, more = bft.on_vote(state, item)
        else:
            state, more = bft.on_timeout(state, item)
        effects.extend(more)
    return state, effects


def start(*inputs: Input, me: int = 0) -> tuple[BftState, list[Effect]]:
    state, effects = bft.on_start(BftState(configure(me), HEIGHT))
    state, more = feed(state, *inputs)
    return state, [*effects, *more]


def fire(step: Step, view: int = 0) -> Timeout:
    return Timeout(step, HEIGHT, View(view))


def cast(effects: list[Effect]) -> list[Vote]:
    return [effect.vote for effect in effects if isinstance(effect, CastVote)]


def timers(effects: list[Effect]) -> list[tuple[Step, int, int]]:
    return [(e.timeout.step, e.timeout.view, e.timeout_ms) for e in effects if isinstance(e, ScheduleTimeout)]


def lock_on_a() -> BftState:
    """Locked on A at view 0 and moved on to view 1 without a decision."""
    state, _ = start(propose(), vote(1, PREVOTE, A), vote(2, PREVOTE, A), fire(Step.PRECOMMIT))
    assert (state.view, state.step, state.locked_hash, state.locked_view) == (1, Step.PROPOSE, A, 0)
    return state
