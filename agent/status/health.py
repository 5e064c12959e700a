"""Say in one word how a board does, and why: the worst of what its own status tells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agent.status.values import AgentStatus
from flchain.wire.fleet import REASON_CHARACTERS_MAX, Health

UNHEARD_S = 600.0
"""No word from a miner for so long, in a network whose heights take seconds."""
OUTBOX_MANY = 8
"""Messages that wait for a receipt; a healthy device has one or two."""
HOT_C = 80.0
"""Boards of this class throttle from here on."""
BATTERY_LOW = 0.15
FAULTY = {"failed": "has failed", "silent": "is silent"}
"""A sensor's state, and how it is put."""


@dataclass(frozen=True)
class Judgement:
    """A word, and the reason in printable ASCII; empty where the word says all."""

    health: Health
    reason: str = ""


def judge_health(status: AgentStatus) -> Judgement:
    """Return the worst word that holds, with the first reason for it."""
    return max(_list_words(status), key=lambda found: found.health)


def _list_words(status: AgentStatus) -> Iterator[Judgement]:
    yield Judgement(Health.OK)
    if status.is_mismatch:
        yield Judgement(Health.MISMATCH, "computed another model than the chain's")
    if status.is_expired:
        yield Judgement(Health.EXPIRED, "away for too long, or its clock is ahead")
    if status.update.state.is_failed:
        yield Judgement(Health.UPDATE_FAILED, clip_reason(status.update.detail))
    if status.has_failed_training:
        yield Judgement(Health.TRAINING_FAILED, f"in round {status.round}")
    if not status.is_synced:
        yield Judgement(Health.BEHIND, f"has the model of round {status.model_round}")
    if status.is_held:
        yield Judgement(Health.HELD, clip_reason(status.scheduler.explanation))
    yield from _list_link_words(status)
    yield from _list_board_words(status)
    for sensor in status.sensors:
        if sensor.state in FAULTY:
            detail = f": {sensor.detail}" if sensor.detail else ""
            yield Judgement(Health.SENSOR_FAILED, clip_reason(f"{sensor.name} {FAULTY[sensor.state]}{detail}"))


def _list_link_words(status: AgentStatus) -> Iterator[Judgement]:
    # Before the first word of a miner the process itself is what has waited.
    silence_s = status.up_s if not status.is_time_known else status.chain_time_age_s or 0.0
    if silence_s >= UNHEARD_S:
        yield Judgement(Health.CUT_OFF, f"no word from a miner for {silence_s / 60:.0f} min")
    elif len(status.outbox) >= OUTBOX_MANY:
        yield Judgement(Health.CUT_OFF, f"{len(status.outbox)} messages wait for a miner's receipt")


def _list_board_words(status: AgentStatus) -> Iterator[Judgement]:
    board = status.board
    if board is None:
        return
    if board.is_undervolted:
        yield Judgement(Health.UNDERVOLTED, "look at its supply")
    if board.is_throttled and not board.is_undervolted:  # the firmware throttles for both
        yield Judgement(Health.HOT, "throttled by its firmware")
    elif board.temperature_c is not None and board.temperature_c >= HOT_C:
        yield Judgement(Health.HOT, f"{board.temperature_c:.0f} C")
    is_supplied = board.is_on_battery is False
    if not is_supplied and board.battery_fraction is not None and board.battery_fraction < BATTERY_LOW:
        yield Judgement(Health.BATTERY_LOW, f"{board.battery_fraction:.0%} left")


def clip_reason(text: str) -> str:
    """Return the text as a Status may carry it: printable ASCII, and short."""
    shown = "".join(letter if " " <= letter <= "~" else "?" for letter in text)
    return shown if len(shown) <= REASON_CHARACTERS_MAX else shown[: REASON_CHARACTERS_MAX - 3] + "..."


def has_proved_itself(status: AgentStatus, *, is_finished: bool) -> bool:
    """Return whether this process has shown that its version works: a miner has taken a message of it.

    A board that the scheduler rests, or whose rounds are over, has nothing to say: it must then hold the newest model,
    under a header that it has verified itself.
    """
    if status.receipt_age_s is not None:
        return True
    return status.is_time_known and status.is_synced and not status.is_mismatch and (status.is_held or is_finished)
