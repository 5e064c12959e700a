"""The fleet as its words tell: who is well, silent, never heard; and the table that shows it."""

from __future__ import annotations

from typing import Any

import pytest

from flchain.base.errors import InvalidMessage, MalformedMessage
from flchain.base.types import Address
from flchain.wire.envelope import seal
from flchain.wire.fleet import Health, Status, UpdateState
from flchain.wire.messages import Receipt
from tests.support.builders.wire import build_word
from tests.vectors.make_messages import CHAIN
from tools.fleet.roster import Board, Heard, Standing, build_board, build_roster, choose, read_word, take_word
from tools.fleet.table import build_json, cut, format_age, format_roster, format_summary

NOW_S = 1_800_000_000.0
WRITTEN_MS = int(NOW_S * 1000)


def address(number: int) -> Address:
    return Address(bytes([number]) * 20)


def hear(age_s: float = 60.0, *, is_retained: bool = True, **changes: Any) -> Heard:
    """A word of some age, as the broker kept it."""
    written = {"written_ms": WRITTEN_MS - round(age_s * 1000)}
    return Heard(build_word(**{**written, **changes}), NOW_S, is_retained)


@pytest.mark.parametrize(
    ("heard", "standing"),
    [
        (None, Standing.NEVER),
        (hear(), Standing.WELL),
        (hear(health=Health.HELD), Standing.STRAINED),
        (hear(health=Health.BEHIND), Standing.STRAINED),
        (hear(health=Health.CUT_OFF), Standing.SICK),
        (hear(health=Health.MISMATCH), Standing.SICK),
        (hear(2_700.0), Standing.WELL),
        (hear(2_701.0), Standing.SILENT),
        (hear(2_701.0, health=Health.MISMATCH), Standing.SILENT),
        (hear(300.0, report_s=10), Standing.WELL),
        (hear(301.0, report_s=10), Standing.SILENT),
        (hear(2_700.0, report_s=0), Standing.WELL),
        (hear(200_000.0, report_s=86_400), Standing.WELL),
        (hear(written_ms=0), Standing.SILENT),
        (hear(written_ms=0, is_retained=False), Standing.WELL),
        (hear(9_999.0, is_retained=False), Standing.WELL),
        (hear(-9_999.0), Standing.WELL),
    ],
)
def test_a_word_is_judged_by_health_and_age(heard: Heard | None, standing: Standing) -> None:
    """Three of its own periods make a board silent; a word that has just come is fresh, whatever its clock says."""
    assert build_board(address(1), heard, NOW_S).standing is standing


def test_an_older_word_does_not_take_the_place_of_a_newer_one() -> None:
    """Brokers reorder and repeat; a word without a time is taken as it comes."""
    new, old, timeless = hear(1.0), hear(9.0), hear(written_ms=0)
    assert take_word(None, old) is old
    assert take_word(old, new) is new and take_word(new, old) is new
    assert take_word(new, timeless) is timeless and take_word(timeless, old) is old


def test_only_the_boards_own_signature_counts() -> None:
    """Another device's word under this board's address, another kind, a flipped bit: refused."""
    me, other = CHAIN.devices[:2]
    raw = seal(build_word(), CHAIN.id, me)
    assert read_word(raw, CHAIN.id, me.address, me.public_key) == build_word()
    for wrong in (
        seal(build_word(), CHAIN.id, other),
        seal(Receipt(1, bytes(32), "ok"), CHAIN.id, me),
        raw[:-1] + bytes([raw[-1] ^ 1]),
        seal(build_word(), b"x" * 32, me),
    ):
        with pytest.raises(InvalidMessage):
            read_word(wrong, CHAIN.id, me.address, me.public_key)
    with pytest.raises(MalformedMessage):
        read_word(raw, CHAIN.id, other.address, me.public_key)


FLEET: dict[Address, Heard] = {
    address(1): hear(name="roof-1", labels=("roof", "site=north"), version="0.2.0", task="watch", battery_percent=83),
    address(2): hear(name="cellar", version="0.1.0", health=Health.SENSOR_FAILED, reason="gps has failed: unplugged"),
    address(3): hear(9_000.0, name="gone", version="0.1.0", temperature_c=-12),
    address(5): hear(name="night", version="0.1.0", health=Health.HELD, reason="quiet hours", labels=("roof",)),
    address(6): hear(name="attic", version="0.2.0", release=7, update=UpdateState.CHECKING),
}


def build_fleet() -> tuple[Board, ...]:
    return build_roster([address(number) for number in range(1, 7)], FLEET, NOW_S)


def test_the_worst_stands_first() -> None:
    """Sick, silent, never heard, strained, well; of equals by name."""
    assert [board.title for board in build_fleet()] == ["cellar", "gone", "04" * 6, "night", "attic", "roof-1"]


def test_boards_are_chosen_by_all_labels() -> None:
    """Two labels mean both; a board that never spoke has none."""
    boards = build_fleet()
    assert [board.title for board in choose(boards, ["roof"])] == ["night", "roof-1"]
    assert [board.title for board in choose(boards, ["roof", "site=north"])] == ["roof-1"]
    assert choose(boards, []) == boards


def test_the_table_fits_80_columns_and_says_why_below() -> None:
    """No line is longer, columns stay, reasons come below, then the sum; without colours there is no escape."""
    lines = format_roster(build_fleet(), width=80, has_colours=False)
    assert all(len(line) <= 80 and line.isascii() and "\x1b" not in line for line in lines)
    assert lines[0].split() == ["BOARD", "VERSION", "TASK", "ROUND", "HEALTH", "BATT", "TEMP", "AGE"]
    place = lines[0].index("HEALTH")
    shown = [line[place:].split("  ")[0].strip() for line in lines[1:7]]
    assert shown == ["sensor failed", "SILENT (ok)", "NEVER HEARD", "held", "ok", "ok"]
    assert "  cellar: gps has failed: unplugged" in lines and "  night: quiet hours" in lines
    assert lines[-2] == "6 boards: 2 well, 1 sick, 1 silent, 1 never heard, 1 strained"
    assert lines[-1] == "versions: 0.1.0 on 3, 0.2.0 on 2"


def test_a_wide_terminal_has_the_reasons_beside_and_colours() -> None:
    """At 120 columns each line says why; red for the sick, and the reset at its end."""
    lines = format_roster(build_fleet(), width=120, has_colours=True)
    assert lines[1].startswith("\x1b[31mcellar") and lines[1].endswith("gps has failed: unplugged\x1b[0m")
    assert lines[5].endswith("release 7: checking")
    assert not any(line.startswith("  cellar") for line in lines)


def test_long_names_and_many_reasons_are_cut_with_a_mark() -> None:
    """A name of 32 letters never moves a column; of 30 reasons 20 are shown, and how many are not."""
    sick = {address(number): hear(name=f"{number:032}", health=Health.CUT_OFF, reason="r" * 80) for number in range(30)}
    lines = format_roster(build_roster(sick, sick, NOW_S), width=80, has_colours=False)
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].startswith("000000000000000~")
    assert "  and 10 more: a terminal of 110 columns shows all, --json too" in lines


def test_json_names_everything_and_guesses_nothing() -> None:
    """What is unknown is null; a board that never spoke has its address and how it stands."""
    rows = {str(row["address"]): row for row in build_json(build_fleet())}
    assert rows["04" * 20] == {"address": "04" * 20, "standing": "never", "age_s": None}
    row = rows["01" * 20]
    assert (row["name"], row["labels"], row["battery_percent"]) == ("roof-1", ["roof", "site=north"], 83)
    assert (row["suite"], row["temperature_c"], row["health"], row["update"]) == (None, None, "ok", "none")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "?"), (0, "0s"), (59.9, "59s"), (60, "1m"), (7_199, "1h"), (86_400 * 400, "400d")],
)
def test_an_age_is_short(seconds: float | None, text: str) -> None:
    """The largest unit, rounded down."""
    assert format_age(seconds) == text and cut("abcdef", 4) == "abc~"


def test_one_board_is_one_board() -> None:
    """The sum speaks English."""
    status: Status = build_word(version="0.2.0")
    assert format_summary([Board(address(1), status, 1.0, Standing.WELL)]) == [
        "1 board: 1 well",
        "versions: 0.2.0 on 1",
    ]
