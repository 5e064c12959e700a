"""What a board tells its operator, when, and in which word."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agent.core.values import Report
from agent.status.health import Judgement, clip_reason, judge_health
from agent.status.report import BoardFacts, RoundDone, Spoken, build_facts, build_report, is_due, note_spoken, settle
from agent.status.values import AgentStatus, UpdateReport
from flchain.base.types import Hash, Round, UnixMillis
from flchain.wire.envelope import seal
from flchain.wire.fields import COUNTER_MAX
from flchain.wire.fleet import STATUS_BYTES_MAX, Health, Status, UpdateState
from tests.support.builders.status import build_status
from tests.support.builders.wire import SENDER, build_word
from tests.vectors.make_messages import CHAIN

WELL = msgspec.structs.replace(build_status(), sensors=(), board=None)
SENSOR = build_status().sensors[0]
BOARD = build_status().board
OTHER = UpdateReport(release=3, state=UpdateState.ROLLED_BACK, detail="no word in a round within 15 min")


def change(**changes: Any) -> AgentStatus:
    return msgspec.structs.replace(WELL, **changes)


def on_board(**changes: Any) -> AgentStatus:
    assert BOARD is not None
    known = {name: getattr(BOARD, name) for name in BOARD.__dataclass_fields__}
    return change(board=type(BOARD)(**{**known, **changes}))


@pytest.mark.parametrize(
    ("status", "health", "reason"),
    [
        (WELL, Health.OK, ""),
        (on_board(), Health.OK, ""),
        (change(is_mismatch=True, is_synced=False), Health.MISMATCH, "computed another model than the chain's"),
        (change(is_expired=True), Health.EXPIRED, "away for too long, or its clock is ahead"),
        (change(update=OTHER), Health.UPDATE_FAILED, "no word in a round within 15 min"),
        (change(has_failed_training=True), Health.TRAINING_FAILED, "in round 128"),
        (
            change(sensors=(msgspec.structs.replace(SENSOR, state="failed", detail="unplugged \u00b0"),)),
            Health.SENSOR_FAILED,
            "watch has failed: unplugged ?",
        ),
        (
            change(sensors=(SENSOR, msgspec.structs.replace(SENSOR, state="silent"))),
            Health.SENSOR_FAILED,
            "watch is silent",
        ),
        (change(chain_time_age_s=660.0), Health.CUT_OFF, "no word from a miner for 11 min"),
        (
            change(is_time_known=False, chain_time_age_s=None, up_s=1200.0),
            Health.CUT_OFF,
            "no word from a miner for 20 min",
        ),
        (change(is_time_known=False, chain_time_age_s=None, up_s=20.0), Health.OK, ""),
        (change(is_synced=False), Health.BEHIND, "has the model of round 127"),
        (on_board(is_throttled=True), Health.HOT, "throttled by its firmware"),
        (on_board(temperature_c=84.2), Health.HOT, "84 C"),
        (on_board(is_throttled=True, is_undervolted=True), Health.UNDERVOLTED, "look at its supply"),
        (on_board(battery_fraction=0.1), Health.BATTERY_LOW, "10% left"),
        (on_board(battery_fraction=0.1, is_on_battery=False), Health.OK, ""),
        (change(is_held=True), Health.HELD, WELL.scheduler.explanation[:77] + "..."),
    ],
)
def test_the_worst_word_is_said_with_its_reason(status: AgentStatus, health: Health, reason: str) -> None:
    """Each trouble has its word; what is worse hides what is better; a charging battery is no trouble."""
    assert judge_health(status) == Judgement(health, reason)


def test_only_what_a_person_must_see_is_sick() -> None:
    """Heat, charge, quiet hours and a model that is on its way pass by themselves; the others do not."""
    assert [health.name for health in Health if not health.is_sick] == [
        "OK",
        "HELD",
        "BATTERY_LOW",
        "HOT",
        "UNDERVOLTED",
        "BEHIND",
    ]


def test_a_reason_never_breaks_a_terminal_or_a_limit() -> None:
    """Line ends, escapes and other alphabets become question marks; a long text ends in three dots."""
    assert clip_reason("a\x1b[2J\nb\u202e") == "a?[2J?b?"
    assert clip_reason("x" * 81) == "x" * 77 + "..."


def test_what_the_system_says_in_another_form_is_left_out() -> None:
    """A version, suite or architecture that no Status can carry is empty, never a fault of the agent."""
    wrong = build_facts("a", ("b",), "c", version="1 0", suite="Bookworm", architecture="x" * 17)
    assert wrong == BoardFacts("a", ("b",), "c")
    right = build_facts("", (), "", version="0.2.0+git1", suite="bookworm", architecture="arm64")
    assert (right.version, right.suite, right.architecture) == ("0.2.0+git1", "bookworm", "arm64")


def test_a_report_holds_the_last_round_and_whole_numbers() -> None:
    """Round and model are those of the newest report; charge and heat are rounded; what is impossible is unmeasured."""
    done = RoundDone(Report(Round(127), Hash(b"h" * 32), False, True, None))
    status = on_board(temperature_c=61.6, battery_fraction=0.834)
    word = build_report(status, Judgement(Health.OK), BoardFacts("n"), done, written_ms=UnixMillis(5), report_s=9)
    assert (word.round, word.model_hash, word.training_ms, word.up_s) == (127, b"h" * 32, 0, 273_600)
    assert (word.battery_percent, word.temperature_c, word.written_ms, word.name) == (83, 62, 5, "n")
    status = on_board(temperature_c=999.0, battery_fraction=7.0)
    word = build_report(status, Judgement(Health.OK), BoardFacts(), None, written_ms=None, report_s=0)
    assert (word.battery_percent, word.temperature_c, word.written_ms) == (None, None, 0)
    assert (word.round, word.model_hash.hex()) == (127, status.model_hash)


def test_the_longest_status_fits() -> None:
    """With every text and number at its limit the signed message is within STATUS_BYTES_MAX."""
    names = ("training_ms", "bytes_up", "bytes_down", "written_ms", "up_s", "report_s", "release")
    numbers: dict[str, Any] = dict.fromkeys(names, COUNTER_MAX)
    texts: dict[str, Any] = {
        "name": "n" * 32,
        "task": "t" * 64,
        "version": "v" * 32,
        "suite": "s" * 16,
        "architecture": "a" * 16,
    }
    word = build_word(COUNTER_MAX, labels=("l" * 24,) * 8, reason="r" * 80, **texts, **numbers)
    assert len(seal(word, CHAIN.id, SENDER)) <= STATUS_BYTES_MAX


def speak(every_s: int, *moments: tuple[float, Status, bool]) -> list[float]:
    """When words are published, given when each was asked for."""
    spoken, told = Spoken(), []
    for now_s, word, has_news in moments:
        if is_due(spoken, word, every_s=every_s, now_s=now_s, has_news=has_news):
            spoken = note_spoken(spoken, word, every_s=every_s, now_s=now_s, has_news=has_news)
            told.append(now_s)
    return told


KNOWN = build_word(written_ms=1)


def test_words_are_seldom_but_the_first_round_is_told() -> None:
    """At the start, after the first round, then once a period, however many rounds end."""
    rounds = [(float(second), KNOWN, True) for second in range(10, 3_700, 10)]
    assert speak(900, (0.0, KNOWN, False), *rounds) == [0.0, 10.0, 900.0, 1_800.0, 2_700.0, 3_600.0]


def test_a_process_that_knows_no_time_waits_for_a_minute() -> None:
    """Just started, with no miner heard: silent for 60 s, then it says what it knows."""
    moments = [(float(s), build_word(up_s=s), False) for s in range(0, 100, 5)]
    assert speak(900, *moments) == [60.0]


def test_a_change_is_told_at_once_and_a_flicker_is_bounded() -> None:
    """A new word of health or a step of an update comes at once; of endless changes eight in a period do."""
    ill = build_word(written_ms=1, health=Health.SENSOR_FAILED)
    updating = build_word(written_ms=1, release=2, update=UpdateState.FETCHING)
    assert speak(900, (0.0, KNOWN, False), (5.0, ill, False), (10.0, updating, False)) == [0.0, 5.0, 10.0]
    flicker = [(5.0 * n, (KNOWN, ill)[n % 2], False) for n in range(400)]
    told = speak(900, *flicker)
    assert len(told) == 3 * 9 and told[:10] == [*(5.0 * n for n in range(9)), 900.0]


def test_with_no_period_each_round_is_told() -> None:
    """Experiments set 0: a word for each round, none between."""
    moments = [(float(s), KNOWN, s % 3 == 0) for s in range(10)]
    assert speak(0, *moments) == [0.0, 3.0, 6.0, 9.0]


def test_a_passing_word_is_not_shown() -> None:
    """Behind for some seconds of each round is no news; behind for a minute is."""
    well, behind = Judgement(Health.OK), Judgement(Health.BEHIND)
    mood = settle(None, well, 0.0)
    for now_s in (10.0, 69.0):
        mood = settle(mood, behind, now_s)
        assert mood.shown == well
    assert settle(mood, behind, 70.0).shown == behind
    mood = settle(settle(mood, well, 69.5), behind, 70.0)
    assert mood.shown == well
