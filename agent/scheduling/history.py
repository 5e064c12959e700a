"""What a device has learned of its chain's rounds and of itself: a plain value of bounded size, kept over restarts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import msgspec

from agent.scheduling.estimates import (
    AcceptanceForecast,
    DurationForecast,
    guess_duration,
    observe_duration,
    observe_verdict,
    observe_work,
)
from agent.scheduling.policies import Memory
from agent.scheduling.policies.learned import D
from agent.scheduling.values import DEADLINES_MAX

HISTORY_BYTES_MAX = 64 * 1024
"""Size limit of the encoded value, which holds a hundred floats and a few counters."""
FIRST_TRAINING_PART = 0.25
"""Until a training was seen, one is assumed to take one core for this part of the time that the chain waits."""
FIRST_SCORE_CORE_S = 1.0
VERDICTS_MAX = 200.0
"""Above this many verdicts, all are halved: older ones fade."""


@dataclass(frozen=True)
class RoundHistory:
    """What was learned. Counters run over all processes that have used this disk."""

    chain: str
    """The chain's name, hexadecimal: what was learned on another chain is not used."""
    durations: DurationForecast
    acceptance: AcceptanceForecast = field(default_factory=AcceptanceForecast)
    train_core_s: float | None = None
    """CPU seconds that a whole training usually takes."""
    score_core_s: float | None = None
    """CPU seconds that one score usually takes."""
    update_coins: int = 0
    """Earned by accepted updates, as the chain's rules say."""
    score_coins: float = 0.0
    """Earned by scores: an estimate, since a device cannot see how the others' reputations divide the pay."""
    scored_rounds: int = 0
    spent_core_s: float = 0.0
    """CPU seconds of training and mining."""
    policy: str = ""
    memory: Memory = None
    """What the policy of that name has learned."""


def build_history(chain: str, commit_patience_s: float) -> RoundHistory:
    """Return the history before the first round."""
    return RoundHistory(chain, guess_duration(commit_patience_s))


def observe_commit_phase(
    history: RoundHistory, seconds: float, patience_s: float, *, has_committed: bool
) -> RoundHistory:
    """Return the history after commitments were open for `seconds`.

    If this device's own was among them, the phase may have closed because of it. Without it the phase would have
        stayed open for as long as the chain waits, so the duration counts as at least `patience_s`.
    """
    open_s = max(seconds, patience_s) if has_committed else seconds
    return replace(history, durations=observe_duration(history.durations, open_s))


def observe_settled(history: RoundHistory, coins: int, *, is_accepted: bool) -> RoundHistory:
    """Return the history after an update of this device was settled; `coins` is what an accepted one earns."""
    known = history.acceptance
    if known.judged > VERDICTS_MAX:
        known = AcceptanceForecast(known.accepted / 2, known.judged / 2)
    earned = history.update_coins + (coins if is_accepted else 0)
    return replace(history, acceptance=observe_verdict(known, is_accepted), update_coins=earned)


def observe_training(history: RoundHistory, core_s: float) -> RoundHistory:
    """Return the history after a whole training that took `core_s` of CPU time."""
    usual = history.train_core_s
    return replace(history, train_core_s=core_s if usual is None else observe_work(usual, core_s))


def observe_score(history: RoundHistory, core_s: float) -> RoundHistory:
    """Return the history after one score that took `core_s` of CPU time."""
    usual = history.score_core_s
    return replace(history, score_core_s=core_s if usual is None else observe_work(usual, core_s))


def observe_scored_round(history: RoundHistory, coins: float) -> RoundHistory:
    """Return the history after a round that this device has scored; `coins` is what that is expected to earn."""
    return replace(history, scored_rounds=history.scored_rounds + 1, score_coins=history.score_coins + coins)


def encode_history(history: RoundHistory) -> bytes:
    """Return JSON. An open play is left out: what it earned cannot be known after a restart."""
    memory = history.memory
    if memory is not None:
        history = replace(history, memory=replace(memory, action=None, features=(), round=None))
    return msgspec.json.encode(history)


def decode_history(data: bytes, fresh: RoundHistory, policy: str) -> RoundHistory:
    """Return what was encoded, without another policy's memory; `fresh` if it is of another chain.

    Raises ValueError for what no `encode_history` has written.
    """
    try:
        found = msgspec.json.decode(data, type=RoundHistory)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
    if problem := _find_problem(found):
        raise ValueError(problem)
    if found.chain != fresh.chain:
        return fresh
    return replace(found, policy=policy, memory=found.memory if found.policy == policy else None)


def _find_problem(found: RoundHistory) -> str:
    durations, memory = found.durations.seen_s, found.memory
    numbers = [*durations, found.acceptance.accepted, found.acceptance.judged, found.score_coins, found.spent_core_s]
    numbers += [value for value in (found.train_core_s, found.score_core_s) if value is not None]
    if not 1 <= len(durations) <= DEADLINES_MAX:
        return "no durations, or too many"
    if not all(math.isfinite(value) and value >= 0 for value in numbers) or found.acceptance.judged <= 0:
        return "a number out of range"
    if memory is not None:
        if [len(row) for row in memory.a] != [D] * D or len(memory.b) != D:
            return "a memory of another size"
        if not all(math.isfinite(value) for row in (*memory.a, memory.b, (memory.scale,)) for value in row):
            return "a memory that is not a number"
    return ""
