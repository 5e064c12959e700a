"""The options, tables and files of `flchain bench scheduler`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from flchain_edge.process.command_line import add_command
from tools.bench.output import write_output
from tools.bench.scheduler.scheduler import FULL, METHOD, QUICK, Plan, run_bench

NAME = "scheduler"
RESULT_FILE = "scheduler.json"
PLOT_FILES = ("scheduler-prices.png", "scheduler-timeline.png")
TABLE_WIDTH = 110
"""In columns; a narrower terminal wraps the lines."""
Result = dict[str, Any]

COLUMNS: tuple[tuple[str, Callable[[Result], str]], ...] = (
    ("profit", lambda r: f"{1000 * r['profit']:.3f}"),
    ("to best", lambda r: "-" if r["to_best_fixed"] is None else f"{r['to_best_fixed']:.1%}"),
    ("in time", lambda r: f"{r['updates_in_time']}/{r['updates']}"),
    ("mined", lambda r: f"{r['mined']:.0f}"),
    ("Wh", lambda r: f"{r['energy_wh']:.1f}"),
    ("max C", lambda r: f"{r['temperature_max_c']:.1f}"),
    ("hot s", lambda r: f"{r['throttled_s']}"),
    ("charge", lambda r: "-" if r["charge_low"] is None else f"{r['charge_low']:.0%}"),
    ("switch/h", lambda r: f"{r['switches_per_hour']:.0f}"),
    ("broken s", lambda r: f"{sum(r['violations'].values())}"),
)


def add_parser(benchmarks: Any) -> None:
    """Add the options to those of `flchain bench`."""
    add_command(benchmarks, NAME, "policies that split a board's CPU between training and mining, on traces")


def run(arguments: argparse.Namespace, console: Console, plan: Plan | None = None) -> int:
    """Simulate, print the tables, write the files."""
    console.print(METHOD, style="dim")
    console.width = max(console.width, TABLE_WIDTH)
    chosen = plan or (QUICK if arguments.quick else FULL)
    found = run_bench(chosen, lambda entry: _print_table(console, entry))
    timeline = found.pop("timeline")
    results = {"is_quick": arguments.quick, **found}
    _print_sweep(console, results["sweep"])
    _print_footer(console, results)

    def plot(folder: Path) -> None:
        from tools.bench.scheduler.plot import plot_prices, plot_timeline  # takes a second to import

        plot_prices(results["sweep"], folder / PLOT_FILES[0])
        plot_timeline(timeline, folder / PLOT_FILES[1])

    return write_output(arguments, results, RESULT_FILE, plot=plot)


def _print_table(console: Console, entry: Result) -> None:
    best = entry["best_fixed"]
    split = "/".join(f"{share:.0%}" for share in best["split"])
    title = (
        f"{entry['trace']}, {entry['hours']:g} h; the best of {best['of']} fixed splits is {split} with a profit of "
        f"{1000 * best['profit']:.3f}"
    )
    table = Table(Column("policy", no_wrap=True), title=title, title_justify="left")
    for name, _ in COLUMNS:
        table.add_column(name, justify="right")
    for policy, result in entry["policies"].items():
        table.add_row(policy, *(show(result) for _, show in COLUMNS))
    console.print(table)


def _print_sweep(console: Console, sweep: list[Result]) -> None:
    table = Table(title="price of mining, times the base price", title_justify="left")
    for point in sweep:
        table.add_column(f"x{point['factor']:.2g}", justify="right")
    table.add_row(*(f"{100 * point['train_part']:.0f}" for point in sweep))
    table.add_row(*(f"{100 * compute_to_best(point):.1f}" for point in sweep))
    console.print(table)
    console.print(
        "Row 1: training's part of the policy profit's work, %. Row 2: its profit over the best full split's, %."
    )


def compute_to_best(point: Result) -> float:
    """Return the policy's profit at one price over that of the best fixed split there."""
    return float(point["profit"]) / max(float(one["profit"]) for one in point["fixed"])


def _print_footer(console: Console, results: Result) -> None:
    machine = results["machine"]
    console.print(
        "Profit is in thousandths of the currency; to best: over that of the best fixed split; hot: throttled by the "
        "firmware; charge: the lowest; switch: changes of the split; broken: seconds in which a limit was "
        "broken.\n"
        f"Simulated on {machine['cpu']}, {machine['cores']} cores, Python "
        f"{machine['python']}, commit {results['commit']}; the figures are the same on every machine.",
        markup=False,
    )
