"""The agent's events, effects and configuration: plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from flchain.base.crypto import Identity
from flchain.base.types import Address, Hash, ModelVector, Round
from flchain.light.follow import LightState
from flchain.light.trust import CertifiedHeader
from flchain.machines.effects import ComputeScore, Note, Publish, Refuse, SendChunks, StartTimer
from flchain.machines.events import Connected, PacketReceived, ScoreComputed, TimerFired
from flchain.wire.release import Release

__all__ = [  # a device's whole vocabulary is found here: these words it shares with a miner, the others are its own
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
    """The agent's timers. Starting one again replaces it."""

    RESEND = "resend"  # no receipt yet: publish again
    RESYNC = "resync"  # the model is behind: ask for it
    SILENCE = "silence"  # is the followed miner still there?


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
    """Measured rate of the link to the broker; None if unknown. A codec that can choose makes the update fit."""


@dataclass(frozen=True)
class TrainingFailed:
    """Training gave no usable update."""

    round: Round
    reason: str


@dataclass(frozen=True)
class ScoringFailed:
    """The scorer has no answer: the machine asks for nothing more in this round."""

    round: Round
    reason: str


@dataclass(frozen=True)
class MiningAllowed:
    """From now on this device may mine, or may not; scores pledged for the open round are still computed."""

    is_allowed: bool


@dataclass(frozen=True)
class WorkHeld:
    """The scheduler holds all work, or lets it go on. No result will come while work is held."""

    is_held: bool


@dataclass(frozen=True)
class LeavePlanned:
    """This process is about to be replaced, or is not after all: while it is, no new round is begun."""

    is_planned: bool


Event: TypeAlias = (
    PacketReceived
    | TimerFired[Timer]
    | TrainingDone
    | TrainingFailed
    | ScoreComputed
    | ScoringFailed
    | MiningAllowed
    | WorkHeld
    | LeavePlanned
    | Connected
)


@dataclass(frozen=True)
class Train:
    """Train on this model, shape (P,); cancels a training that is still running."""

    round: Round
    model: ModelVector


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
    """Make a message durable until a miner's receipt for it arrives."""

    digest: Hash
    round: Round
    raw: bytes


@dataclass(frozen=True)
class DropOutbox:
    """Forget a message that need not be sent any more; `reason` is "ok" if a miner has it."""

    digest: Hash
    reason: str
    raw: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True, eq=False)
class SavePosition:
    """Make the new model and the place in the chain durable."""

    light: LightState
    head: CertifiedHeader
    residual: ModelVector


@dataclass(frozen=True)
class Report:
    """Publish which model this device has computed, and what the round cost it."""

    round: Round
    model_hash: Hash
    is_mismatch: bool
    is_accepted: bool
    work: Work | None


@dataclass(frozen=True)
class SaveRelease:
    """Keep the operator's newest release, and see whether it concerns this board."""

    raw: bytes
    release: Release


@dataclass(frozen=True)
class Follow:
    """Listen to another miner's headers and bodies."""

    before: Address | None
    miner: Address


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
    | SaveRelease
    | Follow
    | StartTimer[Timer]
    | Refuse
    | Note
)


@dataclass(frozen=True)
class AgentConfig:
    """An agent's configuration. `miners` is in the order in which it follows them, its home first."""

    identity: Identity
    miners: tuple[tuple[Address, bytes], ...]
    """(address, public key)"""
    until_round: int = 0
    resend_ms: int = 2_000
    resync_ms: int = 1_000
    failover_ms: int = 10_000
    is_mining: bool = False
    """This device is to score others' updates: its operator wants it, and the chain counts devices' scores."""
    operators: tuple[tuple[Address, bytes], ...] = ()
    """(address, public key) of those whose releases this device takes."""


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
