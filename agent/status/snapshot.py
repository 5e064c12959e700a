"""Build the status of a running agent from its state and from what its edges say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.core import scoring
from agent.core.state import AgentState, Trouble, UpdatePhase
from agent.scheduling.inputs import Watch
from agent.status.values import AgentStatus, OutboxItem, SensorStatus, UpdateReport, WorkStatus
from flchain.machines.link_status import LinkStatus


@dataclass(frozen=True)
class LifeTimes:
    """Moments of this process, in seconds by the monotonic clock."""

    started_s: float
    receipt_s: float | None = None
    """When a miner last acknowledged a message of this device: it may publish, and is heard."""
    heard_s: float | None = None
    """When a miner, or the broker, was last heard."""


@dataclass(frozen=True)
class EdgeStatus:
    """What the edges of a running agent say of themselves."""

    work: WorkStatus
    link: LinkStatus
    sensors: Sequence[SensorStatus] = ()
    refused: Mapping[str, int] = field(default_factory=dict)
    disk_bytes: int | None = None
    update: UpdateReport = field(default_factory=UpdateReport)


def build_status(state: AgentState, watch: Watch, times: LifeTimes, edges: EdgeStatus, now_s: float) -> AgentStatus:
    """Return the status at `now_s`, in seconds by the monotonic clock."""
    light, config, chain_time, work = state.light, state.config, state.clock.chain, edges.work
    return AgentStatus(
        address=config.identity.address.hex(),
        chain=light.chain.hex(),
        round=light.round,
        phase=light.phase.name.lower(),
        phase_s=round(now_s - watch.since_ms / 1000, 1),
        height=light.height,
        model_round=light.model_round,
        model_hash=light.model_hash.hex(),
        is_synced=light.is_synced,
        is_mismatch=state.trouble is Trouble.DIVERGED,
        is_expired=state.trouble is Trouble.EXPIRED,
        is_time_known=chain_time is not None,
        chain_time_ms=None if chain_time is None else chain_time.header_ms,
        chain_time_age_s=None if chain_time is None else round(now_s - chain_time.heard_ms / 1000, 1),
        followed=state.following.miner.hex(),
        is_held=state.is_held,
        has_update=state.has_work,
        has_failed_training=state.update.phase is UpdatePhase.FAILED,
        is_mining=config.is_mining,
        scores_due=scoring.count_due(state),
        outbox=tuple(OutboxItem(number, len(raw)) for number, raw in state.outbox.values()),
        up_s=round(now_s - times.started_s, 1),
        receipt_age_s=_compute_age(times.receipt_s, now_s),
        heard_age_s=_compute_age(times.heard_s, now_s),
        scheduler=work.scheduler,
        training=work.training,
        board=work.board,
        earned=work.earned,
        cpu=work.cpu,
        link=edges.link,
        sensors=tuple(edges.sensors),
        refused=dict(edges.refused),
        disk_bytes=edges.disk_bytes,
        update=edges.update,
    )


def _compute_age(then_s: float | None, now_s: float) -> float | None:
    return None if then_s is None else round(now_s - then_s, 1)
