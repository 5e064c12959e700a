"""From samples to windows: clocks, gaps, grids, labels, and which windows are used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sensing.labels import (
    MIXED,
    UNLABELLED,
    hold_labels,
    label_by_intervals,
    label_by_threshold,
    parse_intervals,
    parse_time_us,
    vote,
)
from agent.sensing.resampling import (
    Series,
    Shape,
    clean_series,
    compute_grid,
    find_segments,
    intersect_segments,
    place_windows,
    resample,
)
from agent.sensing.selection import HOLD_OUT, NEITHER, TRAIN, assign_parts, select_newest
from agent.sensing.timeline import Boot, compute_age_cutoff_us, compute_age_us, process_clock
from tests.support.floats import floats

SECOND = 1_000_000
YEAR = 31_557_600 * SECOND


def boot(number: int, offset_us: int = 0, *, trusted: bool = True, first: int = 0, last: int = 0) -> Boot:
    return Boot(number, f"boot-{number}", offset_us, trusted, first, last)


def test_a_clock_that_is_set_dates_all_samples_of_the_boot() -> None:
    """After a start in 1970 a time server sets the clock: the offset jumps, and with it every earlier sample's date."""
    before = boot(1, 0, trusted=False)
    after, jump_us = process_clock(before, 60 * SECOND, 56 * YEAR + 60 * SECOND, True)
    assert jump_us == 56 * YEAR
    assert after.to_wall(10 * SECOND) == 56 * YEAR + 10 * SECOND
    drifted, jump_us = process_clock(after, 120 * SECOND, 56 * YEAR + 120 * SECOND + 900, True)
    assert (drifted.offset_us, jump_us) == (56 * YEAR + 900, 0)


def test_a_trusted_clock_gives_way_to_a_trusted_one_only() -> None:
    """When the server is gone and somebody sets the clock to nonsense, dates stay as they were."""
    known = boot(1, YEAR)
    assert process_clock(known, 5 * SECOND, 9 * YEAR, False)[0].offset_us == YEAR
    assert process_clock(known, 5 * SECOND, 2 * YEAR + 5 * SECOND, True)[0].offset_us == 2 * YEAR


@pytest.mark.parametrize("wrong_by_years", [-50, 60])
def test_a_clock_that_is_wrong_at_boot_ages_nothing(wrong_by_years: int) -> None:
    """Nobody vouches for the present clock: a sample of the last boot is as old as the board has been running since."""
    old = boot(1, 50 * YEAR, last=1000 * SECOND)
    present = boot(2, (50 + wrong_by_years) * YEAR, trusted=False, first=5 * SECOND, last=65 * SECOND)
    assert compute_age_us([old, present], old, 900 * SECOND) == 160 * SECOND
    cutoff = compute_age_cutoff_us([old, present], old, 30 * 86_400 * SECOND)
    assert cutoff < 0, "nothing of the last boot is a month old"


def test_with_a_trusted_clock_ages_count_the_time_without_power() -> None:
    """Two good clocks: a board that lay in a drawer for a year has samples a year old."""
    old, present = boot(1, 0, last=1000 * SECOND), boot(2, YEAR, last=10 * SECOND)
    assert compute_age_us([old, present], old, 1000 * SECOND) == YEAR - 990 * SECOND
    assert compute_age_us([old, present], present, 4 * SECOND) == 6 * SECOND


def test_no_window_spans_a_gap_in_any_channel() -> None:
    """Segments end at holes; two channels have windows only where both have samples."""
    a = np.array([0, 1, 2, 3, 10, 11, 12, 13, 14]) * SECOND
    b = np.array([2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]) * SECOND
    assert find_segments(a, SECOND).tolist() == [[0, 3 * SECOND], [10 * SECOND, 14 * SECOND]]
    both = intersect_segments(find_segments(a, SECOND), find_segments(b, SECOND))
    assert both.tolist() == [[2 * SECOND, 3 * SECOND], [10 * SECOND, 12 * SECOND]]
    assert place_windows(both, Shape(1.0, 3, 1, SECOND), 1000).tolist() == [10]
    assert place_windows(both, Shape(1.0, 2, 1, SECOND), 1000).tolist() == [2, 10, 11]


def test_the_same_samples_give_the_same_windows_whatever_is_dropped_before_them() -> None:
    """Windows lie on multiples of the step from instant 0, so retention at one end moves none at the other."""
    times = np.arange(1_000, 50_000) * 20_000
    shape = Shape(50.0, 100, 60, SECOND)
    all_starts = place_windows(find_segments(times, SECOND), shape, 10**9)
    fewer = place_windows(find_segments(times[777:], SECOND), shape, 10**9)
    assert set(fewer) <= set(all_starts)
    assert len(fewer) >= len(all_starts) - 14
    newest = place_windows(find_segments(times, SECOND), shape, 6_000)
    assert newest.tolist() == all_starts[-100:].tolist()


def test_resampling_is_linear_and_averages_what_is_faster() -> None:
    """A line stays a line; a ripple at half the sampling rate does not fold into a grid ten times slower."""
    times = np.arange(0, 1001) * 10_000
    line = Series(times, 3.0 + times / SECOND)
    at = np.arange(1, 90) * 100_000.0 + 3_000
    np.testing.assert_allclose(resample(Series(times[::7], line.values[::7]), at), 3.0 + at / SECOND, rtol=1e-12)
    ripple = Series(times, line.values + np.where(np.arange(len(times)) % 2, 1.0, -1.0))
    assert np.abs(resample(ripple, at) - (3.0 + at / SECOND)).max() < 0.11


def test_values_that_are_none_are_no_samples() -> None:
    """NaN and infinity leave a hole; of two samples at one instant the first counts."""
    series = clean_series(np.array([5, 1, 1, 2, 3]), np.array([50.0, 10.0, 11.0, np.nan, np.inf]))
    assert (series.times_us.tolist(), series.values.tolist()) == ([1, 5], [10.0, 50.0])


def test_labels_hold_until_the_next_or_for_so_long() -> None:
    """A label counts from when it was said; "no label" ends it; what is no class is none."""
    said = np.array([10, 20, 30, 40]) * SECOND
    values = np.array([1.0, np.nan, 0.0, 7.0])
    at = np.array([5, 10, 19.999999, 25, 30, 39, 45]) * float(SECOND)
    assert hold_labels(said, values, at, 0, 3).tolist() == [-1, 1, 1, -1, 0, 0, -1]
    assert hold_labels(said, values, at, 5 * SECOND, 3).tolist() == [-1, 1, -1, -1, 0, -1, -1]
    assert hold_labels(said[:0], values[:0], at, 0, 3).tolist() == [UNLABELLED] * 7


def test_a_window_has_the_label_of_enough_of_its_points() -> None:
    """Pure windows count; with purity 0.75 one stray point in four is forgiven; half and half is mixed."""
    points = np.array([0, 0, 0, 1, 1, 1, -1, -1], np.int32)
    places = np.arange(0, 5)
    assert vote(points, places, 4, 1.0, 2).tolist() == [MIXED, MIXED, MIXED, UNLABELLED, UNLABELLED]
    assert vote(points, places, 4, 0.75, 2).tolist() == [0, MIXED, 1, 1, UNLABELLED]
    assert vote(points, np.array([0]), 3, 1.0, 2).tolist() == [0]


def test_thresholds_and_intervals() -> None:
    """The class is the number of thresholds reached; an interval labels from its start until before its end."""
    assert label_by_threshold(np.array([-1.0, 0.0, 4.9, 5.0, 9.0]), (0.0, 5.0)).tolist() == [0, 1, 1, 2, 2]
    first, last = np.array([10, 30]), np.array([20, 40])
    labels = label_by_intervals(first, last, np.array([2, 1], np.int32), np.array([9.0, 10.0, 20.0, 35.0]))
    assert labels.tolist() == [-1, 2, -1, 1]


def test_interval_files_are_read_or_told_line_by_line() -> None:
    """ISO and Unix times, names and numbers; all faults of a file at once, overlaps among them."""
    good = ["start,end,label", "2026-01-01T00:00:10,2026-01-01T01:00:20+01:00,walk  # note", "", "1.5,2.25,0"]
    found = parse_intervals(good, ("rest", "walk"))
    assert [(i.first_us, i.last_us, i.label) for i in found] == [
        (1_500_000, 2_250_000, 0),
        (1_767_225_610 * SECOND, 1_767_225_620 * SECOND, 1),
    ]
    with pytest.raises(ValueError, match="line 1") as caught:
        parse_intervals(["a,b,c", "5,4,0", "1,3,0", "2,4,1", "1,2", "8,9,run"], ("walk",))
    assert [line.split(":")[0] for line in str(caught.value).splitlines()][:4] == [
        "line 1",
        "line 2",
        "line 5",
        "line 6",
    ]
    assert "overlap" in str(caught.value)
    assert parse_time_us("0.0000019") == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-01", 1_767_225_600),
        ("2026-01-01 00:01", 1_767_225_660),
        ("2026-01-01T00:00:10Z", 1_767_225_610),
        ("2026-01-01T05:30:00+05:30", 1_767_225_600),
        ("2025-12-31T20:30-0330", 1_767_225_600),
        ("2026-01-01T01:00:00.5+01", 1_767_225_600.5),
        ("2026-01-01T00:00:00,123456789", 1_767_225_600.123456),
        ("1969-12-31T23:59:59.5", -0.5),
    ],
)
def test_a_time_means_the_same_on_every_python(text: str, seconds: float) -> None:
    """These forms of ISO 8601 are read, whatever Python's own reader knows of it."""
    assert parse_time_us(text) == round(seconds * SECOND)


@pytest.mark.parametrize(
    "text",
    ["2026-W01-4", "2026-02-30", "2026-01-01T24:01", "2026-01-01T10", "2026-01-01T10:00+24", "2026-01-01T10:00z"],
)
def test_a_time_that_some_python_would_read_is_refused(text: str) -> None:
    """Other forms are refused on every Python, so that no file of labels works on one board only."""
    with pytest.raises(ValueError, match="not a time"):
        parse_time_us(text)


@given(st.integers(0, 10**6), floats(0.05, 0.5), st.integers(1, 50), st.integers(0, 20))
def test_training_and_hold_out_never_share_an_instant(seed: int, share: float, window_s: int, hold_off_s: int) -> None:
    """Whatever the windows, those to train on end at least the hold-off before or begin it after any held-out one."""
    rng = np.random.default_rng(seed)
    first = np.sort(rng.integers(0, 5_000, 120)) * SECOND
    last = first + window_s * SECOND
    stretch_s = window_s + 2 * hold_off_s + int(rng.integers(1, 100))
    arguments: dict[str, Any] = {"share": share, "stretch_us": stretch_s * SECOND, "hold_off_us": hold_off_s * SECOND}
    parts = assign_parts("key", first, last, **arguments)
    for index in np.flatnonzero(parts == HOLD_OUT):
        train = parts == TRAIN
        apart = (last[train] < first[index] - hold_off_s * SECOND) | (first[train] > last[index] + hold_off_s * SECOND)
        assert apart.all()
    # each window alone is given the same side: it does not depend on what else is there
    alone = [int(assign_parts("key", first[n : n + 1], last[n : n + 1], **arguments)[0]) for n in range(0, 120, 17)]
    assert alone == parts[::17].tolist()


def test_the_hold_out_has_its_share() -> None:
    """A fifth of the stretches is held out, and no other boot's fifth is the same one."""
    first = np.arange(0, 100_000) * SECOND
    arguments: dict[str, Any] = {"share": 0.2, "stretch_us": 600 * SECOND, "hold_off_us": 10 * SECOND}
    parts = assign_parts("a", first, first + SECOND, **arguments)
    assert 0.18 < (parts == HOLD_OUT).mean() < 0.22
    assert 0 < (parts == NEITHER).mean() < 0.02
    assert (parts != assign_parts("b", first, first + SECOND, **arguments)).any()
    assert (assign_parts("a", first, first, share=0, stretch_us=1, hold_off_us=0) == TRAIN).all()


@given(st.lists(st.integers(0, 4), max_size=200), st.integers(1, 60))
def test_the_newest_of_each_class_are_used(labels: list[int], windows_max: int) -> None:
    """Never more than the maximum, no class above its equal share, and always the newest of a class."""
    array = np.array(labels, np.int32)
    chosen = select_newest(array, windows_max)
    assert len(chosen) <= windows_max
    assert (np.diff(chosen) > 0).all()
    present = set(labels)
    for label in present if windows_max >= len(present) else ():
        places = np.flatnonzero(array == label)
        mine = [place for place in chosen if array[place] == label]
        assert mine == places[-min(len(places), windows_max // len(present)) :].tolist()


def test_the_grid_holds_each_point_once() -> None:
    """Overlapping windows share their points; windows far apart do not make a grid over the hole between."""
    points, places = compute_grid(np.array([0, 2, 4, 1000]), 4)
    assert points.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 1000, 1001, 1002, 1003]
    assert points[places].tolist() == [0, 2, 4, 1000]
