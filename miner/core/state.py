"""The miner's state: sub-states with a type each, and what must be true of all of them together.

What an event may do in which phase is in `transitions`, and only there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, TypeAlias

from flchain.base.frozen import ByAddress, Growing
from flchain.base.types import EARLIEST, Address, Hash, Height, Millis, UnixMillis, View
from flchain.consensus.bft import BftState
from flchain.ledger.block import Block
from flchain.ledger.state import ChainState
from flchain.light.trust import Trust
from flchain.rules.score_words import Subject
from flchain.wire.chunks import Assembly
from flchain.wire.envelope import Verified
from flchain.wire.messages import Phase, Want
from flchain.wire.packets import Packet, PacketType, encode_packet
from flchain.wire.topics import Topics
from miner.core.pools.height_log import HeightLog
from miner.core.pools.mempool import Mempool
from miner.core.pools.order_pool import OrderPool
from miner.core.tip import LedgerSummary
from miner.core.values import Effect, MinerConfig, Publish

BEFORE_ANYTHING = Millis(0)
PATIENCE_EXTENSIONS_MAX = 8
"""The longest that a miner waits for updates that are still arriving, as a multiple of the usual patience."""


class Agreement(Enum):
    """How far agreement on the next block has come (see `compute_agreement`)."""

    PAUSED = "paused"
    """The rounds that the operator asked for are settled: this node begins no height."""
    NOT_BEGUN = "not begun"
    """Nothing is worth a block yet, or this node waits for what is missing."""
    UNDER_WAY = "under way"
    """Consensus runs at this height."""
    ABOUT_TO_PROPOSE = "about to propose"
    """Consensus runs and this node leads, but it waits for messages that would close the phase."""


class Patience(Enum):
    """Whether this node waits for those whose messages are missing at this height."""

    IDLE = "idle"
    """It does not wait: nobody has begun."""
    RUNNING = "running"
    """The PATIENCE timer runs, for orders or because a peer has begun; in COMMIT no commitment has arrived yet."""
    FOR_DEVICES = "for devices"
    """The PATIENCE timer runs in COMMIT, and began with a commitment: devices that train have all of it."""
    OVER = "over"
    """It has ended: a block without the missing messages is good enough."""


class CatchUpPhase(Enum):
    """Whether this node asks its peers for blocks."""

    IDLE = "idle"
    ASKING = "asking"
    """A peer has announced a higher final block: the ASK timer runs."""


class Scorer(Enum):
    """The worker that computes scores, one at a time."""

    FREE = "free"
    BUSY = "busy"
    """It owes scores of the open round."""


class Ahead(NamedTuple):
    """A final height beyond this node's own, and the peer to ask for it next."""

    height: Height
    peer: Address


@dataclass(frozen=True)
class CheckedBlock:
    """A block proposed at the present height and the state after it; None if it breaks a rule."""

    block: Block
    after: ChainState | None
    said: Mapping[bytes, Verified] = field(default_factory=dict)
    """The messages in it by their bytes, so that one that arrives separately later is not opened again."""


@dataclass(frozen=True)
class Early:
    """A candidate's vote or proposal of the next height, kept until this one is decided."""

    said: Verified
    packet: Packet
    """The whole packet that it arrived in: a proposal with its block."""


@dataclass(frozen=True)
class Waiting:
    """What this node waits for at this height. A new height begins with a new one."""

    patience: Patience = Patience.IDLE
    extensions: int = 0
    """How often patience was extended because updates were still arriving; at most PATIENCE_EXTENSIONS_MAX."""
    proposing_view: View | None = None
    """The view in which this node leads and has not proposed yet, so that its block can close the phase."""
    gossips: int = 0
    """How often this height's messages were repeated."""


@dataclass(frozen=True)
class CatchUp:
    """How this node comes level with peers that are ahead of it."""

    ahead: Ahead | None = None
    """Set while the ASK timer runs."""
    trust: Trust | None = None
    """While this node is so far behind that it needs a state: the newest header that it trusts beyond its blocks."""
    is_expired: bool = False
    """What this node trusts is too old. The operator is told once; a state that can be trusted ends this."""


@dataclass(frozen=True)
class RoundScores:
    """This miner's scores of the open round."""

    computed: Growing[Subject, int] = field(default_factory=Growing)
    asked: Growing[Subject, None] = field(default_factory=Growing)
    """What the scorer was asked for."""


@dataclass(frozen=True)
class Uploads:
    """Packets of devices and peers that arrive in chunks."""

    assemblies: ByAddress[Assembly] = field(default_factory=ByAddress)
    arrived_ms: ByAddress[Millis] = field(default_factory=ByAddress)
    """When each device's newest chunk arrived."""
    asked_ms: ByAddress[Millis] = field(default_factory=ByAddress)
    """When a device was last asked for missing chunks."""


@dataclass(frozen=True)
class Answers:
    """When this node last answered whom: nobody can make it send more than its limits allow."""

    answered_ms: dict[tuple[Address, Want], Millis] = field(default_factory=dict)
    """When a node's last question of each kind was answered."""
    resumed_ms: dict[Address, Millis] = field(default_factory=dict)
    """When a node last got chunks that it had asked for."""
    tip_ms: Millis = BEFORE_ANYTHING
    """When this miner last published its newest header."""


@dataclass(frozen=True)
class MinerState:
    """Everything a miner holds in memory. Chain, ledger summary and own votes can be rebuilt from its ledger."""

    config: MinerConfig
    topics: Topics
    chain: ChainState
    bft: BftState
    ledger: LedgerSummary = field(default_factory=LedgerSummary)
    mempool: Mempool = field(default_factory=Mempool)
    orders: OrderPool = field(default_factory=dict)
    """Orders that wait for a block."""
    proposed: dict[Hash, CheckedBlock] = field(default_factory=dict)
    """Blocks proposed at this height."""
    height_log: HeightLog = field(default_factory=HeightLog)
    """This height's votes and proposals."""
    early: tuple[Early, ...] = ()
    """Consensus messages of the next height, processed when this one is decided."""
    waiting: Waiting = field(default_factory=Waiting)
    catch_up: CatchUp = field(default_factory=CatchUp)
    scoring: RoundScores = field(default_factory=RoundScores)
    uploads: Uploads = field(default_factory=Uploads)
    answers: Answers = field(default_factory=Answers)
    now_ms: Millis = BEFORE_ANYTHING
    """When the newest event arrived, by a monotonic clock."""
    clock_ms: UnixMillis = EARLIEST
    """The same by this machine's wall clock."""

    def find_known(self, raw: bytes) -> Verified | None:
        """Return the verified message or order with these bytes that waits here or is in a block proposed here."""
        said = self.mempool.by_bytes.get(raw) or self.orders.get(raw)
        return said or next((b.said[raw] for b in self.proposed.values() if raw in b.said), None)

    def build_gossip(self, raw: bytes) -> Publish:
        """Return the effect that sends a signed message to all other miners."""
        topic = self.topics.miner_bft(self.config.identity.address)
        return Publish(topic, encode_packet(PacketType.MESSAGE, raw), qos=0)


Transition: TypeAlias = tuple[MinerState, tuple[Effect, ...]]


def is_paused(state: MinerState) -> bool:
    """True once the rounds that the operator asked for are settled."""
    return 0 < state.config.until_round < state.chain.round.number


def compute_agreement(state: MinerState) -> Agreement:
    """Return how far agreement on the next block has come."""
    if state.waiting.proposing_view is not None:
        return Agreement.ABOUT_TO_PROPOSE
    if state.bft.is_started:
        return Agreement.UNDER_WAY
    return Agreement.PAUSED if is_paused(state) else Agreement.NOT_BEGUN


def compute_catch_up(state: MinerState) -> CatchUpPhase:
    """Return whether this node asks its peers for blocks."""
    return CatchUpPhase.IDLE if state.catch_up.ahead is None else CatchUpPhase.ASKING


def compute_scorer(state: MinerState) -> Scorer:
    """Return whether the scorer owes an answer in the open round."""
    return Scorer.BUSY if len(state.scoring.computed) < len(state.scoring.asked) else Scorer.FREE


def find_illegal(state: MinerState) -> tuple[str, ...]:
    """Return which rules a state breaks, in words; empty for every state that the machine can reach."""
    rules = (*_list_height_rules(state), *_list_waiting_rules(state), *_list_other_rules(state))
    return tuple(text for text, is_kept in rules if not is_kept)


def _list_height_rules(state: MinerState) -> tuple[tuple[str, bool], ...]:
    height, log = state.chain.height + 1, state.height_log
    return (
        ("consensus at another height than the chain's next", state.bft.height == height),
        ("a vote or proposal of another height", all(value.height == height for value in log.by_value)),
        ("a log whose two views differ", len(log.by_value) == len(log.by_bytes)),
        ("a proposed block of another height", all(b.block.header.height == height for b in state.proposed.values())),
        ("an early message that is due or too early", all(e.said.number == height + 1 for e in state.early)),
    )


def _list_waiting_rules(state: MinerState) -> tuple[tuple[str, bool], ...]:
    waiting, is_started = state.waiting, state.bft.is_started
    is_for_devices = waiting.patience is Patience.FOR_DEVICES
    is_waiting = waiting.patience in (Patience.RUNNING, Patience.FOR_DEVICES)
    return (
        ("a proposer of a height that has not begun", waiting.proposing_view is None or is_started),
        ("repeats at a height that has not begun", not waiting.gossips or is_started),
        ("patience that is over at a height that has not begun", waiting.patience is not Patience.OVER or is_started),
        ("a wait for devices outside COMMIT", not is_for_devices or state.chain.round.phase is Phase.COMMIT),
        ("an extension of no wait", not waiting.extensions or is_waiting or waiting.patience is Patience.OVER),
        ("too many extensions", waiting.extensions <= PATIENCE_EXTENSIONS_MAX),
        ("agreement in a paused miner", not (is_paused(state) and (is_started or is_waiting))),
    )


def _list_other_rules(state: MinerState) -> tuple[tuple[str, bool], ...]:
    chain, ledger, trust = state.chain, state.ledger, state.catch_up.trust
    times_ms = (
        *state.answers.answered_ms.values(),
        *state.answers.resumed_ms.values(),
        *state.uploads.arrived_ms.values(),
        *state.uploads.asked_ms.values(),
        state.answers.tip_ms,
    )
    changes = [height for height, _ in ledger.changes]
    return (
        ("a ledger that begins beyond the chain", ledger.base <= chain.height),
        ("changes out of order", changes == sorted(set(changes))),
        ("payloads of other rounds than the newest", _are_payloads_legal(state)),
        ("trust in a header below the chain's", trust is None or trust.height > chain.height),
        ("a score that was not asked for", all(subject in state.scoring.asked for subject in state.scoring.computed)),
        ("times in the future", all(at_ms <= state.now_ms for at_ms in times_ms)),
    )


def _are_payloads_legal(state: MinerState) -> bool:
    """Payloads lead without a gap to the open round's model."""
    numbers = [number for number, _ in state.ledger.payloads]
    last = state.chain.round.number - 1
    return numbers == list(range(last - len(numbers) + 1, last + 1))
