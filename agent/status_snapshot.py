"""What a running agent says of itself: its state as plain JSON values, for `flchain-agent status`. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agent.core import scoring
from agent.core.state import AgentState, Trouble
from agent.scheduling.inputs import Watch

SNAPSHOT_VERSION = 1


@dataclass(frozen=True)
class LifeTimes:
    """Instants of this life of the process, by the monotonic clock, seconds."""

    started_s: float
    receipt_s: float | None = None
    """When a miner's receipt for a message of ours last came: it may publish, and is heard."""


def build_snapshot(
    state: AgentState, watch: Watch, times: LifeTimes, now_s: float, *, heard_s: float | None
) -> dict[str, Any]:
    """The device's part; `heard_s` is how long ago a miner, or the broker, was last heard."""
    light, config = state.light, state.config
    return {
        "version": SNAPSHOT_VERSION,
        "address": config.identity.address.hex(),
        "chain": light.chain.hex(),
        "round": light.round,
        "phase": light.phase.name.lower(),
        "phase_s": round(now_s - watch.since_ms / 1000, 1),
        "height": light.height,
        "model_round": light.model_round,
        "model_hash": light.model_hash.hex(),
        "is_synced": light.is_synced,
        "is_mismatch": state.trouble is Trouble.DIVERGED,
        "is_expired": state.trouble is Trouble.EXPIRED,
        "is_time_known": state.clock.chain is not None,
        "chain_time_ms": None if state.clock.chain is None else state.clock.chain.header_ms,
        "chain_time_age_s": None if state.clock.chain is None else round(now_s - state.clock.chain.heard_ms / 1000, 1),
        "followed": state.following.miner.hex(),
        "is_held": state.is_held,
        "has_update": state.has_work,
        "is_mining": config.is_mining,
        "scores_due": scoring.count_due(state),
        "outbox": [{"round": number, "bytes": len(raw)} for number, raw in state.outbox.values()],
        "up_s": round(now_s - times.started_s, 1),
        "receipt_age_s": None if times.receipt_s is None else round(now_s - times.receipt_s, 1),
        "heard_age_s": heard_s,
    }
