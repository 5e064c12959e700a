"""Select the windows to use: the held-out part by stretches of time, then the newest of each class.

A random split of overlapping or neighbouring windows would test on what was trained on. So whole stretches are held
out, chosen by a hash of the boot and the stretch: a window never changes sides, in any round.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

TRAIN, HOLD_OUT, NEITHER = 0, 1, -1

Parts = npt.NDArray[np.int8]


def assign_parts(
    boot_key: str,
    first_us: npt.NDArray[np.int64],
    last_us: npt.NDArray[np.int64],
    *,
    share: float,
    stretch_us: int,
    hold_off_us: int,
) -> Parts:
    """Return TRAIN, HOLD_OUT or NEITHER for windows (N,) from first_us to last_us.

    Of every 1/share stretches in a row one is held out. A training window keeps hold_off_us away from held-out
    stretches; a held-out window lies within them. stretch_us is at least a window and two hold-offs long.
    """
    if share <= 0:
        return np.full(len(first_us), TRAIN, np.int8)
    among = max(2, round(1 / share))
    edges = np.stack((first_us - hold_off_us, first_us, last_us, last_us + hold_off_us))
    stretches, index = np.unique(edges // stretch_us, return_inverse=True)
    held = np.array([_is_held_out(boot_key, int(stretch), among) for stretch in stretches], bool)
    touched = held[index.reshape(edges.shape)]
    parts = np.full(len(first_us), NEITHER, np.int8)
    parts[~touched.any(axis=0)] = TRAIN
    parts[touched[1] & touched[2]] = HOLD_OUT
    return parts


def _is_held_out(boot_key: str, stretch: int, among: int) -> bool:
    group, place = divmod(stretch, among)
    draw = hashlib.sha256(f"{boot_key}/{group}".encode()).digest()
    return int.from_bytes(draw[:4], "big") % among == place


def select_newest(labels: npt.NDArray[np.int32], windows_max: int) -> npt.NDArray[np.int64]:
    """Return the indices of the windows to use, in order; labels (N,) in order of time, all of them classes.

    At most windows_max, the newest, and of each class at most an equal share among the classes that occur. What rare
        classes leave free stays free, so that a week of one activity does not outweigh the others.
    """
    present = np.unique(labels)
    if not len(present):
        return np.empty(0, np.int64)
    each = max(1, windows_max // len(present))
    chosen = np.sort(np.concatenate([np.flatnonzero(labels == label)[-each:] for label in present]))
    return chosen[-windows_max:].astype(np.int64)
