"""The values of a `RoundNetwork`: its setting, miners and devices, and the record of what happened."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from flchain.base.crypto import Identity
from flchain.base.types import Hash
from flchain.ledger.block import Block
from flchain.ledger.state import ChainState
from flchain.wire.messages import Header, Reveal
from tools.sim.world import Links

LINKS = Links(delay_ms=(20, 120), slow_ms=(120, 600), slow_share=0.02, lost_share=0.02)
"""Edge servers at several sites: one way takes 20 to 120 ms, and up to 600 for one message in 50; one in 50 messages
between miners at QoS 0 is lost. The length of a message does not matter."""


@dataclass(frozen=True)
class Setting:
    """One network. `interval_ms`, `final_depth` and `hashes_per_s` are for "pow", `proposer_rule` is for "bft"."""

    seed: int
    consensus: str
    validators: int
    rounds: int
    proposer_rule: str = "pok"
    interval_ms: int = 1_000
    final_depth: int = 6
    hashes_per_s: int = 5_000_000
    """The hashrate of a miner with average power; the others' are in proportion to their power."""
    links: Links = LINKS
    powers: tuple[int, ...] = ()
    """Empty: 5, 10 and 15 in turn."""


@dataclass
class Device:
    """A device of the benchmark. `tip` is the state of its home as it last heard it."""

    number: int
    identity: Identity
    tip: ChainState | None = None
    heard: int = 0
    updates: dict[int, Reveal | None] = field(default_factory=dict)
    """By round: the update, None while the device trains."""
    said_ms: dict[bytes, int] = field(default_factory=dict)


@dataclass
class Node:
    """One miner. `search` and `timers` count: only the newest search, and the newest timer of a kind, has effect."""

    number: int
    identity: Identity
    power: int
    state: Any
    timers: dict[object, int] = field(default_factory=dict)
    devices: list[Device] = field(default_factory=list)
    finals: list[Block] = field(default_factory=list)
    proofs: list[bytes] = field(default_factory=list)
    search: int = 0
    hashes_per_ms: float = 0.0
    held: list[tuple[str, bytes]] | None = None
    """An attacker's blocks that it has found and not published; None for an honest miner."""


@dataclass
class Record:
    """What happened, for the figures. Times are in virtual ms."""

    created: dict[Hash, tuple[int, Header]] = field(default_factory=dict)
    """By block that was published (sealed, or proposed under bft): when, and its header."""
    final_ms: dict[tuple[Hash, int], int] = field(default_factory=dict)
    """By block and node: when it was final there."""
    finals: dict[int, Hash] = field(default_factory=dict)
    said_ms: dict[bytes, int] = field(default_factory=dict)
    """By device's message: when it was first sent."""
    spoken: dict[bytes, list[int]] = field(default_factory=dict)
    """By device's message: how long it took until it was final, at each miner."""
    settled_ms: dict[int, list[int]] = field(default_factory=dict)
    """By round: when its settlement was final, at each miner."""
    counts: Counter[str] = field(default_factory=Counter)
    reorg_depth_max: int = 0
    violations: list[str] = field(default_factory=list)
    is_stalled: bool = False

    def check_final(self, number: int, header: Header, block_hash: Hash) -> None:
        """Check what finality means: no two final blocks at one height, at any miners."""
        first = self.finals.setdefault(header.height, block_hash)
        if first != block_hash:
            self.violations.append(f"two final blocks at height {header.height}, the second at miner {number}")

    def check_undone(self, number: int, finals_undone: int) -> None:
        """Check that nothing final is undone."""
        if finals_undone:
            self.violations.append(f"miner {number} undoes {finals_undone} final blocks")
