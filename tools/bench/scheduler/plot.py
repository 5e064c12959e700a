"""scheduler-prices.png: the split and the profit over prices. scheduler-timeline.png: one trace as it went."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # before pyplot: there may be no screen

from matplotlib import pyplot as plt

Result = dict[str, Any]
TRAIN, MINE, BEST, GREY = "#1b6ca8", "#f4a259", "#8c2f39", "#9aa5b1"
SMOOTH = 60
"""Ticks that one point of the timeline's shares is the mean of: five minutes."""


ABOVE: dict[str, Any] = {
    "loc": "lower right",
    "bbox_to_anchor": (1, 1.0),
    "frameon": False,
    "fontsize": 8,
    "borderaxespad": 0.2,
}
"""A legend outside of the data."""


def draw_prices(sweep: Sequence[Result], path: Path) -> None:
    """Above the split that `profit` chose at each price, below what it and every fixed split earned."""
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(9.0, 8.0), dpi=120, layout="constrained", sharex=True, height_ratios=(2, 3)
    )
    factors = [point["factor"] for point in sweep]
    train = [100 * point["train_part"] for point in sweep]
    above.fill_between(factors, 0, train, color=TRAIN, alpha=0.85, linewidth=0)
    above.fill_between(factors, train, 100, color=MINE, alpha=0.85, linewidth=0)
    above.text(factors[0] * 1.1, 6, "training", color="white", fontsize=11, weight="bold")
    above.text(factors[-1] / 1.1, 90, "mining", color="white", fontsize=11, weight="bold", ha="right")
    above.set_ylim(0, 100)
    above.set_ylabel("part of the work done, %")
    above.set_title("What the policy profit does as mining pays more", fontsize=11, loc="left")
    best = [max(one["profit"] for one in point["fixed"]) for point in sweep]
    for index, one in enumerate(sweep[0]["fixed"]):
        relative = [100 * point["fixed"][index]["profit"] / top for point, top in zip(sweep, best, strict=True)]
        below.plot(
            factors, relative, color=GREY, linewidth=0.8, alpha=0.7, label="a fixed split" if index == 0 else None
        )
        is_named = one["train"] in (0.0, 0.5, 1.0)
        if is_named:
            below.plot(factors, relative, linewidth=1.6, linestyle="--", label=f"fixed {one['train']:.0%} training")
    own = [100 * point["profit"] / top for point, top in zip(sweep, best, strict=True)]
    below.plot(factors, own, color=BEST, linewidth=2.6, marker="o", markersize=4, label="profit")
    below.axhline(98, color="black", linewidth=0.8, linestyle=":")
    below.text(factors[-1], 96.3, "2% below the best fixed split", fontsize=8, ha="right", va="top")
    below.set_ylim(0, 108)
    below.set_ylabel("profit, % of the best fixed split at that price")
    below.set_xlabel("what mining pays, times the base price")
    below.set_xscale("log")
    ticks = [2.0**power for power in range(-2, 5) if factors[0] <= 2.0**power <= factors[-1]]
    below.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    below.minorticks_off()
    below.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=5, frameon=False, fontsize=9, borderaxespad=0.2)
    for panel in (above, below):
        panel.spines[["top", "right"]].set_visible(False)
        panel.margins(x=0)
    figure.savefig(path)
    plt.close(figure)


def _smooth(values: Sequence[float]) -> list[float]:
    return [sum(values[at : at + SMOOTH]) / len(values[at : at + SMOOTH]) for at in range(0, len(values), SMOOTH)]


def draw_timeline(timeline: Result, path: Path) -> None:
    """Shares, sun and battery, temperature, money: means of five minutes over the hours of the trace."""
    figure, panels = plt.subplots(4, 1, figsize=(10.0, 9.5), dpi=120, layout="constrained", sharex=True)
    hours = [timeline["start_hour"] + second / 3600 for second in timeline["second"][::SMOOTH]]
    train, mine = ([100 * value for value in _smooth(timeline[name])] for name in ("train", "mine"))
    panels[0].stackplot(hours, train, mine, colors=(TRAIN, MINE), labels=("training", "mining"), linewidth=0)
    panels[0].plot(
        hours, [100 * v for v in _smooth(timeline["other_load"])], color="black", linewidth=0.8, label="other load"
    )
    panels[0].set_ylabel("of the CPU, %")
    panels[0].set_ylim(0, 105)
    panels[0].set_title(f"profit on the trace {timeline['trace']}, means of 5 minutes", fontsize=11, loc="left")
    panels[1].plot(hours, [100 * v for v in _smooth(timeline["charge"])], color=TRAIN, label="charge")
    panels[1].axhline(100 * timeline["battery_floor"], color=BEST, linestyle=":", label="floor")
    panels[1].set_ylim(0, 105)
    panels[1].set_ylabel("battery, %")
    sun = panels[1].twinx()
    minutes = [timeline["start_hour"] + minute / 60 for minute in range(len(timeline["harvest_w"]))]
    sun.fill_between(minutes, timeline["harvest_w"], color=MINE, alpha=0.35, linewidth=0, label="sun")
    sun.set_ylabel("sun, W")
    sun.set_ylim(bottom=0)
    panels[2].plot(hours, _smooth(timeline["temperature_c"]), color=BEST, label="hottest sensor")
    panels[2].axhline(timeline["temperature_limit_c"], color=BEST, linestyle=":", label="limit")
    panels[2].set_ylabel("degrees C")
    panels[3].plot(hours, [1000 * value for value in timeline["profit"][::SMOOTH]], color=TRAIN, label="profit so far")
    panels[3].set_ylabel("profit, thousandths")
    panels[3].set_xlabel(f"hour of the day; quiet {timeline['quiet_hours']}")
    coin = panels[3].twinx()
    coin.plot(hours, timeline["coin_value"][::SMOOTH], color=GREY, linewidth=0.9, label="a coin")
    coin.set_ylabel("a coin's value")
    coin.set_ylim(bottom=0)
    shown = range(math.ceil(hours[0]), math.floor(hours[-1]) + 1, max(1, round((hours[-1] - hours[0]) / 12)))
    panels[3].set_xticks(list(shown), [f"{hour % 24:02d}" for hour in shown])
    for panel, other in ((panels[0], None), (panels[1], sun), (panels[2], None), (panels[3], coin)):
        pairs = [axis.get_legend_handles_labels() for axis in (panel, other) if axis is not None]
        handles, labels = ([item for pair in pairs for item in pair[part]] for part in (0, 1))
        panel.legend(handles, labels, ncols=4, **ABOVE)
        panel.spines[["top"]].set_visible(False)
        panel.margins(x=0)
    figure.savefig(path)
    plt.close(figure)
