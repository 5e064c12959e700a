"""Which parameters are sent: the largest, with one stated rule for ties, so that every machine chooses alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flchain.codecs.bits.golomb import Positions

SAMPLE_STRIDE, SAMPLE_EXTRA = 31, 16
"""One magnitude in so many is looked at first; and so many more than expected are allowed for."""


def check_level(parameters_count: int, level: int, level_min: int, level_max: int) -> None:
    """Raise ValueError unless there are parameters and level_min <= level <= level_max."""
    if parameters_count < 1 or not level_min <= level <= level_max:
        raise ValueError(f"{parameters_count} parameters at level {level}, not 1 or more at {level_min} to {level_max}")


def compute_kept_max(parameters_count: int, level: int) -> int:
    """k = max(1, P // level): the most parameters an update may change. Raises ValueError unless both are positive."""
    check_level(parameters_count, level, 1, 2**31 - 1)
    return max(1, parameters_count // level)


def select_largest(magnitudes: npt.NDArray[np.int32], kept_max: int) -> Positions:
    """Positions, ascending, of the `kept_max` largest of (P,) magnitudes, without zeros; of equals the lowest win.

    By value, not with argpartition: which of the equals argpartition takes is numpy's affair and differs by CPU.
    """
    candidates = _find_candidates(magnitudes, kept_max)
    values = magnitudes if candidates is None else magnitudes[candidates]
    place = values.size - kept_max
    threshold = np.partition(values, place)[place]
    if threshold == 0:
        return np.flatnonzero(magnitudes)
    is_kept = values > threshold
    equals = np.flatnonzero(values == threshold)
    is_kept[equals[: kept_max - int(np.count_nonzero(is_kept))]] = True
    return np.flatnonzero(is_kept) if candidates is None else candidates[is_kept]


def _find_candidates(magnitudes: npt.NDArray[np.int32], kept_max: int) -> Positions | None:
    """Some of the positions, all of the largest among them: above what a sample says twice as many are. None if that
    would spare nothing. Only speed depends on the sample, never what is selected."""
    wanted = 2 * kept_max // SAMPLE_STRIDE + SAMPLE_EXTRA
    if magnitudes.size < 4 * SAMPLE_STRIDE * wanted:
        return None
    sample = magnitudes[::SAMPLE_STRIDE]
    place = sample.size - wanted
    candidates = np.flatnonzero(magnitudes >= np.partition(sample, place)[place])
    return candidates if candidates.size >= kept_max else None
