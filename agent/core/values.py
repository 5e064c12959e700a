"""The agent's state, the events that change it, and the effects it wants: plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from agent.core.chain_time import ChainTime
from flchain.base.crypto import Identity
from flchain.base.types import EARLIEST, Address, Hash, ModelVector, Round, UnixMillis
from flchain.light.follow import LightState
from flchain.light.trust import Head
from flchain.rules.score_words import Subject
from flchain.wire.chunks import Assembly, Ranges
from flchain.wire.topics import Topics


class Timer(Enum):
    """The agent's timers. Starting one again replaces it."""

    RESEND = "resend"  # no receipt yet: say it again
    RESYNC = "resync"  # the model is behind: ask for it
    SILENCE = "silence"  # is the followed miner still there?


@dataclass(frozen=True)
class PacketReceived:
    """An MQTT payload as it came."""

    topic: str
    payload: bytes


@dataclass(frozen=True)
class TimerFired:
    """A timer of this machine."""

    timer: Timer


@dataclass(frozen=True, eq=False)
class TrainingDone:
    """The trainer's answer: what training added to the model, float32 (P,), and the standard normals for the noise."""

    round: Round
    delta: npt.NDArray[np.float32]
    samples: int
    training_ms: int
    loss: float
    standard_normals: npt.NDArray[np.float32] | None = None
    uplink_bytes_per_s: int | None = None
    """What the way to the broker carries, if it is known by now: a codec that can choose makes the update fit."""


@dataclass(frozen=True)
class TrainingFailed:
    """Training gave no usable update."""

    round: Round
    reason: str


@dataclass(frozen=True)
class Connected:
    """The link to the broker is up (again)."""


@dataclass(frozen=True)
class ScoreComputed:
    """The scorer's answer to ComputeScore: basis points of accuracy on data that this device does not train on."""

    round: Round
    subject: Subject
    score: int


@dataclass(frozen=True)
class ScoringFailed:
    """The scorer's answer if there is none: the machine asks for nothing more in this round."""

    round: Round
    reason: str


@dataclass(frozen=True)
class MiningAllowed:
    """From now on this device may mine, or not; what it has pledged for the open round it still does."""

    is_allowed: bool


@dataclass(frozen=True)
class WorkHeld:
    """The board lets nothing be computed for now, or lets it again: of work that is held nothing is to be expected."""

    is_held: bool


Event: TypeAlias = (
    PacketReceived
    | TimerFired
    | TrainingDone
    | TrainingFailed
    | ScoreComputed
    | ScoringFailed
    | MiningAllowed
    | WorkHeld
    | Connected
)


@dataclass(frozen=True)
class Train:
    """Train on this model, shape (P,); a training that still runs is for nothing now."""

    round: Round
    model: ModelVector


@dataclass(frozen=True, eq=False)
class ComputeScore:
    """Test a model, shape (P,), and answer with ScoreComputed or ScoringFailed: until then there is no second one."""

    round: Round
    subject: Subject
    model: ModelVector


@dataclass(frozen=True)
class Publish:
    """Send a packet, in chunks if it is long."""

    topic: str
    packet: bytes
    is_again: bool = False
    """It was sent before, perhaps by another process: of a long one the last chunk is enough, to ask who lacks what."""


@dataclass(frozen=True)
class SendChunks:
    """Send these chunks of a long packet of this device's to all miners, if it is still of use."""

    digest: bytes
    ranges: Ranges


@dataclass(frozen=True, eq=False)
class SaveWork:
    """Make this round's update durable before anything after this effect."""

    work: Work


@dataclass(frozen=True)
class SaveScores:
    """Make this round's scores durable before anything after this effect."""

    scores: Scores


@dataclass(frozen=True)
class SaveOutbox:
    """Keep a message until a miner's receipt for it comes."""

    digest: Hash
    round: Round
    raw: bytes


@dataclass(frozen=True)
class DropOutbox:
    """A message needs no sending any more; `reason` says why: "ok" if a miner has it."""

    digest: Hash
    reason: str
    raw: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True, eq=False)
class SavePosition:
    """Make the new model and the place in the chain durable."""

    light: LightState
    head: Head
    residual: ModelVector


@dataclass(frozen=True)
class Report:
    """Tell what this device has computed, and what the round cost it."""

    round: Round
    model_hash: Hash
    is_mismatch: bool
    is_accepted: bool
    work: Work | None


@dataclass(frozen=True)
class Follow:
    """Listen to another miner's headers and bodies."""

    before: Address | None
    miner: Address


@dataclass(frozen=True)
class StartTimer:
    """Bring `timer` back as TimerFired after `delay_ms`."""

    timer: Timer
    delay_ms: int


@dataclass(frozen=True)
class Refuse:
    """A peer's message was dropped and changed nothing: count it under `code`."""

    code: str
    detail: str


@dataclass(frozen=True)
class Note:
    """Something a person wants to read; `is_fault` if somebody should look after it."""

    text: str
    fields: dict[str, object] = field(default_factory=dict)
    is_fault: bool = False


Effect: TypeAlias = (
    Train
    | ComputeScore
    | Publish
    | SendChunks
    | SaveWork
    | SaveScores
    | SaveOutbox
    | DropOutbox
    | SavePosition
    | Report
    | Follow
    | StartTimer
    | Refuse
    | Note
)


@dataclass(frozen=True)
class AgentConfig:
    """What an agent is told at start. `miners` in the order in which it follows them, its home first."""

    identity: Identity
    miners: tuple[tuple[Address, bytes], ...]
    """(address, public key)"""
    until_round: int = 0
    resend_ms: int = 2_000
    resync_ms: int = 1_000
    failover_ms: int = 10_000
    is_mining: bool = False
    """This device is to score others' updates: its operator wants it, and the chain gives it a say."""


@dataclass(frozen=True, eq=False)
class Work:
    """This device's update of a round: its two signed messages, and the residual if the update is accepted."""

    round: Round
    commit: bytes
    reveal: bytes
    residual: ModelVector
    samples: int
    training_ms: int
    will_score: bool = False
    """The commitment pledges scores."""


@dataclass(frozen=True)
class Scores:
    """This device's scores of a round: its two signed messages."""

    round: Round
    commit: bytes
    reveal: bytes


@dataclass(frozen=True)
class Scoring:
    """Scores of the open round that are not all there yet."""

    round: Round
    scores: dict[Subject, int] = field(default_factory=dict)
    is_given_up: bool = False
    """The scorer has failed: nothing more is asked in this round."""


@dataclass(frozen=True)
class Drawing:
    """A long packet of a miner that comes in part (see `drawing`)."""

    owner: Address
    is_answer: bool
    """False for what the miner sends to all, unasked."""
    asked: int
    """The chunks below this index were sent unasked, or asked for."""
    begun_ms: int
    begun_bytes: int
    heard_ms: int = 0
    """When a chunk came last, or what is missing was asked for."""
    stalls: int = 0
    """How often that was because none came."""


@dataclass(frozen=True, eq=False)
class AgentState:
    """Everything an agent holds in memory."""

    config: AgentConfig
    topics: Topics
    light: LightState
    residual: ModelVector
    """What the codec left out of earlier updates, shape (P,)."""
    followed: Address
    """The followed miner."""
    head: Head | None = None
    """The newest header, with its certificate and the validators that prove it."""
    work: Work | None = None
    training_round: Round | None = None
    is_training: bool = False
    scores: Scores | None = None
    """The newest that were complete."""
    scoring: Scoring | None = None
    is_score_awaited: bool = False
    """The scorer is at work, be it for a round that is over."""
    is_mining_allowed: bool = True
    is_held: bool = False
    """Training and scoring stand still for now."""
    outbox: dict[Hash, tuple[Round, bytes]] = field(default_factory=dict)
    said: frozenset[Hash] = frozenset()
    """Digests of this round's messages that went out or got their receipt."""
    heard_ms: int = 0
    clock_ms: UnixMillis = EARLIEST
    """The world's time, see `chain_time.compute_time`."""
    now_ms: int = 0
    """By the monotonic clock."""
    chain_time: ChainTime | None = None
    """None until a certified header was heard in this life: till then nothing is said about a round."""
    asked_others: int = 0
    """Counts the questions to miners that are not followed, so that each has its turn."""
    is_resyncing: bool = False
    is_followed_asked: bool = False
    """The followed miner was asked for the model and has not sent it: it is another's turn."""
    is_expired: bool = False
    """What this device trusts is too old: an operator has been told."""
    is_mismatch: bool = False
    """This device has computed another model than the chain's: it takes part no more until somebody looks at it."""
    assemblies: dict[Address, Assembly] = field(default_factory=dict)
    drawings: dict[bytes, Drawing] = field(default_factory=dict)
    """By the packet's digest, for each that the assemblies hold a part of."""
    restored: Round | None = None
    """The round of the work that was found at the start: another process may have sent it already."""

    @property
    def is_mining(self) -> bool:
        """True if this device will score in the rounds to come: it is to, and it may."""
        return self.config.is_mining and self.is_mining_allowed

    @property
    def miners(self) -> dict[Address, bytes]:
        """The public keys of all miners this device listens to: the genesis's, its home first, then newer ones."""
        newer = {v.address: v.public_key for v in self.light.validators}
        return dict(self.config.miners) | {a: key for a, key in newer.items() if a not in dict(self.config.miners)}

    def next_miner(self, address: Address, steps: int = 1) -> Address:
        """The one so many places after this among those that have power now; of all if none is known to have any."""
        powerful = {validator.address for validator in self.light.validators}
        known = list(self.miners)
        ring = [a for a in known if a in powerful or a == address] or known
        if address not in ring:  # not of the genesis, and without a seat now
            return ring[(steps - 1) % len(ring)]
        return ring[(ring.index(address) + steps) % len(ring)]
