"""Label windows with their classes: rules by name, applied to the grid's points or to a window's mean.

A label is a class 0..classes-1; UNLABELLED means that none is known, MIXED that a window holds more than one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import pairwise

import numpy as np
import numpy.typing as npt

UNLABELLED, MIXED = -1, -2
INTERVALS_MAX = 100_000
_ISO = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)(?:[T ](?P<time>\d\d:\d\d(?::\d\d(?:[.,](?P<part>\d{1,9}))?)?)"
    r"(?:Z|(?P<sign>[+-])(?P<hours>[01]\d|2[0-3])(?::?(?P<minutes>[0-5]\d))?)?)?",
    re.ASCII,
)
"""A day; hours and minutes, seconds, a part of them; Z or the hours (and minutes) that the clock is ahead of UTC."""

Labels = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Interval:
    """Wall time in us, from `first_us` to just before `last_us`, and the class."""

    first_us: int
    last_us: int
    label: int


def hold_labels(
    times_us: npt.NDArray[np.int64],
    values: npt.NDArray[np.float64],
    at_us: npt.NDArray[np.float64],
    hold_us: int,
    classes: int,
) -> Labels:
    """Return the label at each instant (m,): the newest one before, for hold_us at most (0: until the next one).

    times_us (n,) sorted. A value that is not a class, such as NaN ("no label now"), ends the one before.
    """
    if not len(times_us):
        return np.full(len(at_us), UNLABELLED, np.int32)
    # half a microsecond: the grid's instants are rounded, and a label holds from its own instant on
    index = np.searchsorted(times_us, at_us + 0.5, side="right") - 1
    said = values[index]
    is_class = np.isfinite(said) & (said >= 0) & (said < classes) & (said == np.floor(said))
    known = (index >= 0) & is_class
    if hold_us:
        known &= at_us - times_us[index] <= hold_us
    return np.where(known, np.where(is_class, said, 0), UNLABELLED).astype(np.int32)


def label_by_intervals(
    first_us: npt.NDArray[np.int64], last_us: npt.NDArray[np.int64], labels: Labels, at_us: npt.NDArray[np.float64]
) -> Labels:
    """Return the label of the interval that contains each instant (m,); the intervals (n,) sorted and disjoint."""
    if not len(first_us):
        return np.full(len(at_us), UNLABELLED, np.int32)
    index = np.searchsorted(first_us, at_us, side="right") - 1
    inside = (index >= 0) & (at_us < last_us[index])
    return np.where(inside, labels[index], UNLABELLED).astype(np.int32)


def label_by_threshold(means: npt.NDArray[np.float64], thresholds: Sequence[float]) -> Labels:
    """Return how many thresholds (sorted) a window's mean reaches: class 0 below the first."""
    return np.searchsorted(np.asarray(thresholds), means, side="right").astype(np.int32)


def vote(point_labels: Labels, places: npt.NDArray[np.int64], window: int, purity: float, classes: int) -> Labels:
    """Return each window's label: the class of at least `purity` (above one half) of its points.

    MIXED where its labelled points agree less, UNLABELLED where fewer than `purity` of its points have a label.
    """
    need = purity * window - 1e-9
    result = np.full(len(places), MIXED, np.int32)
    labelled = np.zeros(len(places), np.int64)
    for label in range(classes):
        counts = np.concatenate(([0], np.cumsum(point_labels == label)))
        within = counts[places + window] - counts[places]
        labelled += within
        result[within >= need] = label
    result[labelled < need] = UNLABELLED
    return result


def compute_window_means(
    values: npt.NDArray[np.float64], places: npt.NDArray[np.int64], window: int
) -> npt.NDArray[np.float64]:
    """Return the mean of each window's points."""
    sums = np.concatenate(([0.0], np.cumsum(values)))
    means: npt.NDArray[np.float64] = (sums[places + window] - sums[places]) / window
    return means


def parse_intervals(lines: Iterable[str], texts: Sequence[str]) -> list[Interval]:
    """Read intervals from a file: one a line, "start,end,label"; "#" begins a comment, a header line is skipped.

    Times are ISO 8601 (UTC where no zone is given) or Unix seconds; the label is a class, or one of `texts`. Sorted on
    return. Raises ValueError with all problems, overlaps among them, one a line.
    """
    intervals, problems = [], []
    for number, line in enumerate(lines, start=1):
        fields = [field.strip() for field in line.split("#")[0].split(",")]
        if fields == [""] or (number == 1 and [field.lower() for field in fields] == ["start", "end", "label"]):
            continue
        try:
            intervals.append(_parse_interval(fields, texts))
        except ValueError as error:
            problems.append(f"line {number}: {error}")
        if len(intervals) + len(problems) > INTERVALS_MAX:
            raise ValueError(f"more than {INTERVALS_MAX} intervals")
    intervals.sort(key=lambda interval: interval.first_us)
    for before, after in pairwise(intervals):
        if after.first_us < before.last_us:
            moment = datetime.fromtimestamp(after.first_us / 1e6, timezone.utc)
            problems.append(f"two intervals overlap at {moment.isoformat()}")
    if problems:
        raise ValueError("\n".join(problems))
    return intervals


def _parse_interval(fields: Sequence[str], texts: Sequence[str]) -> Interval:
    if len(fields) != 3:
        raise ValueError("write start,end,label")
    first_us, last_us = parse_time_us(fields[0]), parse_time_us(fields[1])
    if first_us >= last_us:
        raise ValueError("ends before it begins")
    if fields[2] in texts:
        return Interval(first_us, last_us, texts.index(fields[2]))
    if not re.fullmatch("[0-9]{1,4}", fields[2]):
        raise ValueError(f"label {fields[2][:20]!r}: neither a class number nor one of: {', '.join(texts) or '-'}")
    return Interval(first_us, last_us, int(fields[2]))


def parse_time_us(text: str) -> int:
    """Return Unix time in us for ISO 8601 or seconds. Raises ValueError.

    Of ISO 8601, what `_ISO` has: every Python reads a part of its own of the rest, and a file must mean the same on
    every board.
    """
    if re.fullmatch(r"[0-9]{1,11}(\.[0-9]{1,9})?", text):
        whole, _, part = text.partition(".")
        return int(whole) * 1_000_000 + int(part[:6].ljust(6, "0"))
    found = _ISO.fullmatch(text)
    try:
        if found is None:
            raise ValueError("neither ISO 8601 nor seconds")
        moment = datetime.fromisoformat(f"{found['day']} {(found['time'] or '00:00')[:8]}").replace(tzinfo=timezone.utc)
    except ValueError as error:
        raise ValueError(f"not a time: {text[:40]!r}") from error
    part_us = int((found["part"] or "0")[:6].ljust(6, "0"))
    ahead_s = int(f"{found['sign'] or '+'}1") * (int(found["hours"] or 0) * 60 + int(found["minutes"] or 0)) * 60
    return (int(moment.timestamp()) - ahead_s) * 1_000_000 + part_us
