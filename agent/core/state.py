"""The agent's state: sub-states with a phase each, and what must be true of all of them together.

What an event may do in which phase is in `transitions`, and only there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from agent.core.chain_time import BEFORE_ANYTHING, Clock
from agent.core.values import AgentConfig, Effect, Scores, Work
from flchain.base.types import Address, Hash, Millis, ModelVector, Round
from flchain.light.follow import LightState
from flchain.light.trust import CertifiedHeader
from flchain.rules.score_words import Subject
from flchain.wire.chunks import Assembly
from flchain.wire.release import Release
from flchain.wire.topics import Topics


class Standing(Enum):
    """Where this device stands with its chain (see `compute_standing`)."""

    UNHEARD = "unheard"
    """This process has received no certified header yet: nothing is sent about a round."""
    BEHIND = "behind"
    """The newest header names a model that this device does not hold: it asks for it."""
    TAKING_PART = "taking part"
    """It trains, publishes its update, and scores if it mines."""
    FINISHED = "finished"
    """The rounds that the operator asked for are over: it only follows."""
    DIVERGED = "diverged"
    """It has computed another model than the chain's: it takes no part until somebody has looked at it."""


class Trouble(Enum):
    """What only an operator can put right. The operator is told once."""

    NONE = "none"
    EXPIRED = "expired"
    """What this device trusts is too old. A header that it can trust ends this."""
    DIVERGED = "diverged"
    """It has computed another model than the chain's. Nothing ends this but a restart."""


class Resync(Enum):
    """How far the search for a model that this device lacks has come."""

    IDLE = "idle"
    WAITING = "waiting"
    """The RESYNC timer runs; the next question goes to the followed miner."""
    ASKED = "asked"
    """The RESYNC timer runs, and the followed miner was asked: the next question goes to another one."""


class UpdatePhase(Enum):
    """How far this device's update of a round has come."""

    IDLE = "idle"
    """No training was asked for, and none was found on the disk."""
    TRAINING = "training"
    FAILED = "failed"
    """Training ended without an update that the chain can use."""
    TRAINED = "trained"
    """The update is durable; this process has published nothing of it."""
    COMMITTED = "committed"
    """Its commitment was published, or a miner has it."""
    REVEALED = "revealed"
    """The update itself was published, or a miner has it."""


class ScoringPhase(Enum):
    """How far this device's scores of a round have come."""

    IDLE = "idle"
    SCORING = "scoring"
    GIVEN_UP = "given up"
    """No scores in this round: the scorer has failed, or updates are missing."""
    SCORED = "scored"
    """All scores are durable; this process has published nothing of them."""
    COMMITTED = "committed"
    REVEALED = "revealed"


class Scorer(Enum):
    """The worker that computes scores, one at a time."""

    FREE = "free"
    BUSY = "busy"
    """It owes an answer, perhaps for a round that is over."""


HAS_WORK = frozenset({UpdatePhase.TRAINED, UpdatePhase.COMMITTED, UpdatePhase.REVEALED})
HAS_SCORES = frozenset({ScoringPhase.SCORED, ScoringPhase.COMMITTED, ScoringPhase.REVEALED})


@dataclass(frozen=True)
class Following:
    """The miner whose news this device takes, and the search for what that miner does not send."""

    miner: Address
    heard_ms: Millis = BEFORE_ANYTHING
    """When it last sent news, by the monotonic clock."""
    others_asked: int = 0
    """Counts the questions to other miners, so that each has its turn."""
    resync: Resync = Resync.IDLE


@dataclass(frozen=True, eq=False)
class RoundUpdate:
    """This device's update of `round`, the newest round that it has worked on."""

    phase: UpdatePhase = UpdatePhase.IDLE
    round: Round | None = None
    work: Work | None = None
    """The newest that was made; it may be of an earlier round."""
    is_restored: bool = False
    """The update was found on the disk at the start: an earlier process may have published it."""


@dataclass(frozen=True)
class RoundScores:
    """This device's scores of `round`, the newest round that it has scored in."""

    phase: ScoringPhase = ScoringPhase.IDLE
    round: Round | None = None
    found: dict[Subject, int] = field(default_factory=dict)
    """Those that are computed, while some are missing."""
    scores: Scores | None = None
    """The newest that were complete; they may be of an earlier round."""
    scorer: Scorer = Scorer.FREE


@dataclass(frozen=True)
class Download:
    """A miner's long packet that arrives in chunks."""

    owner: Address
    is_answer: bool
    """False for a packet that the miner sends to all devices, unasked."""
    asked: int
    """The chunks below this index were sent unasked, or asked for."""
    begun_ms: Millis
    begun_bytes: int
    heard_ms: Millis = BEFORE_ANYTHING
    """When a chunk last arrived, or missing ones were last asked for."""
    stalls: int = 0
    """How often they were asked for because none arrived."""


@dataclass(frozen=True)
class Downloads:
    """Packets that are here in part."""

    assemblies: dict[Address, Assembly] = field(default_factory=dict)
    """The chunks, by the miner that sent them."""
    running: dict[bytes, Download] = field(default_factory=dict)
    """By the packet's digest, for each that the assemblies hold a part of."""


@dataclass(frozen=True, eq=False)
class AgentState:
    """Everything that an agent holds in memory."""

    config: AgentConfig
    topics: Topics
    light: LightState
    residual: ModelVector
    """What the codec left out of earlier updates, shape (P,)."""
    following: Following
    head: CertifiedHeader | None = None
    """The newest header, with its certificate and the validators that prove it."""
    clock: Clock = field(default_factory=Clock)
    update: RoundUpdate = field(default_factory=RoundUpdate)
    scoring: RoundScores = field(default_factory=RoundScores)
    downloads: Downloads = field(default_factory=Downloads)
    outbox: dict[Hash, tuple[Round, bytes]] = field(default_factory=dict)
    """Published messages, by digest, until a miner's receipt arrives."""
    trouble: Trouble = Trouble.NONE
    release: Release | None = None
    """The operator's newest."""
    is_mining_allowed: bool = True
    """The scheduler allows mining."""
    is_leaving: bool = False
    """This process is about to be replaced: it ends its round, and begins no other."""
    is_held: bool = False
    """The scheduler lets neither training nor scoring run for now."""

    @property
    def is_mining(self) -> bool:
        """True if this device will score in the rounds to come: it is configured to, and the scheduler allows it."""
        return self.config.is_mining and self.is_mining_allowed

    @property
    def is_training(self) -> bool:
        """True while the trainer owes an answer."""
        return self.update.phase is UpdatePhase.TRAINING

    @property
    def is_scoring(self) -> bool:
        """True while the scorer owes an answer."""
        return self.scoring.scorer is Scorer.BUSY

    @property
    def has_work(self) -> bool:
        """True if the open round's update is made."""
        return self.update.work is not None and self.update.work.round == self.light.round

    @property
    def has_scores(self) -> bool:
        """True if the open round's scores are all there."""
        return self.scoring.scores is not None and self.scoring.scores.round == self.light.round

    @property
    def miners(self) -> dict[Address, bytes]:
        """The public keys of all miners this device listens to: the genesis's, its home first, then newer ones."""
        newer = {v.address: v.public_key for v in self.light.validators}
        return dict(self.config.miners) | {a: key for a, key in newer.items() if a not in dict(self.config.miners)}

    def next_miner(self, address: Address, steps: int = 1) -> Address:
        """Return the miner `steps` places after `address` among those that have power now.

        Among all miners if none is known to have any.
        """
        powerful = {validator.address for validator in self.light.validators}
        known = list(self.miners)
        ring = [a for a in known if a in powerful or a == address] or known
        if address not in ring:  # not of the genesis, and without a seat now
            return ring[(steps - 1) % len(ring)]
        return ring[(ring.index(address) + steps) % len(ring)]


Transition: TypeAlias = tuple[AgentState, tuple[Effect, ...]]


def compute_standing(state: AgentState) -> Standing:
    """Return where this device stands; if several are true, the first that keeps it from taking part for longest."""
    if state.trouble is Trouble.DIVERGED:
        return Standing.DIVERGED
    if 0 < state.config.until_round < state.light.round:
        return Standing.FINISHED
    if state.clock.chain is None:
        return Standing.UNHEARD
    return Standing.TAKING_PART if state.light.is_synced else Standing.BEHIND


def find_illegal(state: AgentState) -> tuple[str, ...]:
    """Return which rules a state breaks, in words; empty for every state that the machine can reach."""
    standing = compute_standing(state)
    rules = (
        *_list_update_rules(state, standing),
        *_list_scoring_rules(state, standing),
        ("a device that is behind and does not search", _is_resync_legal(state)),
        ("a download without its chunks", _are_downloads_legal(state.downloads)),
        ("a message of a later round in the outbox", all(r <= state.light.round for r, _ in state.outbox.values())),
        ("news from the future", state.following.heard_ms <= state.clock.now_ms),
    )
    return tuple(text for text, is_kept in rules if not is_kept)


def _list_update_rules(state: AgentState, standing: Standing) -> tuple[tuple[str, bool], ...]:
    update = state.update
    has_own = update.work is not None and update.work.round == update.round
    return (
        ("an update's phase and its round", (update.phase is UpdatePhase.IDLE) == (update.round is None)),
        ("an update's phase and its work", has_own if update.phase in HAS_WORK else not has_own),
        ("a restored update that is not made", not update.is_restored or update.phase in HAS_WORK),
        ("an update of a later round", update.round is None or update.round <= state.light.round or update.is_restored),
        ("training before any header", not (state.is_training and standing is Standing.UNHEARD)),
    )


def _list_scoring_rules(state: AgentState, standing: Standing) -> tuple[tuple[str, bool], ...]:
    own = state.scoring
    has_own = own.scores is not None and own.scores.round == own.round
    return (
        ("a scoring's phase and its round", (own.phase is ScoringPhase.IDLE) == (own.round is None)),
        ("a scoring's phase and its scores", has_own if own.phase in HAS_SCORES else not has_own),
        ("scores that belong to no scoring", not own.found or own.phase is ScoringPhase.SCORING),
        ("scoring on a device that does not mine", state.config.is_mining or own.scorer is Scorer.FREE),
        ("scoring before any header", not (state.is_scoring and standing is Standing.UNHEARD)),
    )


def _is_resync_legal(state: AgentState) -> bool:
    """A device that is behind searches, unless it has diverged."""
    is_behind = not state.light.is_synced and state.trouble is not Trouble.DIVERGED
    return not is_behind or state.following.resync is not Resync.IDLE


def _are_downloads_legal(downloads: Downloads) -> bool:
    return all(
        download.owner in downloads.assemblies and digest in downloads.assemblies[download.owner].partial
        for digest, download in downloads.running.items()
    )
