"""Turn samples as they arrived into windows of equal steps: segments without gaps, a grid in each, values on it.

Times are int64 us of the boot clock, one boot at a time. The grid is anchored at instant 0 of the boot and windows at
multiples of the step, so the same samples give the same windows in every round, whatever else was added or dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.int64]
Values = npt.NDArray[Any]
"""float32 or float64."""


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One channel: times (n,) strictly increasing, values (n,) finite."""

    times_us: Times
    values: Values


@dataclass(frozen=True, slots=True)
class Shape:
    """How windows are cut: grid steps in us (rounded to the grid only at the end), window and step in grid points."""

    rate_hz: float
    window: int
    step: int
    gap_max_us: int

    @property
    def period_us(self) -> float:
        """Time between two grid points."""
        return 1e6 / self.rate_hz


def clean_series(times_us: Times, values: Values, *, keep_nan: bool = False) -> Series:
    """Sort by time, drop values that are not finite (except NaN if keep_nan), and of equal times keep the first."""
    keep = np.isfinite(values) | (np.isnan(values) & keep_nan)
    if not keep.all():
        times_us, values = times_us[keep], values[keep]
    if (np.diff(times_us) <= 0).any():
        times_us, index = np.unique(times_us, return_index=True)
        values = values[index]
    return Series(times_us, values)  # usually the same arrays, which channels of one source share


def find_segments(times_us: Times, gap_max_us: int) -> npt.NDArray[np.int64]:
    """Return stretches without a gap above gap_max_us, (k, 2): first and last instant of each."""
    if not len(times_us):
        return np.empty((0, 2), np.int64)
    breaks = np.flatnonzero(np.diff(times_us) > gap_max_us)
    first = np.concatenate(([0], breaks + 1))
    last = np.concatenate((breaks, [len(times_us) - 1]))
    return np.stack((times_us[first], times_us[last]), axis=1)


def intersect_segments(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return where both have a segment, (k, 2). Both sorted and disjoint."""
    found, i, j = [], 0, 0
    while i < len(a) and j < len(b):
        start, end = max(a[i, 0], b[j, 0]), min(a[i, 1], b[j, 1])
        if start <= end:
            found.append((start, end))
        if a[i, 1] < b[j, 1]:
            i += 1
        else:
            j += 1
    return np.array(found, np.int64).reshape(-1, 2)


def place_windows(segments: npt.NDArray[np.int64], shape: Shape, points_max: int) -> npt.NDArray[np.int64]:
    """Return the first grid point of each window that fits into a segment, by time; of the newest points_max only."""
    span = (shape.window - 1) * shape.period_us
    starts: list[npt.NDArray[np.int64]] = []
    points = 0
    for start_us, end_us in segments[segments[:, 1] - segments[:, 0] >= span][::-1]:
        # rounding a whole number of periods to a microsecond must not lose a window
        first = int(np.ceil((start_us - 0.5) / shape.period_us))
        last = int(np.floor((end_us + 0.5) / shape.period_us)) - shape.window + 1
        room = max(1, (points_max - points) // shape.step)
        windows = np.arange(-(-first // shape.step), last // shape.step + 1, dtype=np.int64)[-room:]
        starts.append(windows * shape.step)
        points += len(windows) * shape.step
        if points >= points_max:
            break
    return np.concatenate(starts[::-1]) if starts else np.empty(0, np.int64)


def compute_grid(starts: npt.NDArray[np.int64], window: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return all grid points that the windows use, sorted, and for each window the index of its first point."""
    if not len(starts):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    runs = np.split(starts, np.flatnonzero(np.diff(starts) > window) + 1)
    points = np.concatenate([np.arange(run[0], run[-1] + window, dtype=np.int64) for run in runs])
    return points, np.searchsorted(points, starts)


def resample(series: Series, times_us: Values) -> Values:
    """Return values at the grid's times (m,): linear between neighbours.

    Where samples are at least twice as dense as the grid, the mean of those within half a period of each grid point,
        which keeps frequencies above the grid's from aliasing into it.
    """
    linear: Values = np.interp(times_us, series.times_us, series.values)
    if len(times_us) < 2 or len(series.times_us) < 3:
        return linear
    period = float(np.min(np.diff(times_us)))
    if float(np.median(np.diff(series.times_us))) > period / 2:
        return linear
    sums = np.concatenate(([0.0], np.cumsum(series.values, dtype=np.float64)))
    low = np.searchsorted(series.times_us, times_us - period / 2)
    high = np.searchsorted(series.times_us, times_us + period / 2, side="right")
    counts = high - low
    return np.where(counts > 0, (sums[high] - sums[low]) / np.maximum(counts, 1), linear)


def gather_windows(values: Values, places: npt.NDArray[np.int64], window: int) -> Values:
    """Return (N, window) of one channel's values on a grid, for windows that begin at `places` (N,)."""
    gathered: Values = values[places[:, None] + np.arange(window)]
    return gathered
