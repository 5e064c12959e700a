"""The values of a simulated network: processes, their disks and clocks, and the links between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import agent.core.values as av
from flchain.base.crypto import Identity
from flchain.base.types import Address, Hash, Height, Millis, Round
from flchain.ledger.block import Block
from flchain.light.trust import CertifiedHeader
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
        """Return the score that the node gives an update instead of the honest one, in basis points."""
        ...


@dataclass
class Disk:
    """What survives a crash: a miner's blocks and own messages, a device's position, work, scores and outbox.

    `base` is the state that a miner's blocks follow, and its height; None for the genesis.
    """

    base: tuple[Height, StoredBase] | None = None
    blocks: list[tuple[Block, bytes]] = field(default_factory=list)
    own: list[OwnMessage] = field(default_factory=list)
    position: tuple[CertifiedHeader, bytes, bytes, bytes] | None = None
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
        """Return the time that the node's clock shows."""
        return Millis(max(0, now_ms * self.rate_percent // 100 + self.offset_ms))

    def stretch(self, delay_ms: int) -> int:
        """Return the true duration of a timer of `delay_ms`."""
        return delay_ms * 100 // self.rate_percent


@dataclass
class Node:
    """One process. `session` counts its connections and `life` its starts: what belongs to an earlier one is lost."""

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
    """The power fails during a save, after this many more: what it writes is not on the disk."""
    training: int = 0
    clock: Clock = field(default_factory=Clock)
    slow_ms: int = 0
    """The longest time for which an event waits before this node handles it."""
    behaviour: Misbehaviour | None = None
    """Makes the node Byzantine; None for an honest one."""

    def __post_init__(self) -> None:
        self.is_miner = self.name.startswith("m")


@dataclass(frozen=True)
class Links:
    """Links: delays in ms; the shares of messages that are slow, come twice, and (at QoS 0 only) are lost."""

    delay_ms: tuple[int, int] = (1, 20)
    slow_ms: tuple[int, int] = (20, 400)
    slow_share: float = 0.0
    twice_share: float = 0.0
    lost_share: float = 0.0
    is_ordered: bool = False
    """True: messages of one sender to one listener arrive in order."""
