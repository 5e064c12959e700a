"""consensus.png: forks, latency to finality, messages and energy by the number of validators, a line for each rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # before pyplot: there may be no screen

from matplotlib import pyplot as plt

from tools.bench.consensus.consensus import name_rule

Result = dict[str, Any]
PANELS: tuple[tuple[str, bool, Callable[[Result], float]], ...] = (
    ("forks per 100 heights", False, lambda r: float(r["forks_per_100_heights"])),
    ("latency to finality, p50, ms", True, lambda r: float(r["finality_ms"]["p50"])),
    ("messages per round", True, lambda r: float(r["messages_per_round"])),
    (
        "energy, J per round\n(hashing assumed, signatures measured)",
        True,
        lambda r: float(r["hashing_joules_per_round"] + r["signing_joules_per_round"]),
    ),
)
BFT_COLOURS = ("#1b6ca8", "#5aa9e6", "#0b3954")
POW_COLOURS = ("#f4a259", "#d1495b", "#8c2f39")


def write_plot(results: Sequence[Result], path: Path) -> None:
    """Write the plot."""
    figure, axes = plt.subplots(2, 2, figsize=(10.0, 7.5), dpi=120, layout="constrained")
    lines = dict.fromkeys(name_rule(result) for result in results)
    colours = {"bft": iter(BFT_COLOURS), "pow": iter(POW_COLOURS)}
    styles = {name: next(colours[name.split()[0]], "black") for name in lines}
    for panel, (title, is_log, read) in zip(axes.flat, PANELS, strict=True):
        for name in lines:
            points = [(r["validators"], read(r)) for r in results if name_rule(r) == name]
            is_bft = name.startswith("bft")
            panel.plot(*zip(*points, strict=True), marker="s" if is_bft else "o", label=name, color=styles[name])
        panel.set_title(title, fontsize=10)
        panel.set_xticks(sorted({result["validators"] for result in results}))
        panel.set_xlabel("validators")
        if is_log:
            panel.set_yscale("log")
        panel.grid(axis="y", alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    handles, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    figure.savefig(path)
    plt.close(figure)
