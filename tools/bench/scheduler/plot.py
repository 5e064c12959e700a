"""scheduler-prices.png: split and profit over prices. scheduler-timeline.png: one trace over time."""

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
"""Ticks in one point of the timeline, which is their mean: five minutes."""


ABOVE: dict[str, Any] = {
    "loc": "lower right",
    "bbox_to_anchor": (1, 1.0),
    "frameon": False,
    "fontsize": 8,
    "borderaxespad": 0.2,
}
"""Places a legend outside the data."""


def plot_prices(sweep: Sequence[Result], path: Path) -> None:
    """Plot the split that `profit` chose at each price, and below it the profit of it and of every fixed split."""
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
    above.set_ylabel("share of the work, %")
    above.set_title("The policy profit as the price of mining rises", fontsize=11, loc="left")
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
    below.set_xlabel("price of mining, times the base price")
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


def plot_timeline(timeline: Result, path: Path) -> None:
    """Plot shares, sun and battery, temperature, and money: means of five minutes over the hours of the trace."""
    figure, panels = plt.subplots(4, 1, figsize=(10.0, 9.5), dpi=120, layout="constrained", sharex=True)
    hours = [timeline["start_hour"] + second / 3600 for second in timeline["second"][::SMOOTH]]
    _plot_shares(panels[0], timeline, hours)
    sun = _plot_battery(panels[1], timeline, hours)
    _plot_temperature(panels[2], timeline, hours)
    coin = _plot_money(panels[3], timeline, hours)
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


def _plot_shares(panel: Any, timeline: Result, hours: Sequence[float]) -> None:
    train, mine = ([100 * value for value in _smooth(timeline[name])] for name in ("train", "mine"))
    panel.stackplot(hours, train, mine, colors=(TRAIN, MINE), labels=("training", "mining"), linewidth=0)
    others = [100 * value for value in _smooth(timeline["other_load"])]
    panel.plot(hours, others, color="black", linewidth=0.8, label="other load")
    panel.set_ylabel("share of the CPU, %")
    panel.set_ylim(0, 105)
    panel.set_title(f"profit on the trace {timeline['trace']}, means of 5 minutes", fontsize=11, loc="left")


def _plot_battery(panel: Any, timeline: Result, hours: Sequence[float]) -> Any:
    """Plot charge and sun; return the axes of the sun."""
    panel.plot(hours, [100 * value for value in _smooth(timeline["charge"])], color=TRAIN, label="charge")
    panel.axhline(100 * timeline["battery_floor"], color=BEST, linestyle=":", label="floor")
    panel.set_ylim(0, 105)
    panel.set_ylabel("battery, %")
    sun = panel.twinx()
    minutes = [timeline["start_hour"] + minute / 60 for minute in range(len(timeline["harvest_w"]))]
    sun.fill_between(minutes, timeline["harvest_w"], color=MINE, alpha=0.35, linewidth=0, label="sun")
    sun.set_ylabel("sun, W")
    sun.set_ylim(bottom=0)
    return sun


def _plot_temperature(panel: Any, timeline: Result, hours: Sequence[float]) -> None:
    panel.plot(hours, _smooth(timeline["temperature_c"]), color=BEST, label="hottest sensor")
    panel.axhline(timeline["temperature_limit_c"], color=BEST, linestyle=":", label="limit")
    panel.set_ylabel("degrees C")


def _plot_money(panel: Any, timeline: Result, hours: Sequence[float]) -> Any:
    """Plot the profit and the value of a coin; return the axes of the coin."""
    profit = [1000 * value for value in timeline["profit"][::SMOOTH]]
    panel.plot(hours, profit, color=TRAIN, label="profit so far")
    panel.set_ylabel("profit, thousandths")
    panel.set_xlabel(f"hour of the day; quiet hours {timeline['quiet_hours']}")
    coin = panel.twinx()
    coin.plot(hours, timeline["coin_value"][::SMOOTH], color=GREY, linewidth=0.9, label="value of a coin")
    coin.set_ylabel("value of a coin")
    coin.set_ylim(bottom=0)
    return coin
