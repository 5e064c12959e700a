"""The options, tables and files of `flchain bench agent`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flchain_edge.process.command_line import add_command
from tools.bench.agent.agent import FULL, IDLE_PERCENT_GOAL, MEMORY_MB_GOAL, METHOD, QUICK, Size, run_bench
from tools.bench.agent.cpu_shares import GAP_POINTS_MAX
from tools.bench.host import format_machine
from tools.bench.output import write_output

NAME = "agent"
RESULT_FILE, PLOT_FILE = "agent.json", "agent.png"


def add_parser(benchmarks: Any) -> None:
    """Add the options to those of `flchain bench`."""
    parser = add_command(benchmarks, NAME, "an agent's CPU shares, requested and actual; its memory; its CPU when idle")
    parser.add_argument(
        "--model",
        metavar="NAME|FILE",
        help="mlp, or a .tflite file of 784 inputs and 10 classes: memory and idle CPU with this model alone",
    )


def run(arguments: argparse.Namespace, console: Console, size: Size | None = None) -> int:
    """Measure, print the tables, write the files. Raises BenchFault."""
    console.print(METHOD, style="dim")
    chosen = size or (QUICK if arguments.quick else FULL)
    results = run_bench(chosen, lambda text: console.print(text, markup=False), arguments.model)
    if arguments.model is None:
        _print_shares(console, results)
    _print_agent(console, results)

    def plot(folder: Path) -> None:
        from tools.bench.agent.plot import write_plot  # takes a second to import

        if results["shares"]:
            write_plot(results["shares"], folder / PLOT_FILE)

    return write_output(arguments, results, RESULT_FILE, plot=plot)


def _print_shares(console: Console, results: dict[str, Any]) -> None:
    table = Table("mechanism", title=f"flchain bench {NAME}: share of the whole CPU", title_justify="left")
    for name in ("train requested", "actual", "mine requested", "actual", "gap, points"):
        table.add_column(name, justify="right")
    for mechanism in results["shares"]:
        for split in mechanism["splits"]:
            table.add_row(
                mechanism["mechanism"],
                *(f"{split[key]:.3f}" for key in ("asked_train", "given_train", "asked_mine", "given_mine")),
                f"{split['gap_points']:.2f}",
            )
    console.print(table)
    gaps = [mechanism["largest_gap_points"] for mechanism in results["shares"] if mechanism["is_usable"]]
    largest = max(gaps, default=float("nan"))
    console.print(f"largest gap      {largest:.2f} points (goal: below {GAP_POINTS_MAX:g})")


def _print_agent(console: Console, results: dict[str, Any]) -> None:
    memory, idle, machine = results["memory"], results["idle"], results["machine"]
    console.print(
        f"model            {results['model']}, {results['parameters']:,} parameters\n"
        f"memory, PSS      {memory['pss_mb']:.1f} MB over {memory['processes']} processes "
        f"(goal: {MEMORY_MB_GOAL:g} MB)\n"
        f"memory, RSS      {memory['rss_mb']:.1f} MB: counts shared pages once per process\n"
        f"idle             {idle['cpu_percent_of_a_core']:.2f}% of a core (goal: {IDLE_PERCENT_GOAL:g}%)\n"
        f"{format_machine(machine, results['commit'])}",
        markup=False,
    )
