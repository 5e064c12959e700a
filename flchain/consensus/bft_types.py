"""The values of agreement on one block: messages, the validator set, effects and the state of one node.

"Line n" is a line of Algorithm 1 of arXiv 1807.04938; its "round" is a `view` here.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from flchain.base.types import Address, Hash, Height, Millis, Power, View

FIRST_VIEW = View(0)


class Step(enum.IntEnum):
    """Where a validator stands in its view (line 4)."""

    PROPOSE = 0
    PREVOTE = 1
    PRECOMMIT = 2


class VoteType(enum.IntEnum):
    """The two votes of a view. The value is that of the `Step` which casting it leads to."""

    PREVOTE = 1
    PRECOMMIT = 2


@dataclass(frozen=True)
class Proposal:
    """The proposer's message (line 19). `valid_view` is the view of the block's proof of lock, -1 for a new block."""

    height: Height
    view: View
    valid_view: int
    block_hash: Hash
    proposer: Address


@dataclass(frozen=True)
class Vote:
    """PREVOTE or PRECOMMIT for a block; `block_hash` None is the paper's nil."""

    height: Height
    view: View
    type: VoteType
    block_hash: Hash | None
    validator: Address


@dataclass(frozen=True)
class ValidatorSet:
    """The validators of one height: (address, power > 0), strictly ascending by address, at least one."""

    members: tuple[tuple[Address, Power], ...]

    def __post_init__(self) -> None:
        addresses = [address for address, _ in self.members]
        assert addresses == sorted(set(addresses)), "validators are distinct and sorted"
        assert self.members, "there is a validator"
        assert all(power > 0 for _, power in self.members), "every validator has power"

    @cached_property
    def total_power(self) -> Power:
        """Sum of all powers: the paper's n."""
        return Power(sum(power for _, power in self.members))

    @cached_property
    def _powers(self) -> dict[Address, Power]:
        return dict(self.members)

    def get_power(self, address: Address) -> Power:
        """Return the power of one validator, 0 for any other node."""
        return self._powers.get(address, Power(0))

    def is_quorum(self, power: int) -> bool:
        """Return True for strictly more than two thirds, the paper's 2f+1: two quorums share an honest validator.

        >>> four = ValidatorSet(tuple((Address(bytes([i]) * 20), Power(1)) for i in range(4)))
        >>> four.is_quorum(2), four.is_quorum(3)
        (False, True)
        """
        return 3 * power > 2 * self.total_power

    def is_one_honest(self, power: int) -> bool:
        """Return True for strictly more than one third, the paper's f+1: not all of them are faulty."""
        return 3 * power > self.total_power


@dataclass(frozen=True)
class BftConfig:
    """The part that stays the same during a height. A node that is not in `validators` follows and never votes.

    `proposer_of` must be a function of final state alone and answer for every view from 0. A timeout of view v is its
    base plus v times `timeout_growth_ms`, so that after any disturbance some view is long enough.
    """

    me: Address
    validators: ValidatorSet
    proposer_of: Callable[[View], Address]
    timeout_propose_ms: Millis
    timeout_vote_ms: Millis
    timeout_growth_ms: Millis


@dataclass(frozen=True)
class Timeout:
    """A scheduled timeout that has come: lines 57, 61 and 65 by `step`."""

    step: Step
    height: Height
    view: View


@dataclass(frozen=True)
class Propose:
    """Effect: make a block (getValue, line 18) and answer with `on_value`."""

    view: View


@dataclass(frozen=True)
class SendProposal:
    """Effect: store, sign and broadcast; with `valid_view` >= 0 add the prevotes of `get_certificate_votes`."""

    proposal: Proposal


@dataclass(frozen=True)
class CastVote:
    """Effect: store, sign and broadcast. The machine has counted it already."""

    vote: Vote


@dataclass(frozen=True)
class ScheduleTimeout:
    """Effect: after `timeout_ms` call `on_timeout` with `timeout`."""

    timeout: Timeout
    timeout_ms: Millis


@dataclass(frozen=True)
class Decide:
    """Effect: the block is final; `get_certificate_votes` gives the precommits that make it so (line 51)."""

    view: View
    block_hash: Hash


@dataclass(frozen=True)
class Equivocation:
    """Effect: one sender said two things that exclude each other; these two are the evidence."""

    first: Proposal | Vote
    second: Proposal | Vote


Effect: TypeAlias = Propose | SendProposal | CastVote | ScheduleTimeout | Decide | Equivocation


@dataclass(frozen=True)
class BftState:
    """One node at one height (lines 1 to 9), made as `BftState(config, height)`. Its mappings never change in place.

    `proposals`: by view, with their validity. `votes`: by slot and sender. `heard`: each sender's highest view beyond
    this node's. `far_votes`: see `message_log.keep_far_vote`. The `*_timer_view`s are the last views whose timers of
    lines 34 and 47 have been scheduled ("for the first time").
    """

    config: BftConfig
    height: Height
    view: View = FIRST_VIEW
    step: Step = Step.PROPOSE
    is_started: bool = False
    locked_hash: Hash | None = None
    locked_view: int = -1
    valid_hash: Hash | None = None
    valid_view: int = -1
    proposals: Mapping[View, tuple[tuple[Proposal, bool], ...]] = field(default_factory=dict)
    votes: Mapping[tuple[View, VoteType], Mapping[Address, tuple[Vote, ...]]] = field(default_factory=dict)
    heard: Mapping[Address, View] = field(default_factory=dict)
    far_votes: Mapping[Address, tuple[Vote, ...]] = field(default_factory=dict)
    prevote_timer_view: int = -1
    precommit_timer_view: int = -1
    untimely: frozenset[Hash] = frozenset()
    """Blocks that this node prevotes only on a proof of lock."""
    decided: Decide | None = None


Transition: TypeAlias = tuple[BftState, tuple[Effect, ...]]
