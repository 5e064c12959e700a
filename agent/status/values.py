"""The status of a device, as `status.json` holds it and `flchain-agent status --json` prints it: frozen and typed.

Fields are never renamed within a STATUS_VERSION: programs read them.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from agent.scheduling.readings import BoardReading
from flchain.machines.link_status import LinkStatus
from flchain.wire.fleet import UpdateState

STATUS_VERSION = 1


class ShareStatus(msgspec.Struct, frozen=True):
    """Parts of the board's whole CPU, 0 to 1."""

    train: float
    mine: float


class SchedulerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The scheduler's last decision, and what came of it."""

    policy: str
    explanation: str
    asked: ShareStatus
    """What training and mining may take."""
    given: ShareStatus | None
    """What they took since the look before; None before the second look."""
    is_mining_allowed: bool
    period_s: int


class TrainingStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The training that runs, or ran last."""

    is_running: bool
    steps_done: int
    steps: int
    """0 until the trainer has reported."""
    core_s: float
    """CPU seconds taken so far."""
    usual_core_s: float | None
    """CPU seconds that one training takes; None before the first."""


class EarnedStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What this device has earned on its chain, over all its processes."""

    update_coins: int
    score_coins: int
    """An estimate: the chain pays scores per round, by what all scorers have said."""
    scored_rounds: int
    acceptance: float
    """The estimated probability that its next update is accepted."""


class CpuStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How shares of the CPU are enforced here."""

    mechanism: str
    cores: int
    others: float
    """What all other processes take of the board's CPU, 0 to 1."""


class WorkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The supervisor's part of the status."""

    scheduler: SchedulerStatus
    training: TrainingStatus
    board: BoardReading | None
    """None before the first look."""
    earned: EarnedStatus
    cpu: CpuStatus


class SensorStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One source of samples."""

    name: str
    kind: str
    state: str
    samples: int
    dropped: int
    failures: int
    age_s: float | None
    """Of the newest sample; None if there was none."""
    detail: str


class OutboxItem(msgspec.Struct, frozen=True):
    """A published message that has no receipt yet."""

    round: int
    bytes: int


class WriterStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The process that wrote a status, and when: what tells a running agent from one that was killed."""

    is_running: bool
    """False in the status that an agent leaves when it ends."""
    pid: int
    start_ticks: int | None
    """When it began, in clock ticks since the boot: tells it from a later process under its number."""
    boot: str
    """Names the boot: after another one nothing of the process is left."""
    written_boot_s: float
    """Seconds since the boot, suspended time included."""
    written_ms: int
    """By the wall clock, UNIX time."""


class UpdateReport(msgspec.Struct, frozen=True, kw_only=True):
    """How far this board has come with the newest release that concerns it."""

    release: int = 0
    """Its sequence number; 0 for none."""
    state: UpdateState = UpdateState.NONE
    detail: str = ""
    """Why it waits, was refused or went back."""


class AgentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """All that a running agent says of itself. Ages and spans are as of the moment at which it was written."""

    version: int = STATUS_VERSION
    address: str
    chain: str
    round: int
    phase: str
    phase_s: float
    """How long the round has been in this phase."""
    height: int
    model_round: int
    model_hash: str
    is_synced: bool
    """The model is the newest header's."""
    is_mismatch: bool
    """This device has computed another model than the chain's, and takes part no more."""
    is_expired: bool
    """It was away for so long that it cannot tell which chain is the true one."""
    is_time_known: bool
    chain_time_ms: int | None
    """The newest certified header's time, UNIX time; None until one was received."""
    chain_time_age_s: float | None
    followed: str
    """The miner whose headers it takes."""
    is_held: bool
    """The scheduler lets neither training nor scoring run."""
    has_update: bool
    """The open round's update is made."""
    has_failed_training: bool = False
    """Training in the newest round that it has worked on ended without an update."""
    is_mining: bool
    scores_due: int
    """Models that are still to be scored in this round."""
    outbox: tuple[OutboxItem, ...]
    up_s: float
    receipt_age_s: float | None
    """Since a miner last acknowledged a message; None if none has since the start."""
    heard_age_s: float | None
    """Since a miner, or the broker, was last heard."""
    scheduler: SchedulerStatus
    training: TrainingStatus
    board: BoardReading | None
    earned: EarnedStatus
    cpu: CpuStatus
    link: LinkStatus
    sensors: tuple[SensorStatus, ...]
    refused: dict[str, int]
    """Peers' messages that were refused, by reason."""
    disk_bytes: int | None
    """What this process has written to disks; None where the kernel does not count it."""
    update: UpdateReport = UpdateReport()


class StatusRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A status with its writer: what is in the file."""

    writer: WriterStatus
    status: AgentStatus


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the agent runs; if not, since when, as far as anything tells."""

    state: Literal["running", "stopped", "killed", "never started", "unknown"]
    pid: int | None = None
    age_s: float | None = None
    """Of the newest status."""
    since_ms: int | None = None


class PositionView(msgspec.Struct, frozen=True, kw_only=True):
    """The place in the chain that is on the disk."""

    height: int
    round: int
    model_hash: str
    time_ms: int


class RoundView(msgspec.Struct, frozen=True, kw_only=True):
    """What a round has cost this device, and whether its update was accepted."""

    round: int
    is_accepted: bool
    samples: int
    training_ms: int
    bytes_up: int
    bytes_down: int
    energy_source: str
    energy_j: float | None
    training_j: float | None
    """Training's part of the energy."""


class HistoryView(msgspec.Struct, frozen=True, kw_only=True):
    """What the database holds; `fault` says why there is nothing."""

    rounds: tuple[RoundView, ...] = ()
    """The newest last."""
    outbox: int = 0
    position: PositionView | None = None
    fault: str = ""


class StatusView(msgspec.Struct, frozen=True, kw_only=True):
    """All that `flchain-agent status` shows."""

    node: NodeView
    now: AgentStatus | None
    """The newest status; of a process that has ended, its last."""
    history: HistoryView
    disk_bytes_per_day: int | None
    profile: str
    """The board's profile that is in use."""
    versions: dict[str, str]

    @property
    def running(self) -> AgentStatus | None:
        """The status of an agent that runs; None if none does."""
        return self.now if self.node.state == "running" else None
