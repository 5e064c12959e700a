"""The values of a simulated network: a process, its disk, and how messages travel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import agent.core.values as av
from flchain.base.crypto import Identity
from flchain.base.types import Address, Hash, Height, Millis, Round
from flchain.light.trust import Head
from flchain.rules.blocks import Block
from miner.edge.ledger.base import StoredBase

Out = list[tuple[bytes, set[str] | None]]
"""Packets, each with the names of the nodes that get it (None for all)."""
OwnMessage = tuple[Height, bytes, Block | None]
"""A vote or proposal that a miner has signed: its height, its bytes, and the block that it proposes."""


class Misbehaviour(Protocol):
    """What the network asks of a Byzantine node; `tools.sim.attacks.byzantine` has the kinds."""

    kind: str

    def route(self, topic: str, packet: bytes) -> Out:
        """Return what is sent in place of a packet, and to whom."""
        ...

    def score(self, honest: int) -> int:
        """Return what the node says that an update is worth, in basis points."""
        ...


@dataclass
class Disk:
    """What survives a crash: of a miner blocks and own words, of a device position, work, scores and outbox.

    `base` is the state that a miner's blocks follow, and its height; None for the genesis.
    """

    base: tuple[Height, StoredBase] | None = None
    blocks: list[tuple[Block, bytes]] = field(default_factory=list)
    own: list[OwnMessage] = field(default_factory=list)
    position: tuple[Head, bytes, bytes, bytes] | None = None
    work: av.Work | None = None
    scores: av.Scores | None = None
    outbox: dict[Hash, tuple[Round, bytes]] = field(default_factory=dict)

    @property
    def base_height(self) -> int:
        """The height before the first stored block."""
        return self.base[0] if self.base is not None else 0

    @property
    def height(self) -> int:
        """The height of the newest stored block."""
        return self.base_height + len(self.blocks)


@dataclass
class Clock:
    """A node's own clock: wrong by `offset_ms`, and its timers run at `rate_percent` of the true speed."""

    offset_ms: int = 0
    rate_percent: int = 100

    def read(self, now_ms: int) -> Millis:
        """What the node takes for now."""
        return Millis(max(0, now_ms * self.rate_percent // 100 + self.offset_ms))

    def stretch(self, delay_ms: int) -> int:
        """How long a timer of `delay_ms` takes in truth."""
        return delay_ms * 100 // self.rate_percent


@dataclass
class Node:
    """One process. `session` counts connections, `life` starts: what was under way for an earlier one is lost."""

    name: str
    number: int
    identity: Identity
    state: Any = None
    disk: Disk = field(default_factory=Disk)
    is_up: bool = False
    is_online: bool = False
    life: int = 0
    session: int = 0
    timers: dict[object, int] = field(default_factory=dict)
    followed: Address | None = None
    crash_after_effects: int | None = None
    crash_at_save: int | None = None
    """The power fails while the save after so many more is under way: it is not on the disk."""
    training: int = 0
    clock: Clock = field(default_factory=Clock)
    slow_ms: int = 0
    """How long each event waits at most before this node gets to it."""
    behaviour: Misbehaviour | None = None
    """What makes it Byzantine; None is honest."""

    def __post_init__(self) -> None:
        self.is_miner = self.name.startswith("m")


@dataclass(frozen=True)
class Links:
    """How messages travel: delays in ms; shares of those that are slow, that come twice, and (QoS 0 only) are lost."""

    delay_ms: tuple[int, int] = (1, 20)
    slow_ms: tuple[int, int] = (20, 400)
    slow_share: float = 0.0
    twice_share: float = 0.0
    lost_share: float = 0.0
    is_ordered: bool = False
    """True: of one sender nothing overtakes anything on its way to one listener."""
