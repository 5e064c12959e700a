"""A file of examples for a miner to score on: the data of one or more other people of the watch data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flchain.base.errors import ConfigError
from tools.network.datasets import load_watch, save_examples


def write_examples(subjects: tuple[int, ...], out: Path) -> int:
    """Write arrays x (n, 100, 6) and y (n,), and return n. Raises ConfigError for unknown subjects."""
    watch = load_watch()
    if unknown := [subject for subject in subjects if not 0 <= subject < len(watch.client_names)]:
        raise ConfigError((f"--subject: must be 0 to {len(watch.client_names) - 1}, is {unknown[0]}",))
    rows = np.isin(watch.client, subjects)
    save_examples(out, watch.x[rows], watch.y[rows])
    return int(rows.sum())
