"""The events that change a miner's state, the effects that it asks for, and what the operator sets for it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from flchain.base.crypto import Identity
from flchain.base.types import Hash, Height
from flchain.consensus.bft import Timeout
from flchain.ledger.block import Block
from flchain.light.trust import CertifiedHeader
from flchain.machines.effects import ComputeScore, Note, Publish, Refuse, SendChunks, StartTimer
from flchain.machines.events import Connected, PacketReceived, ScoreComputed, TimerFired

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


class Timer(Enum):
    """Timers besides the three of consensus. Starting one again replaces it."""

    PATIENCE = "patience"  # stop waiting for those whose messages are missing
    PROPOSE = "propose"  # propose what has arrived
    GOSSIP = "gossip"  # repeat what this height needs
    ASK = "ask"  # ask a peer for blocks if this node is still behind it


Event: TypeAlias = PacketReceived | TimerFired[Timer | Timeout] | ScoreComputed | Connected


@dataclass(frozen=True)
class SaveVote:
    """Make an own vote or proposal durable, with its block, before any later effect of the same step."""

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
    """Replace the ledger's blocks up to a final header by the state that the header certifies."""

    head: CertifiedHeader
    data: bytes


@dataclass(frozen=True)
class SendBlocks:
    """Send at most `count` final blocks from the ledger, beginning at `height`."""

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
    """What the operator sets for a miner. It opens no round after `until_round`; 0 sets no end."""

    identity: Identity
    until_round: int = 0
    checkpoint: Hash | None = None
    """The hash of a header that the operator vouches for, if the miner was offline for longer than it may trust."""
