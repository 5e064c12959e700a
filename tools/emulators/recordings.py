"""One person's recordings of the watch data set: exercise after exercise, with rests in between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flchain.base.errors import ConfigError
from tools.network.datasets import WATCH_RATE_HZ, Dataset, load_watch

REST_S = 2.0
"""Between two recordings the arm hangs, and there is no label."""
NO_LABEL = "none"
CHANNELS = ("acc_x", "acc_y", "acc_z", "gyr_x", "gyr_y", "gyr_z")


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One instant of the watch: (6,) values in the order of CHANNELS, and the exercise of its wearer."""

    values: npt.NDArray[np.float32]
    label: str


def iter_steps(subject: int, seed: int, *, recording_s: float = 0.0) -> Iterator[Step]:
    """Yield steps of 50 Hz without end: the subject's recordings in random order, again and again.

    `recording_s` cuts each one short (0: whole), for more exercises in less time. Raises ConfigError for an unknown
    subject.
    """
    dataset = load_watch()
    recordings = get_recordings(dataset, subject)
    rng = np.random.default_rng(seed)
    rest = np.zeros(6, np.float32)
    count = int(recording_s * WATCH_RATE_HZ) or None
    while True:
        for index in rng.permutation(len(recordings)):
            values, label = recordings[index]
            yield from (Step(row, label) for row in values[:count])
            yield from (Step(rest, NO_LABEL) for _ in range(int(REST_S * WATCH_RATE_HZ)))


def get_recordings(dataset: Dataset, subject: int) -> list[tuple[npt.NDArray[np.float32], str]]:
    """Return (n, 6) values and the exercise's name for each recording of a subject. Raises ConfigError."""
    if not 0 <= subject < len(dataset.client_names):
        raise ConfigError((f"--subject: must be 0 to {len(dataset.client_names) - 1}, is {subject}",))
    groups = np.unique(dataset.group[dataset.client == subject])
    return [
        (
            dataset.x[dataset.group == group].reshape(-1, len(CHANNELS)),
            dataset.class_names[int(dataset.y[dataset.group == group][0])],
        )
        for group in groups
    ]
