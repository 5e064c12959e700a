"""What was said at one height, votes and proposals: kept as it was verified, for gossip, certificates and evidence."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from flchain.consensus.bft import Proposal, Vote
from flchain.wire.envelope import Verified


@dataclass(frozen=True)
class Words:
    """By the value that consensus knows, and by the very bytes. Its bound is that of consensus (see `select`)."""

    by_value: Mapping[Vote | Proposal, Verified] = field(default_factory=dict)
    by_bytes: Mapping[bytes, Verified] = field(default_factory=dict)

    def with_word(self, value: Vote | Proposal, said: Verified) -> Words:
        """With one more. Of a value that was signed more than once the first is kept: no sender can fill this."""
        if value in self.by_value:
            return self
        return Words({**self.by_value, value: said}, {**self.by_bytes, said.raw: said})

    def select(self, kept: Collection[Vote | Proposal]) -> Words:
        """Those of these values."""
        by_value = {value: said for value, said in self.by_value.items() if value in kept}
        return Words(by_value, {said.raw: said for said in by_value.values()})
