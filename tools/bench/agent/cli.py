"""The command line, the tables and the files of `flchain bench agent`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tools.bench.agent.agent import FULL, IDLE_PERCENT_GOAL, MEMORY_MB_GOAL, METHOD, QUICK, Size, run_bench
from tools.bench.agent.shares import GAP_POINTS_MAX
from tools.bench.hand_over import hand_over
from tools.bench.machine import format_machine

NAME = "agent"
RESULT_FILE, PLOT_FILE = "agent.json", "agent.png"


def add_parser(benchmarks: Any) -> None:
    """The options, below `flchain bench`."""
    benchmarks.add_parser(NAME, help="the agent's shares of the CPU, asked and given; its memory; its CPU when idle")


def run(arguments: argparse.Namespace, console: Console, size: Size | None = None) -> int:
    """Run it, show it, write it. Raises BenchFault."""
    console.print(METHOD, style="dim")
    chosen = size or (QUICK if arguments.quick else FULL)
    results = run_bench(chosen, lambda text: console.print(text, markup=False))
    _print_tables(console, results)

    def draw(folder: Path) -> None:
        from tools.bench.agent.plot import draw_plot  # takes a second, which only this needs

        draw_plot(results["shares"], folder / PLOT_FILE)

    return hand_over(arguments, results, RESULT_FILE, draw=draw)


def _print_tables(console: Console, results: dict[str, Any]) -> None:
    table = Table("mechanism", title=f"flchain bench {NAME}: share of the whole CPU", title_justify="left")
    for name in ("asked train", "given", "asked mine", "given", "gap, points"):
        table.add_column(name, justify="right")
    for mechanism in results["shares"]:
        for split in mechanism["splits"]:
            table.add_row(
                mechanism["mechanism"],
                *(f"{split[key]:.3f}" for key in ("asked_train", "given_train", "asked_mine", "given_mine")),
                f"{split['gap_points']:.2f}",
            )
    console.print(table)
    memory, idle, machine = results["memory"], results["idle"], results["machine"]
    gaps = [mechanism["largest_gap_points"] for mechanism in results["shares"] if mechanism["is_usable"]]
    console.print(
        f"largest gap      {max(gaps, default=float('nan')):.2f} points (goal: below {GAP_POINTS_MAX:g})\n"
        f"memory, PSS      {memory['pss_mb']:.1f} MB over {memory['processes']} processes "
        f"(goal: {MEMORY_MB_GOAL:g} MB)\n"
        f"memory, RSS      {memory['rss_mb']:.1f} MB: counts what the processes share once for each\n"
        f"idle             {idle['cpu_percent_of_a_core']:.2f}% of a core (goal: {IDLE_PERCENT_GOAL:g}%)\n"
        f"{format_machine(machine, results['commit'])}",
        markup=False,
    )
