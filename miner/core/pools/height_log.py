"""The votes and proposals of one height, kept as they were verified: for gossip, certificates and evidence."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from flchain.base.types import Address, Hash, Height, View
from flchain.consensus.bft import Proposal, Vote, VoteType
from flchain.wire import messages
from flchain.wire.envelope import Verified


@dataclass(frozen=True)
class HeightLog:
    """Verified messages by the value that consensus knows, and by their bytes.

    Consensus bounds it: what consensus has forgotten is removed (see `select`).
    """

    by_value: Mapping[Vote | Proposal, Verified] = field(default_factory=dict)
    by_bytes: Mapping[bytes, Verified] = field(default_factory=dict)

    def with_message(self, value: Vote | Proposal, said: Verified) -> HeightLog:
        """Return this log with one more message.

        If a value was signed more than once, the first message stays: no sender can fill this log with signatures.
        """
        if value in self.by_value:
            return self
        return HeightLog({**self.by_value, value: said}, {**self.by_bytes, said.raw: said})

    def select(self, kept: Collection[Vote | Proposal]) -> HeightLog:
        """Return the messages of these values only."""
        by_value = {value: said for value, said in self.by_value.items() if value in kept}
        return HeightLog(by_value, {said.raw: said for said in by_value.values()})


def read_vote(message: messages.Vote, sender: Address) -> Vote:
    """Return a vote as consensus knows it."""
    block_hash = Hash(message.block_hash) if message.block_hash is not None else None
    return Vote(Height(message.height), View(message.view), VoteType(message.step), block_hash, sender)


def read_proposal(message: messages.Proposal, sender: Address) -> Proposal:
    """Return a proposal as consensus knows it."""
    height, view = Height(message.height), View(message.view)
    return Proposal(height, view, message.valid_view, Hash(message.block_hash), sender)
