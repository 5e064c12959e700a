"""Which parameters are sent: the largest, with one stated rule for ties, so that every machine chooses alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flchain.codecs.bits.golomb import Positions

SAMPLE_STRIDE, SAMPLE_EXTRA = 31, 16
"""The sample takes one magnitude in SAMPLE_STRIDE, and leaves a margin of SAMPLE_EXTRA."""


def check_level(parameters_count: int, level: int, level_min: int, level_max: int) -> None:
    """Raise ValueError unless there are parameters and level_min <= level <= level_max."""
    if parameters_count < 1 or not level_min <= level <= level_max:
        raise ValueError(f"{parameters_count} parameters at level {level}, not 1 or more at {level_min} to {level_max}")


def compute_kept_max(parameters_count: int, level: int) -> int:
    """Return k = max(1, P // level), the most parameters that an update may change.

    Raises ValueError unless both are positive.
    """
    check_level(parameters_count, level, 1, 2**31 - 1)
    return max(1, parameters_count // level)


def select_largest(magnitudes: npt.NDArray[np.int32], kept_max: int) -> Positions:
    """Return the ascending positions of the `kept_max` largest of (P,) magnitudes, zeros left out; of equals the lowest
    win.

    The choice is made by value, not with argpartition: which of several equals argpartition takes differs by CPU.

    >>> select_largest(np.array([3, 9, 3, 0, 3], dtype=np.int32), kept_max=3).tolist()
    [0, 1, 2]
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
    """Return positions that include all of the largest: those above a value that, by a sample, twice as many exceed.

    Return None if that would save nothing. Only speed depends on the sample, never what is selected.
    """
    wanted = 2 * kept_max // SAMPLE_STRIDE + SAMPLE_EXTRA
    if magnitudes.size < 4 * SAMPLE_STRIDE * wanted:
        return None
    sample = magnitudes[::SAMPLE_STRIDE]
    place = sample.size - wanted
    candidates = np.flatnonzero(magnitudes >= np.partition(sample, place)[place])
    return candidates if candidates.size >= kept_max else None
