"""When a board installs a release, as a table of what it sees; and how it ends its round first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from agent.core.machine import step
from agent.core.releases import is_between_rounds
from agent.core.values import LeavePlanned, Train
from agent.scheduling.readings import BoardReading
from agent.scheduling.updates import (
    ASK_AGAIN_MS,
    ROOT_WAIT_MS_MAX,
    ROUND_WAIT_MS_MAX,
    KeeperWord,
    UpdateSettings,
    UpdateSight,
    Wish,
    plan_update,
)
from agent.status.health import has_proved_itself
from agent.status.values import AgentStatus
from flchain.base.types import Millis
from flchain.rules.releases import Installed
from flchain.wire.fleet import UpdateState
from flchain.wire.messages import Phase
from flchain.wire.release import Package, Release, ReleaseState
from tests.support.bad_fields.nodes import NOW, build_agent
from tests.support.builders.chain import NO_CLOCK
from tests.support.builders.status import NOW as NOW_STATUS

RELEASE = Release(7, "0.2.0", (Package("trixie", "arm64", b"h" * 32, 13_000_000),), 500, ReleaseState.ROLLING, 900, 0)
MAINS = BoardReading(free_memory_bytes=10**9, is_on_battery=False)
BATTERY = BoardReading(free_memory_bytes=10**9, is_on_battery=True, battery_fraction=0.49)
READY = UpdateSight(
    release=RELEASE,
    installed=Installed("0.1.0", "trixie", "arm64"),
    is_in_tranche=True,
    keeper=KeeperWord(),
    has_package=True,
    free_bytes=10**9,
    fault="",
    reading=MAINS,
    minute_of_day=120,
    is_between_rounds=True,
    now_ms=Millis(10**9),
    leaving_ms=Millis(10**9 - 1),
)
S = UpdateState


def change_release(**changes: Any) -> Release:
    fields = {name: getattr(RELEASE, name) for name in RELEASE.__struct_fields__}
    return Release(**(fields | changes))


ROWS: list[tuple[str, dict[str, Any], UpdateState, Wish, str]] = [
    ("all is well", {}, S.READY, Wish.REQUEST, ""),
    ("no release", {"release": None}, S.NONE, Wish.NOTHING, ""),
    ("halted", {"release": change_release(state=ReleaseState.HALTED)}, S.WAITING, Wish.NOTHING, "halted"),
    ("runs already", {"release": change_release(version="0.1.0")}, S.DONE, Wish.NOTHING, ""),
    ("an older one", {"release": change_release(version="0.0.9")}, S.REFUSED, Wish.NOTHING, "older than what runs"),
    ("of no use here", {"installed": Installed("0.1.0", "noble", "arm64")}, S.REFUSED, Wish.NOTHING, "no package"),
    ("a later tranche", {"is_in_tranche": False}, S.WAITING, Wish.NOTHING, "tranche"),
    ("no package yet", {"has_package": False}, S.FETCHING, Wish.FETCH, ""),
    ("no room for it", {"has_package": False, "free_bytes": 20_000_000}, S.WAITING, Wish.NOTHING, "the disk is full"),
    ("fetching fails", {"has_package": False, "fault": "no route"}, S.FETCHING, Wish.FETCH, "no route"),
    ("in mid-round", {"is_between_rounds": False}, S.READY, Wish.LEAVE, "end of the round"),
    ("not asked to leave yet", {"leaving_ms": None}, S.READY, Wish.LEAVE, "end of the round"),
    (
        "a round without end",
        {"is_between_rounds": False, "leaving_ms": Millis(10**9 - ROUND_WAIT_MS_MAX)},
        S.READY,
        Wish.REQUEST,
        "",
    ),
    ("low battery", {"reading": BATTERY}, S.WAITING, Wish.NOTHING, "battery 49%, begins above 50%"),
    ("charged", {"reading": replace(BATTERY, battery_fraction=0.5)}, S.READY, Wish.REQUEST, ""),
    ("low, but on mains", {"reading": replace(BATTERY, is_on_battery=False)}, S.READY, Wish.REQUEST, ""),
    ("low, and nobody knows", {"reading": replace(BATTERY, is_on_battery=None)}, S.WAITING, Wish.NOTHING, "battery"),
    (
        "unmeasured charge",
        {"reading": replace(BATTERY, battery_fraction=None)},
        S.WAITING,
        Wish.NOTHING,
        "cannot be read",
    ),
    ("undervolted", {"reading": replace(MAINS, is_undervolted=True)}, S.WAITING, Wish.NOTHING, "voltage"),
    ("not measured yet", {"reading": None}, S.WAITING, Wish.NOTHING, "measured"),
    ("asked for", {"asked_ms": Millis(10**9 - 5)}, S.INSTALLING, Wish.NOTHING, ""),
    (
        "root is silent",
        {"asked_ms": Millis(10**9 - ROOT_WAIT_MS_MAX)},
        S.REFUSED,
        Wish.RETRACT,
        "flchain-update.path",
    ),
    (
        "root refuses",
        {"asked_ms": Millis(10**9 - 5), "keeper": KeeperWord(S.REFUSED, "0.2.0", 7, "damaged")},
        S.REFUSED,
        Wish.RETRACT,
        "damaged",
    ),
    (
        "root has refused another release",
        {"asked_ms": Millis(10**9 - 5), "keeper": KeeperWord(S.REFUSED, "0.1.9", 6, "damaged")},
        S.INSTALLING,
        Wish.NOTHING,
        "",
    ),
    (
        "root refused a while ago",
        {"refused_ms": Millis(10**9 - 5), "keeper": KeeperWord(S.REFUSED, "0.2.0", 7, "damaged")},
        S.REFUSED,
        Wish.NOTHING,
        "damaged",
    ),
    ("root refused long ago", {"refused_ms": Millis(10**9 - ASK_AGAIN_MS)}, S.READY, Wish.REQUEST, ""),
    (
        "gone back from",
        {
            "installed": Installed("0.1.0", "trixie", "arm64", frozenset({"0.2.0"})),
            "keeper": KeeperWord(S.ROLLED_BACK, "0.2.0", 7, "no word"),
        },
        S.ROLLED_BACK,
        Wish.NOTHING,
        "no word",
    ),
    (
        "proves itself",
        {"installed": Installed("0.2.0", "trixie", "arm64"), "keeper": KeeperWord(S.CHECKING, "0.2.0", 7)},
        S.CHECKING,
        Wish.NOTHING,
        "",
    ),
    (
        "has proved itself",
        {"installed": Installed("0.2.0", "trixie", "arm64"), "keeper": KeeperWord(S.DONE, "0.2.0", 7)},
        S.DONE,
        Wish.NOTHING,
        "",
    ),
]


@pytest.mark.parametrize(("name", "changes", "state", "wish", "word"), ROWS, ids=[row[0] for row in ROWS])
def test_what_a_board_does_about_a_release(
    name: str, changes: dict[str, Any], state: UpdateState, wish: Wish, word: str
) -> None:
    """Ready in all but one thing: what it says, and what it does."""
    plan = plan_update(UpdateSettings(), replace(READY, **changes))
    assert (plan.state, plan.wish) == (state, wish)
    assert word in plan.detail and bool(word) == bool(plan.detail)


@pytest.mark.parametrize(("hours", "minute", "may"), [
    ("01:00-05:00", 60, True),
    ("01:00-05:00", 59, False),
    ("01:00-05:00", 300, False),
    ("22:00-02:00", 30, True),
    ("22:00-02:00", None, False),
    ("", None, True),
])  # fmt: skip
def test_the_operators_hours(hours: str, minute: int | None, may: bool) -> None:
    """It begins within them, and not at all while the time is unknown; without hours at any time."""
    plan = plan_update(UpdateSettings(hours=hours), replace(READY, minute_of_day=minute))
    assert (plan.wish is Wish.REQUEST) == may


def test_an_operator_can_switch_updates_off() -> None:
    """Nothing is fetched, nothing asked for."""
    plan = plan_update(UpdateSettings(enabled=False), replace(READY, has_package=False))
    assert (plan.wish, plan.state) == (Wish.NOTHING, UpdateState.NONE)


def test_no_limit_on_the_battery() -> None:
    """With battery_min = 0 any charge will do, known or not."""
    for reading in (BATTERY, replace(BATTERY, battery_fraction=None)):
        assert plan_update(UpdateSettings(battery_min=0.0), replace(READY, reading=reading)).wish is Wish.REQUEST


def test_a_device_that_leaves_ends_its_round_and_begins_no_other() -> None:
    """Asked to leave before the round's first header it does not train; if nothing comes of it, it does."""
    idle = build_agent()
    leaving, effects = step(idle, LeavePlanned(True), NOW, NO_CLOCK)
    assert leaving.is_leaving and not effects and is_between_rounds(leaving)
    followed = build_agent(2)
    assert followed.light.phase is Phase.COMMIT or followed.is_training
    assert not is_between_rounds(followed), "it trains for the open round"
    waiting = replace(followed, update=type(followed.update)(), is_leaving=True)
    assert is_between_rounds(waiting)
    after, effects = step(waiting, LeavePlanned(False), NOW, NO_CLOCK)
    assert not after.is_leaving
    if after.light.phase is Phase.COMMIT:
        assert any(isinstance(effect, Train) for effect in effects)


@pytest.mark.parametrize(
    ("changes", "is_finished", "proved"),
    [
        ({"receipt_age_s": 3.0}, False, True),
        ({"receipt_age_s": None}, False, False),
        ({"receipt_age_s": None, "is_held": True}, False, True),
        ({"receipt_age_s": None, "is_held": True, "is_synced": False}, False, False),
        ({"receipt_age_s": None, "is_held": True, "is_time_known": False}, False, False),
        ({"receipt_age_s": None, "is_held": True, "is_mismatch": True}, False, False),
        ({"receipt_age_s": None}, True, True),
    ],
)
def test_what_proves_a_version(changes: dict[str, Any], is_finished: bool, proved: bool) -> None:
    """A miner's receipt does; a board that may not compute has to hold the newest model under a verified header."""
    plain = {"is_synced": True, "is_time_known": True, "is_held": False, "is_mismatch": False}
    status = msgspec.convert(NOW_STATUS | plain | changes, AgentStatus)
    assert has_proved_itself(status, is_finished=is_finished) == proved
