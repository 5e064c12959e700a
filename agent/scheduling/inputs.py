"""Build the scheduler's inputs from the device's state, its history, and what is measured now. Pure.

The deadline is when commitments are expected to close: when they opened, plus a duration as in the last rounds
(`agent.scheduling.estimates`); the first guess is the chain's `commit_patience_ms`. The training that is left is
estimated from the steps that the trainer has reported and the CPU time these took. A round's scores are one
commitment, paid as a whole: one offer. It earns the mining devices' part of `reward_for_scores`, divided by the number
of all devices: if fewer mine, each earns more.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.core import scoring
from agent.core.state import AgentState, Trouble
from agent.scheduling.energy import BoardProfile
from agent.scheduling.estimates import estimate_work_left
from agent.scheduling.history import FIRST_SCORE_CORE_S, FIRST_TRAINING_PART, RoundHistory, observe_commit_phase
from agent.scheduling.readings import BoardReading
from agent.scheduling.values import CpuOutlook, MiningOffer, RoundOutlook, SchedulerInputs
from flchain.base.types import SHARE_ALL, Millis
from flchain.ledger.params import ChainParams
from flchain.light.follow import LightState
from flchain.wire.messages import Phase

LEFT_CORE_S_MIN = 0.02
"""Least work left of a running training: its last step is not its end."""
REWARD_MIN = 1e-9
LOADS_MAX = 36
"""How many readings of the others' load are kept: three minutes' worth at the usual period."""


@dataclass(frozen=True)
class Watch:
    """Where the round stands, and since when, by the monotonic clock."""

    round: int
    phase: Phase
    since_ms: Millis
    is_seen: bool = False
    """True if this device saw the phase begin."""


@dataclass(frozen=True)
class Measured:
    """What the edge has measured."""

    reading: BoardReading
    cpu: CpuOutlook
    steps: tuple[int, int] = (0, 0)
    """Steps of the running training: done, of how many; 0 of 0 until it has reported."""
    training_core_s: float = 0.0
    """CPU seconds that it has taken."""
    minute_of_day: int | None = None
    profile: BoardProfile | None = None
    earned: float = 0.0


def watch_round(
    watch: Watch | None, history: RoundHistory, state: AgentState, now_ms: Millis
) -> tuple[Watch, RoundHistory]:
    """Follow the round after an event; a phase that has ended teaches how long commitments stay open."""
    light = state.light
    if watch is not None and (watch.round, watch.phase) == (light.round, light.phase):
        return watch, history
    if watch is not None and watch.is_seen and watch.phase is Phase.COMMIT and watch.round == light.round:
        seconds, patience_s = (now_ms - watch.since_ms) / 1000, light.params.commit_patience_ms / 1000
        history = observe_commit_phase(history, seconds, patience_s, has_committed=state.has_work)
    return Watch(light.round, light.phase, now_ms, is_seen=watch is not None), history


def build_inputs(state: AgentState, watch: Watch, history: RoundHistory, measured: Measured) -> SchedulerInputs:
    """Return everything that a decision is made from."""
    due = scoring.count_due(state)
    is_mining = state.config.is_mining
    return SchedulerInputs(
        reading=measured.reading,
        cpu=measured.cpu,
        round=_build_round(state, watch, history, measured),
        offers=(_build_offer(state.light, history, due, watch),) if is_mining and due else (),
        prospect=_build_offer(state.light, history, _count_subjects(state.light), watch) if is_mining else None,
        minute_of_day=measured.minute_of_day,
        profile=measured.profile,
        earned=measured.earned,
    )


def _build_round(state: AgentState, watch: Watch, history: RoundHistory, measured: Measured) -> RoundOutlook | None:
    """Return the round whose model this device lacks: a round is over for it once it has counted the reward."""
    light, durations = state.light, history.durations
    if state.trouble is Trouble.DIVERGED:
        return None
    is_running = light.is_synced and state.is_training and state.update.round == light.round
    left_core_s = _estimate_left(light.params, history, measured) if is_running else 0.0
    return RoundOutlook(
        number=light.model_round + 1,
        phase=light.phase,
        training_left_core_s=left_core_s,
        reward=float(light.params.reward_per_update),
        acceptance=history.acceptance.chance,
        deadline_ms=Millis(watch.since_ms + round(1000 * durations.mean_s)) if light.phase is Phase.COMMIT else None,
        deadline_offsets_s=durations.offsets_s,
    )


def _estimate_left(params: ChainParams, history: RoundHistory, measured: Measured) -> float:
    """Return the core-seconds left. Never 0: that would mean nothing to train, and training would never resume."""
    usual = history.train_core_s
    if usual is None:
        usual = FIRST_TRAINING_PART * params.commit_patience_ms / 1000
    done, steps = measured.steps
    if steps <= 0:
        return max(LEFT_CORE_S_MIN, usual - measured.training_core_s)
    return max(LEFT_CORE_S_MIN, estimate_work_left(done, steps, measured.training_core_s, usual))


def expect_round_of_scores(light: LightState) -> float:
    """Return coins for all scores of a round if every device of the chain mines: `docs/mining.md`, "What it earns"."""
    params = light.params
    part = params.mining_weight_bp / (SHARE_ALL + params.mining_weight_bp)
    return params.reward_for_scores * part / max(1, len(light.homes))


def _count_subjects(light: LightState) -> int:
    """Return how many models a full round has: every other device's update, each miner's aggregate, and the base."""
    return len(light.homes) + len(set(light.homes.values()))


def _build_offer(light: LightState, history: RoundHistory, models: int, watch: Watch) -> MiningOffer:
    """Return the offer for the round's scores, of which `models` are still to be computed.

    SCORE waits for the devices that have pledged scores, as COMMIT waits for those that train.
    """
    core_s = max(1, models) * (history.score_core_s or FIRST_SCORE_CORE_S)
    deadline_ms = None
    if watch.phase is Phase.SCORE:
        deadline_ms = Millis(watch.since_ms + light.params.commit_patience_ms)
    # A device may mine unpaid, for the chain's sake; only prices forbid it.
    return MiningOffer(max(REWARD_MIN, expect_round_of_scores(light)), core_s, due=1, deadline_ms=deadline_ms)


def describe_load(loads: tuple[float, ...]) -> tuple[float, float]:
    """Return mean and standard deviation of the last readings; without any, no load."""
    if not loads:
        return 0.0, 0.0
    mean = sum(loads) / len(loads)
    return mean, (sum((load - mean) ** 2 for load in loads) / len(loads)) ** 0.5
