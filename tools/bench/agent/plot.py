"""agent.png: the actual share of the CPU over the requested one, for each mechanism."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # before pyplot: there may be no screen

from matplotlib import pyplot as plt

from tools.bench.agent.cpu_shares import GAP_POINTS_MAX

MARKERS = {"cgroup2": "s", "cgroup1": "o", "duty-cycle": "^"}


def write_plot(shares: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the plot."""
    figure, axes = plt.subplots(figsize=(5.5, 5.5), dpi=120, layout="constrained")
    margin = GAP_POINTS_MAX / 100
    axes.fill_between(
        (0, 1), (-margin, 1 - margin), (margin, 1 + margin), alpha=0.15, label=f"{GAP_POINTS_MAX:g} points"
    )
    axes.plot((0, 1), (0, 1), linewidth=1, color="grey")
    for mechanism in shares:
        splits = mechanism["splits"]
        if not splits:
            continue
        asked = [split[f"asked_{job}"] for job in ("train", "mine") for split in splits]
        given = [split[f"given_{job}"] for job in ("train", "mine") for split in splits]
        name = mechanism["mechanism"]
        axes.plot(asked, given, linestyle="", marker=MARKERS.get(name, "x"), fillstyle="none", label=name)
    axes.set_xlabel("requested share of the whole CPU")
    axes.set_ylabel("actual share")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path)
    plt.close(figure)
