"""How a rollout goes on: each decision by itself, in scenes of a few boards."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import pytest

from flchain.base.errors import ConfigError
from flchain.base.types import Address
from flchain.wire.fleet import Health, UpdateState
from tests.support.builders.wire import build_word
from tools.fleet.rollout import (
    Candidate,
    Outcome,
    Plan,
    Rollout,
    Stage,
    begin,
    compute_shares,
    find_tranche,
    halt,
    judge,
    rebuild,
    resume,
    step,
)
from tools.fleet.roster import Board, Standing

NEW, OLD = "0.2.0", "0.1.0"
PLAN = Plan(NEW, (1_000, 5_000, 10_000), soak_s=100, health_min=90, patience_s=1_000)
FIRST = 7


def board(number: int, standing: Standing = Standing.WELL, **changes: Any) -> Board:
    known = {"version": OLD, "suite": "bookworm", "architecture": "arm64"}
    return Board(Address(bytes([number]) * 20), build_word(**{**known, **changes}), 1.0, standing)


def place(one: Board, place_bp: int, *, has_package: bool = True) -> Candidate:
    return Candidate(one, place_bp, has_package)


def updated(number: int, **changes: Any) -> Board:
    return board(number, **{"version": NEW, "release": FIRST, "update": UpdateState.DONE, **changes})


TEN = tuple(board(number) for number in range(10))
"""Ten boards that were well; board n has place 1,000 n: one in the first tranche, four and five in the next."""
SEEN = tuple(place(one, 1_000 * number) for number, one in enumerate(TEN))
ROLLOUT = dataclasses.replace(begin(PLAN, SEEN, 0.0, FIRST), shares_bp=PLAN.tranches_bp)


def see(*changed: Board) -> tuple[Candidate, ...]:
    """All ten, some of them changed."""
    known = {one.address: one for one in (*TEN, *changed)}
    return tuple(place(one, 1_000 * number) for number, one in enumerate(known.values()))


def at(tranche: int, **changes: Any) -> Rollout:
    return dataclasses.replace(ROLLOUT, tranche=tranche, **changes)


@pytest.mark.parametrize(
    ("one", "outcome"),
    [
        (TEN[0], Outcome.PENDING),
        (updated(0), Outcome.UPDATED),
        (updated(0, update=UpdateState.CHECKING), Outcome.PENDING),
        (updated(0, release=0, update=UpdateState.NONE), Outcome.UPDATED),
        (board(0, update=UpdateState.WAITING, release=FIRST), Outcome.PENDING),
        (board(0, update=UpdateState.ROLLED_BACK, release=FIRST), Outcome.FAILED),
        (board(0, update=UpdateState.REFUSED, release=FIRST + 1), Outcome.FAILED),
        (board(0, update=UpdateState.ROLLED_BACK, release=FIRST - 1), Outcome.PENDING),
        (board(0, Standing.SILENT), Outcome.FAILED),
        (updated(0, health=Health.MISMATCH), Outcome.UPDATED),
        (dataclasses.replace(updated(0), standing=Standing.SICK), Outcome.FAILED),
        (dataclasses.replace(updated(0), standing=Standing.STRAINED), Outcome.UPDATED),
        (Board(TEN[0].address), Outcome.FAILED),
        (board(77), Outcome.UNWELL_BEFORE),
        (board(0, version="0.3.0"), Outcome.UPDATED),
        (board(0, version="dev"), Outcome.PENDING),
        (board(0, Standing.SICK, health=Health.UPDATE_FAILED, update=UpdateState.REFUSED), Outcome.PENDING),
        (
            board(0, Standing.SICK, health=Health.UPDATE_FAILED, update=UpdateState.REFUSED, release=FIRST),
            Outcome.FAILED,
        ),
        (
            updated(0, version="0.3.0", health=Health.UPDATE_FAILED, update=UpdateState.REFUSED),
            Outcome.UPDATED,
        ),
        (board(0, release=FIRST), Outcome.LEFT_OUT),
    ],
)
def test_what_has_become_of_a_board(one: Board, outcome: Outcome) -> None:
    """By version, state of the update and standing; only words about this rollout's releases count."""
    assert judge(ROLLOUT, place(one, 0)) is outcome


def test_a_board_without_a_package_is_left_out() -> None:
    """It neither fails nor delays; once it has the version by other means, it counts as updated."""
    assert judge(ROLLOUT, place(TEN[0], 0, has_package=False)) is Outcome.LEFT_OUT
    assert judge(ROLLOUT, place(updated(0), 0, has_package=False)) is Outcome.UPDATED
    assert judge(ROLLOUT, place(TEN[0], 1_000)) is Outcome.LATER
    assert judge(ROLLOUT, place(dataclasses.replace(TEN[0], standing=Standing.SILENT), 1_000)) is Outcome.LATER


def test_a_board_that_refused_an_earlier_release_is_judged_by_this_one() -> None:
    """It does its work, so a mended version has to reach it, too; a board that is sick otherwise is not judged."""
    refused = board(0, Standing.SICK, health=Health.UPDATE_FAILED, update=UpdateState.ROLLED_BACK, release=FIRST - 1)
    ill = board(1, Standing.SICK, health=Health.CUT_OFF)
    fresh = begin(PLAN, (place(refused, 0), place(ill, 1_000)), 0.0, FIRST)
    assert fresh.well_before == {refused.address}
    assert step(fresh, (place(refused, 0), place(ill, 1_000)), 5.0) == fresh


def test_it_waits_until_the_tranche_has_proved_itself_for_the_whole_soak() -> None:
    """Pending: wait; updated: soak; after it the next tranche, from then on."""
    assert step(ROLLOUT, see(), 50.0) == ROLLOUT
    soaking = step(ROLLOUT, see(updated(0)), 60.0)
    assert (soaking.tranche, soaking.sound_s) == (0, 60.0)
    assert step(soaking, see(updated(0)), 159.0) == soaking
    after = step(soaking, see(updated(0)), 160.0)
    assert (after.tranche, after.since_s, after.sound_s, after.stage) == (1, 160.0, None, Stage.ROLLING)


def test_a_soak_that_is_interrupted_begins_again() -> None:
    """The board goes back to proving itself: the time that it was well before does not count."""
    soaking = step(ROLLOUT, see(updated(0)), 60.0)
    broken = step(soaking, see(updated(0, update=UpdateState.CHECKING)), 100.0)
    assert broken.sound_s is None
    assert step(broken, see(updated(0)), 170.0).sound_s == 170.0


def test_one_failed_board_of_one_halts() -> None:
    """The first tranche is one board, and it goes back: nothing further."""
    gone_back = board(0, update=UpdateState.ROLLED_BACK, release=FIRST)
    halted = step(ROLLOUT, see(gone_back), 5.0)
    assert halted.stage is Stage.HALTED and halted.reason == "1 of 1 boards of this tranche have failed"
    assert step(halted, see(updated(0)), 9_999.0) == halted


def test_one_of_ten_may_fail_at_90_percent_but_not_two() -> None:
    """The bound is what must come through: at 90 one of ten in all may fail, if its own tranche bears it."""
    last = at(2, plan=dataclasses.replace(PLAN, health_min=80))
    nine = [updated(number) for number in range(9)]
    assert step(last, see(*nine, board(9, Standing.SILENT)), 5.0).sound_s == 5.0
    two = step(last, see(*nine[:8], board(8, Standing.SILENT), board(9, Standing.SILENT)), 5.0)
    assert two.stage is Stage.HALTED and two.reason == "2 of 5 boards of this tranche have failed"


def test_earlier_tranches_are_watched_to_the_end() -> None:
    """Boards of the first two tranches fall silent while the last one is under way: halted, because of them."""
    lost = [board(number, Standing.SILENT) for number in (1, 2)]
    halted = step(at(2), see(updated(0), *lost), 5.0)
    assert halted.stage is Stage.HALTED and halted.reason == "2 of 10 boards of all that take part have failed"


def test_slow_boards_do_not_hold_up_the_others() -> None:
    """With 50 percent to come through, a tranche goes on although two of its four boards wait for their battery."""
    plan = dataclasses.replace(PLAN, health_min=50)
    two = see(updated(0), updated(1), updated(2))
    soaking = step(at(1, plan=plan), two, 5.0)
    assert step(soaking, two, 105.0).tranche == 2


def test_a_tranche_that_never_comes_through_halts_in_the_end() -> None:
    """After the patience, with how many have."""
    assert step(at(1), see(updated(0), updated(1)), 999.0).stage is Stage.ROLLING
    halted = step(at(1), see(updated(0), updated(1)), 1_000.0)
    assert halted.stage is Stage.HALTED
    assert halted.reason == "after 1000 s only 1 of 4 boards have come through"


def test_an_empty_tranche_has_nothing_to_prove() -> None:
    """No board has its place there, or all were unwell: the next one at once; the last one ends it."""
    rollout = dataclasses.replace(begin(PLAN, (), 0.0, FIRST), shares_bp=PLAN.tranches_bp)
    steps = [rollout := step(rollout, see(), 1.0) for _ in range(3)]
    assert [(one.tranche, one.stage) for one in steps] == [
        (1, Stage.ROLLING),
        (2, Stage.ROLLING),
        (2, Stage.DONE),
    ]


def test_the_last_tranche_soaks_too() -> None:
    """All updated: done after the soak, and it stays so."""
    all_ten = see(*(updated(number) for number in range(10)))
    soaking = step(at(2), all_ten, 10.0)
    done = step(soaking, all_ten, 110.0)
    assert soaking.stage is Stage.ROLLING and done.stage is Stage.DONE
    assert step(done, see(), 9_999.0) == done


def test_an_operator_halts_and_goes_on_all_the_same() -> None:
    """By hand at any stage; going on begins at the same tranche, and judges by how boards are then."""
    halted = halt(at(1), "by hand")
    assert (halted.stage, halted.reason, halt(halted, "again").reason) == (Stage.HALTED, "by hand", "by hand")
    again = resume(halted, (*SEEN[:3], place(board(3, Standing.SILENT), 3_000)), 50.0, FIRST + 5)
    assert (again.tranche, again.since_s, again.stage, again.first_sequence) == (1, 50.0, Stage.ROLLING, FIRST + 5)
    assert again.well_before == {one.address for one in TEN[:3]} and again.shares_bp == ROLLOUT.shares_bp


def test_every_place_has_its_tranche() -> None:
    """From the bounds; with a last share below 100 percent some have none."""
    places = (0, 999, 1_000, 4_999, 5_000, 9_999)
    assert [find_tranche(ROLLOUT, place_bp) for place_bp in places] == [0, 0, 1, 1, 2, 2]
    assert find_tranche(dataclasses.replace(ROLLOUT, shares_bp=(100,)), 100) is None


@pytest.mark.parametrize(
    ("parts", "places", "shares"),
    [
        ((500, 2_500, 10_000), range(0, 10_000, 50), (451, 2_451, 10_000)),
        ((500, 2_500, 10_000), (4, 9_000), (5, 10_000)),
        ((500, 2_500, 10_000), (9_000,), (10_000,)),
        ((500, 2_500, 10_000), (), (10_000,)),
        ((500, 2_500, 10_000), (7, 7, 7, 8, 9), (8, 9, 10_000)),
        ((500, 1_000), (1, 2, 3, 4, 5), (2, 3)),
        ((500, 1_000), (1,), (2,)),
        ((10_000,), (1, 2), (10_000,)),
    ],
)
def test_each_tranche_has_a_board_more(parts: tuple[int, ...], places: Iterable[int], shares: tuple[int, ...]) -> None:
    """Parts of the boards become shares; a small fleet has fewer tranches, never one that tries nothing."""
    assert compute_shares(dataclasses.replace(PLAN, tranches_bp=parts), places) == shares


def test_a_rollout_whose_folder_was_lost_goes_on_where_the_release_says() -> None:
    """The share on the broker is a tranche of its own; smaller ones are behind it, larger ones are to come."""
    found = rebuild(PLAN, SEEN, 5.0, 2_222)
    assert (found.shares_bp, found.share_bp, found.since_s) == ((1, 2_222, 4_001, 10_000), 2_222, 5.0)
    assert rebuild(PLAN, SEEN, 5.0, 10_000).is_last


@pytest.mark.parametrize(
    "changes",
    [
        {"tranches_bp": ()},
        {"tranches_bp": (500, 500)},
        {"tranches_bp": (0, 500)},
        {"tranches_bp": (500, 10_001)},
        {"tranches_bp": (600, 500)},
        {"tranches_bp": tuple(range(1, 18))},
        {"health_min": 0},
        {"health_min": 101},
        {"soak_s": -1},
        {"soak_s": 86_400 * 8, "patience_s": 86_400 * 9},
        {"soak_s": 100, "patience_s": 100},
        {"patience_s": 86_400 * 31},
    ],
)
def test_a_plan_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    """Shares that do not rise, bounds outside of percents, times without end: said as problems of the options."""
    with pytest.raises(ConfigError, match="--"):
        dataclasses.replace(PLAN, **changes)


def test_all_problems_of_a_plan_are_told_at_once() -> None:
    """Three wrong options: three lines."""
    with pytest.raises(ConfigError) as caught:
        Plan(NEW, (), soak_s=-1, health_min=0)
    assert len(caught.value.problems) == 3
