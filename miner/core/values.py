"""The miner's state, the events that change it, and the effects it wants: plain frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from flchain.base.crypto import Identity
from flchain.base.frozen import Growing
from flchain.base.types import EARLIEST, Address, Hash, Height, Millis, UnixMillis, View
from flchain.consensus.bft import BftState, Timeout
from flchain.ledger.state import NO_HEIGHT, ChainState
from flchain.light.trust import Head, Trust
from flchain.machines.effects import ComputeScore, Note, Publish, Refuse, SendChunks, StartTimer
from flchain.machines.events import Connected, PacketReceived, ScoreComputed, TimerFired
from flchain.rules.blocks import Block
from flchain.wire.chunks import Assembly
from flchain.wire.envelope import Verified
from flchain.wire.messages import Want
from flchain.wire.packets import Packet, PacketType, encode_packet
from flchain.wire.topics import Topics
from miner.core.mempool import Mempool
from miner.core.order_pool import OrderPool
from miner.core.tip import Changes, Deltas, Tip
from miner.core.words import Words

__all__ = [  # a miner's whole vocabulary is found here: these words it shares with a device, the others are its own
    "ComputeScore",
    "Connected",
    "Note",
    "PacketReceived",
    "Publish",
    "Refuse",
    "ScoreComputed",
    "SendChunks",
    "StartTimer",
    "TimerFired",
]
BEFORE_ANYTHING = Millis(0)


class Timer(Enum):
    """Timers besides the three of consensus. Starting one again replaces it."""

    PATIENCE = "patience"  # wait no longer for those who are missing
    PROPOSE = "propose"  # propose what is there
    GOSSIP = "gossip"  # say again what this height needs
    ASK = "ask"  # still behind a peer: ask it for blocks


Event: TypeAlias = PacketReceived | TimerFired[Timer | Timeout] | ScoreComputed | Connected


@dataclass(frozen=True)
class SaveVote:
    """Make a vote or proposal of this node durable, with the block it is for, before anything after this effect."""

    height: Height
    raw: bytes
    block: Block | None


@dataclass(frozen=True)
class SaveBlock:
    """Append a final block to the ledger."""

    block: Block
    certificate: bytes


@dataclass(frozen=True)
class SaveState:
    """Let the ledger begin anew with this state, which a final header certifies, in place of the blocks up to it."""

    head: Head
    data: bytes


@dataclass(frozen=True)
class SendBlocks:
    """Answer a question with final blocks from the ledger, from `height` on, at most `count`."""

    topic: str
    height: Height
    count: int


Effect: TypeAlias = (
    Publish
    | SaveVote
    | SaveBlock
    | SaveState
    | SendBlocks
    | SendChunks
    | StartTimer[Timer | Timeout]
    | ComputeScore
    | Refuse
    | Note
)


@dataclass(frozen=True)
class MinerConfig:
    """What a miner is told at start. `until_round` 0 is for ever; else it stops opening rounds after that one."""

    identity: Identity
    until_round: int = 0
    checkpoint: Hash | None = None
    """The hash of a header that the operator vouches for, for a miner that was away for too long."""


@dataclass(frozen=True)
class Candidate:
    """A block proposed at the present height and the state after it; None if it breaks a rule."""

    block: Block
    after: ChainState | None
    said: Mapping[bytes, Verified] = field(default_factory=dict)
    """The messages in it by their bytes: one that comes by itself later is known."""


@dataclass(frozen=True)
class Early:
    """A candidate's vote or proposal of the next height, kept until this one is decided."""

    said: Verified
    packet: Packet
    """What it came in, whole: a proposal with its block."""


@dataclass(frozen=True)
class MinerState:
    """Everything a miner holds in memory; chain and votes can be rebuilt from its ledger."""

    config: MinerConfig
    topics: Topics
    chain: ChainState
    bft: BftState
    mempool: Mempool = field(default_factory=Mempool)
    candidates: dict[Hash, Candidate] = field(default_factory=dict)
    words: Words = field(default_factory=Words)
    """This height's votes and proposals."""
    proposing_view: View | None = None
    """This node leads this view and waits a little, so that its block can close the phase."""
    gossips: int = 0
    """How often this height's messages were said again."""
    is_patience_over: bool = False
    is_patience_running: bool = False
    is_patience_for_devices: bool = False
    """In COMMIT: the wait began, or began anew, with a commitment."""
    patience_extensions: int = 0
    """How often the wait was made longer for updates that were still coming in."""
    ahead: tuple[Height, Address] | None = None
    """The highest head heard of beyond this node's own, and who has it, while the ASK timer runs."""
    tip: Tip | None = None
    changes: Changes = ()
    """The newest CHANGES_KEPT_MAX of them."""
    deltas: Deltas = ()
    base: Height = NO_HEIGHT
    """The ledger has the blocks after this height."""
    trust: Trust | None = None
    """While this node is so far behind that it needs a state: the newest header it trusts, beyond its own blocks."""
    is_expired: bool = False
    """What this node trusts is too old: the operator has been told."""
    scores: Growing[Address | None, int] = field(default_factory=Growing)
    """Scores of the open round that are computed."""
    scores_asked: Growing[Address | None, None] = field(default_factory=Growing)
    """What the scorer was asked for in the open round."""
    early: tuple[Early, ...] = ()
    """Consensus messages of the next height, taken when this one is decided."""
    assemblies: dict[Address, Assembly] = field(default_factory=dict)
    arrived_ms: dict[Address, Millis] = field(default_factory=dict)
    """When the newest chunk of each device came."""
    asked_ms: dict[Address, Millis] = field(default_factory=dict)
    """When a device was last asked for chunks."""
    resumed_ms: dict[Address, Millis] = field(default_factory=dict)
    """When a node last got chunks that it had asked for."""
    orders: OrderPool = field(default_factory=dict)
    """Orders that wait for a block."""
    now_ms: Millis = BEFORE_ANYTHING
    """When the newest event came, by a monotonic clock."""
    clock_ms: UnixMillis = EARLIEST
    """The same by the world's clock."""
    tip_told_ms: Millis = BEFORE_ANYTHING
    """When this miner last told its newest header."""
    answered_ms: dict[tuple[Address, Want], Millis] = field(default_factory=dict)
    """When a node's last question of one sort was answered."""

    def find_known(self, raw: bytes) -> Verified | None:
        """A message or order that waits here, or is in a block proposed here, by its very bytes."""
        said = self.mempool.by_bytes.get(raw) or self.orders.get(raw)
        return said or next((c.said[raw] for c in self.candidates.values() if raw in c.said), None)

    def tell_miners(self, raw: bytes) -> Publish:
        """A signed message for all other miners."""
        topic = self.topics.miner_bft(self.config.identity.address)
        return Publish(topic, encode_packet(PacketType.MESSAGE, raw), qos=0)
