"""`flchain bench NAME`: measure on this machine, next to the floor measured in the same run."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flchain.base.errors import ConfigError
from flchain_edge.process.command_line import CommandParser, add_command
from tools.bench import devices, store
from tools.bench.agent import cli as agent_cli
from tools.bench.chain import FULL, METHOD, QUICK, QUICK_SPAN_S, SPAN_S, run_bench
from tools.bench.codecs import cli as codecs_cli
from tools.bench.consensus import cli as consensus_cli
from tools.bench.host import format_machine
from tools.bench.network import Plan
from tools.bench.output import write_output
from tools.bench.scheduler import cli as scheduler_cli

ROWS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("blocks measured", lambda size: f"{size['blocks']}"),
    ("transactions/s, final", lambda size: f"{size['transactions_per_s']:.1f}"),
    ("block latency p50, ms", lambda size: f"{size['latency_ms']['p50']:.0f}"),
    ("block latency p99, ms", lambda size: f"{size['latency_ms']['p99']:.0f}"),
    ("messages to a validator per block", lambda size: f"{size['messages_heard_per_block']:.0f}"),
    ("signature checks/s, alone", lambda size: f"{size['signature_checks_per_s']:,.0f}"),
    ("seconds", lambda size: f"{size['seconds']:.2f}"),
    ("floor, seconds", lambda size: f"{size['floor_seconds']:.3f}"),
    ("seconds : floor", lambda size: f"{size['seconds_to_floor']:.1f}"),
    ("CPU seconds", lambda size: f"{size['cpu_seconds']:.2f}"),
    ("floor, CPU seconds", lambda size: f"{size['floor_cpu_seconds']:.3f}"),
    ("CPU seconds : floor", lambda size: f"{size['cpu_to_floor']:.1f}"),
    ("light client, headers/s", lambda size: f"{size['light_headers_per_s']:,.0f}"),
    ("floor, headers/s", lambda size: f"{size['light_floor_headers_per_s']:,.0f}"),
    ("floor : light client", lambda size: f"{size['light_to_floor']:.2f}"),
    ("header, bytes", lambda size: f"{size['header_bytes']:.0f}"),
    ("certificate, bytes", lambda size: f"{size['certificate_bytes']:.0f}"),
)
RESULT_FILE = "chain.json"
FILES = {
    "chain": RESULT_FILE,
    agent_cli.NAME: f"{agent_cli.RESULT_FILE} and {agent_cli.PLOT_FILE}",
    consensus_cli.NAME: f"{consensus_cli.RESULT_FILE} and {consensus_cli.PLOT_FILE}",
    codecs_cli.NAME: f"{codecs_cli.RESULT_FILE} and {codecs_cli.PLOT_FILE}",
    devices.NAME: devices.RESULT_FILE,
    store.NAME: store.RESULT_FILE,
    scheduler_cli.NAME: f"{scheduler_cli.RESULT_FILE}, {' and '.join(scheduler_cli.PLOT_FILES)}",
}

OTHERS: dict[str, Callable[[argparse.Namespace, Console], int]] = {
    agent_cli.NAME: agent_cli.run,
    consensus_cli.NAME: consensus_cli.run,
    codecs_cli.NAME: codecs_cli.run,
    devices.NAME: devices.run,
    store.NAME: store.run,
    scheduler_cli.NAME: scheduler_cli.run,
}
"""The entry point of each benchmark except `chain`, which is below."""


def main(argv: Sequence[str], plans: tuple[Plan, ...] | None = None) -> int:
    """Run `flchain bench`; `plans` replace those that the options choose. Raises ConfigError and BenchError."""
    arguments = _build_parser().parse_args(argv)
    logging.basicConfig(level=logging.ERROR)
    if arguments.out is not None:
        try:
            arguments.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError((f"--out {arguments.out}: {error.strerror or error}",)) from error
    console = Console(stderr=arguments.json, highlight=False)
    if arguments.benchmark in OTHERS:
        return OTHERS[arguments.benchmark](arguments, console)
    console.print(METHOD, style="dim")
    chosen = plans or (QUICK if arguments.quick else FULL)
    span_s = QUICK_SPAN_S if arguments.quick else SPAN_S
    results = {"is_quick": arguments.quick, **run_bench(chosen, span_s, lambda size: _tell(console, size))}
    _print_table(console, results)
    return write_output(arguments, results, RESULT_FILE)


def _build_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="flchain bench",
        description="Measure on this machine, next to the floor of the same run.",
        epilog="examples:\n  flchain bench chain --quick\n  flchain bench store --quick --json --out results",
    )
    benchmarks = parser.add_subparsers(dest="benchmark", required=True, metavar="NAME")
    add_command(benchmarks, "chain", "agreement and light client at 4, 7, 13 and 21 validators")
    consensus_cli.add_parser(benchmarks)
    devices.add_parser(benchmarks)
    codecs_cli.add_parser(benchmarks)
    agent_cli.add_parser(benchmarks)
    scheduler_cli.add_parser(benchmarks)
    add_command(benchmarks, store.NAME, "bytes that a device's database writes to its card per round and per day")
    for name, benchmark in benchmarks.choices.items():
        benchmark.add_argument("--quick", action="store_true", help="run a small selection, about a minute")
        benchmark.add_argument("--json", action="store_true", help="print JSON on stdout, everything else on stderr")
        benchmark.add_argument("--out", type=Path, metavar="DIR", help=f"also write {FILES[name]} there")
    return parser


def _tell(console: Console, size: dict[str, Any]) -> None:
    console.print(f"{size['validators']} validators: {size['blocks']} blocks in {size['seconds']:.1f} s")


def _print_table(console: Console, results: dict[str, Any]) -> None:
    table = Table("validators", title="flchain bench chain", title_justify="left")
    for size in results["sizes"]:
        table.add_column(str(size["validators"]), justify="right")
    for name, show in ROWS:
        table.add_row(name, *(show(size) for size in results["sizes"]))
    console.print(table)
    console.print(format_machine(results["machine"], results["commit"]), markup=False)
