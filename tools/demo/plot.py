"""accuracy.png: accuracy by round, and below it the network traffic of a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # before pyplot: there may be no screen

from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator, PercentFormatter

ACCURACY_COLOUR, UP_COLOUR, DOWN_COLOUR = "#1b6ca8", "#d1495b", "#7a8b99"


def write_plot(results: dict[str, Any], path: Path) -> None:
    """Write the plot. Rounds that were not measured are gaps."""
    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(7.5, 6.0), dpi=120, sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    rounds = range(1, results["rounds"] + 1)
    accuracy = [results["initial_accuracy"], *results["test_accuracy"]]
    values = [float("nan") if value is None else value for value in accuracy]
    upper.plot(range(len(values)), values, marker="o", markersize=4, color=ACCURACY_COLOUR)
    if accuracy[-1] is not None:
        upper.annotate(
            f"{accuracy[-1]:.1%}",
            (len(accuracy) - 1, accuracy[-1]),
            textcoords="offset points",
            xytext=(0, 8),
            ha="center",
            color=ACCURACY_COLOUR,
        )
    upper.set_ylim(0, 1.05)
    upper.yaxis.set_major_formatter(PercentFormatter(1.0))
    upper.set_ylabel("accuracy on held-out data")
    upper.set_title(
        f"{results['dataset']}: {results['devices']} devices, {results['miners']} miners, {results['model']}\n"
        f"{results['codec']} updates, {results['aggregation']}",
        fontsize=11,
    )
    for name, key, colour, shift in (("up", "up", UP_COLOUR, -0.2), ("down", "down", DOWN_COLOUR, 0.2)):
        heights = [(count or 0) / 1000 for count in results[f"bytes_{key}_by_round"]]
        lower.bar([number + shift for number in rounds], heights, width=0.4, color=colour, label=name)
    whole = results["bytes_float32"] / 1000
    lower.axhline(whole, color="black", linewidth=1, linestyle="--", label="a float32 model")
    lower.set_ylabel("kB per device")
    lower.set_xlabel("round (0: before training)")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    lower.legend(frameon=False, ncols=3, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
    for axes in (upper, lower):
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
    plt.close(figure)
