"""What a board tells its operator, and when: at once what changed, otherwise seldom. Bytes cost on slow links."""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent.core.values import Report
from agent.scheduling.readings import BoardReading
from agent.status.health import Judgement
from agent.status.values import AgentStatus
from flchain.base.types import UnixMillis
from flchain.wire.fleet import SYSTEM_PATTERN, VERSION_PATTERN, Health, Status, UpdateState

SUDDEN_MAX = 8
"""Changes that are told between two regular words: more than an update has steps, and an end to what flickers."""
PATIENCE_S = 60.0
"""A process that has not heard a miner yet says nothing for so long: it may only have been started."""
SETTLE_S = 60.0


@dataclass(frozen=True)
class BoardFacts:
    """What does not change while a process runs. Unknown texts are empty."""

    name: str = ""
    labels: tuple[str, ...] = ()
    task: str = ""
    version: str = ""
    suite: str = ""
    architecture: str = ""


def build_facts(
    name: str, labels: tuple[str, ...], task: str, *, version: str, suite: str, architecture: str
) -> BoardFacts:
    """Return the facts; what the system says of itself in another form than a Status can carry is left out."""
    return BoardFacts(
        name,
        labels,
        task,
        version if re.fullmatch(VERSION_PATTERN, version) else "",
        suite if re.fullmatch(SYSTEM_PATTERN, suite) else "",
        architecture if re.fullmatch(SYSTEM_PATTERN, architecture) else "",
    )


@dataclass(frozen=True)
class RoundDone:
    """The newest round whose model this device has computed, and what its training took."""

    report: Report

    @property
    def training_ms(self) -> int:
        """Return 0 if the device took no part."""
        return self.report.work.training_ms if self.report.work else 0


def build_report(
    status: AgentStatus,
    judged: Judgement,
    facts: BoardFacts,
    done: RoundDone | None,
    *,
    written_ms: UnixMillis | None,
    report_s: int,
) -> Status:
    """Return the word as of now; without a round of this process, the one that it was started with."""
    battery, temperature = _round_readings(status.board)
    return Status(
        round=done.report.round if done else max(0, status.model_round),
        model_hash=done.report.model_hash if done else bytes.fromhex(status.model_hash),
        is_mismatch=done.report.is_mismatch if done else status.is_mismatch,
        training_ms=done.training_ms if done else 0,
        bytes_up=status.link.bytes_sent,
        bytes_down=status.link.bytes_received,
        written_ms=written_ms or 0,
        up_s=int(status.up_s),
        report_s=report_s,
        name=facts.name,
        labels=facts.labels,
        task=facts.task,
        version=facts.version,
        suite=facts.suite,
        architecture=facts.architecture,
        health=judged.health,
        reason=judged.reason,
        battery_percent=battery,
        temperature_c=temperature,
        release=status.update.release,
        update=status.update.state,
    )


def _round_readings(board: BoardReading | None) -> tuple[int | None, int | None]:
    """Return percent and degrees; a reading outside of what a board can be is unmeasured."""
    if board is None:
        return None, None
    battery, temperature = board.battery_fraction, board.temperature_c
    return (
        round(100 * battery) if battery is not None and 0.0 <= battery <= 1.0 else None,
        round(temperature) if temperature is not None and -60.0 <= temperature <= 200.0 else None,
    )


@dataclass(frozen=True)
class Settled:
    """A board's health without what passes by itself: a device is behind for a moment in every round."""

    shown: Judgement
    other: Health
    """What has been judged since `since_s`, if it is not what is shown."""
    since_s: float


def settle(before: Settled | None, judged: Judgement, now_s: float) -> Settled:
    """Return what to show: another word than before only once it has held for SETTLE_S."""
    if before is None or judged.health == before.shown.health:
        return Settled(judged, judged.health, now_s)
    since_s = before.since_s if judged.health == before.other else now_s
    if now_s - since_s >= SETTLE_S:
        return Settled(judged, judged.health, now_s)
    return Settled(before.shown, judged.health, since_s)


@dataclass(frozen=True)
class Spoken:
    """The words so far: when the last regular one was, how many came since, and what the last one said."""

    regular_s: float | None = None
    sudden: int = 0
    health: Health = Health.OK
    update: tuple[int, UpdateState] = (0, UpdateState.NONE)
    has_told_round: bool = False
    """Whether a round that this process has finished was told: it does its work again after the start."""


def is_due(spoken: Spoken, word: Status, *, every_s: int, now_s: float, has_news: bool) -> bool:
    """Return whether to publish `word`. `has_news`: a round has ended since the last one.

    With `every_s` 0 each round is told, as experiments want it.
    """
    if spoken.regular_s is None:
        return bool(word.written_ms) or word.up_s >= PATIENCE_S or has_news
    if every_s == 0 and has_news:
        return True
    return (every_s > 0 and now_s - spoken.regular_s >= every_s) or _is_sudden(spoken, word, has_news)


def _is_sudden(spoken: Spoken, word: Status, has_news: bool) -> bool:
    is_new = (word.health, word.release, word.update) != (spoken.health, *spoken.update)
    return spoken.sudden < SUDDEN_MAX and (is_new or (has_news and not spoken.has_told_round))


def note_spoken(spoken: Spoken, word: Status, *, every_s: int, now_s: float, has_news: bool) -> Spoken:
    """Return the memory after `word` has been published."""
    is_regular = spoken.regular_s is None or now_s - spoken.regular_s >= every_s
    return Spoken(
        regular_s=now_s if is_regular else spoken.regular_s,
        sudden=0 if is_regular else spoken.sudden + 1,
        health=word.health,
        update=(word.release, word.update),
        has_told_round=spoken.has_told_round or has_news,
    )
