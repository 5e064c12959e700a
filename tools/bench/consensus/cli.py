"""The options, tables and files of `flchain bench consensus`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from flchain_edge.process.command_line import add_command, read_number
from tools.bench.consensus.consensus import FULL, JOULES_PER_HASH, METHOD, QUICK, WATTS, Plan, name_rule, run_bench
from tools.bench.output import write_output

RESULT_FILE, PLOT_FILE = "consensus.json", "consensus.png"
NAME = "consensus"
TABLE_WIDTH = 100
"""In columns; a narrower terminal wraps the lines."""
Result = dict[str, Any]

ROWS: tuple[tuple[str, Callable[[Result], str]], ...] = (
    ("heights, final", lambda r: f"{r['heights']}"),
    ("forks per 100 heights", lambda r: f"{r['forks_per_100_heights']:.1f}"),
    ("stale blocks", lambda r: f"{r['stale_share']:.1%}"),
    ("deepest reorganisation", lambda r: f"{r['reorg_depth_max']}"),
    ("finality broken, times", lambda r: f"{r['violations']}"),
    ("proposals not decided", lambda r: f"{r['undecided_share']:.1%}"),
    ("finality p50, ms", lambda r: f"{r['finality_ms']['p50']:,.0f}"),
    ("finality p99, ms", lambda r: f"{r['finality_ms']['p99']:,.0f}"),
    ("transaction p50, ms", lambda r: f"{r['transaction_ms']['p50']:,.0f}"),
    ("transaction p99, ms", lambda r: f"{r['transaction_ms']['p99']:,.0f}"),
    ("one round, ms", lambda r: f"{r['round_ms']:,.0f}"),
    ("messages per height", lambda r: f"{r['messages_per_height']:,.0f}"),
    ("kB per height", lambda r: f"{r['bytes_per_height'] / 1_000:,.1f}"),
    ("messages per round", lambda r: f"{r['messages_per_round']:,.0f}"),
    ("kB per round", lambda r: f"{r['bytes_per_round'] / 1_000:,.0f}"),
    ("Gini, blocks to power", lambda r: f"{r['gini']:.2f}"),
    ("hashes per round", lambda r: f"{r['hashes_per_round']:.1e}"),
    ("hashing, J per round", lambda r: f"{r['hashing_joules_per_round']:,.1f}"),
    ("signatures, J per round", lambda r: f"{r['signing_joules_per_round']:.2f}"),
)


def add_parser(benchmarks: Any) -> None:
    """Add the options to those of `flchain bench`."""
    text = "forks, latency, messages, fairness and energy of bft (pok, pos, poq) and pow on the same rounds"
    parser = add_command(benchmarks, NAME, text)
    parser.add_argument(
        "--watts", type=_read_positive, default=WATTS, help="assumed power of a busy core (%(default)s)"
    )
    parser.add_argument(
        "--joules-per-hash",
        type=_read_positive,
        default=JOULES_PER_HASH,
        help="assumed energy of a hash: a core of 15 W computes 5 million SHA-256 per second (%(default)s)",
    )


def _read_positive(text: str) -> float:
    value = read_number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be above 0, is {text}")
    return value


def run(arguments: argparse.Namespace, console: Console, plans: Sequence[Plan] | None = None) -> int:
    """Measure, print the tables, write the files. Raises BenchFault."""
    console.print(METHOD, style="dim")
    chosen = plans or (QUICK if arguments.quick else FULL)
    results = run_bench(chosen, arguments.joules_per_hash, arguments.watts, lambda result: _tell(console, result))
    results = {"is_quick": arguments.quick, **results}
    for validators in dict.fromkeys(result["validators"] for result in results["results"]):
        _print_table(console, validators, [r for r in results["results"] if r["validators"] == validators])
    _print_footer(console, results)

    def plot(folder: Path) -> None:
        from tools.bench.consensus.plot import write_plot  # takes a second to import

        write_plot(results["results"], folder / PLOT_FILE)

    return write_output(arguments, results, RESULT_FILE, plot=plot)


def _tell(console: Console, result: Result) -> None:
    console.print(
        f"{result['validators']} validators, {name_rule(result)}: {result['heights']} heights in "
        f"{result['virtual_ms'] / 1_000:.1f} virtual s"
    )


def _print_table(console: Console, validators: int, results: Sequence[Result]) -> None:
    title = f"flchain bench {NAME}: {validators} validators"
    table = Table(Column("", no_wrap=True), title=title, title_justify="left")
    for result in results:
        table.add_column(name_rule(result), justify="right", no_wrap=True)
    for name, show in ROWS:
        table.add_row(name, *(show(result) for result in results))
    console.width = max(console.width, TABLE_WIDTH)
    console.print(table)


def _print_footer(console: Console, results: dict[str, Any]) -> None:
    assumed, measured = results["assumed"], results["measured"]
    depths = {result["final_depth"] for result in results["results"] if result["consensus"] == "pow"}
    console.print(
        f"Final under pow: {', '.join(map(str, sorted(depths)))} blocks on top. Assumed: {assumed['watts']:g} W a busy "
        f"core, {assumed['joules_per_hash']:.1e} J per hash, {assumed['hashes_per_s_and_miner']:.0e} hashes/s per "
        f"miner. Measured here: {1e6 * measured['cpu_s_per_signature']:.0f} us of CPU per signature, "
        f"{1e6 * measured['cpu_s_per_check']:.0f} us per check. Commit {results['commit']}; everything except the "
        "joules of signatures is the same on every machine.",
        markup=False,
    )
