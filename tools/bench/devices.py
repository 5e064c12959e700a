"""`flchain bench devices`: what a miner's machine costs a round as devices grow, beside its signatures alone."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flchain.base.errors import ConfigError
from flchain_edge.process.command_line import add_command
from tools.bench.host import describe_machine, format_machine, read_commit
from tools.bench.network import BenchError
from tools.bench.output import write_output

NAME = "devices"
RESULT_FILE = "devices.json"
PROBE = Path(__file__).with_name("devices_probe.py")
RUN_PROBE = "import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
"""The script's own folder must not be searched for modules: Python 3.11 has the option -P for it."""
HERE = Path(__file__).parents[2]
SECONDS_MAX = 600
METHOD = (
    "Four miners' machines in one process, without broker and disk; devices' messages are signed before, updates are "
    "53 bytes of sparse-ternary/20 for 1,000 parameters, scores are constant. CPU time of a machine's steps, mean of "
    "the four, over the rounds after the first. Floor: a commitment and an update of each device, each signature "
    "checked once and nothing else done, in the same process. With --against, another checkout is measured by the same "
    "script in turn with this one, and the chains must have the same head."
)


@dataclass(frozen=True)
class Plan:
    """One size: `rounds` are measured after one that is not, `repeats` times; the median counts."""

    devices: int
    rounds: int
    repeats: int


FULL = tuple(Plan(devices, rounds=2, repeats=3) for devices in (8, 32, 128, 512, 1_024))
QUICK = tuple(Plan(devices, rounds=2, repeats=1) for devices in (8, 32, 128))


def add_parser(benchmarks: Any) -> None:
    """The options, below `flchain bench`."""
    parser = add_command(benchmarks, NAME, "CPU of a miner's machine a round, at 8 to 1,024 devices")
    parser.add_argument("--against", type=Path, metavar="DIR", help="measure this other checkout too, in turn")


def run_bench(plans: Sequence[Plan], against: Path | None, tell: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Measure each size in turn, `tell` of each when it is there. Raises BenchError."""
    machine, sizes = describe_machine(), []
    for plan in plans:
        sizes.append(measure(plan, against))
        tell(sizes[-1])
    machine["load_1min_after"] = describe_machine()["load_1min"]
    return {"benchmark": NAME, "method": METHOD, "machine": machine, "commit": read_commit(), "sizes": sizes}


def measure(plan: Plan, against: Path | None) -> dict[str, Any]:
    """One size, as a JSON object; with another checkout also its figures, and the ratio of each pair of runs."""
    own, others = [], []
    for _ in range(plan.repeats):
        own.append(_probe(HERE, plan))
        if against is not None:
            others.append(_probe(against, plan))
    size = _find_median(own)
    if others:
        if {one["head"] for one in (*own, *others)} != {size["head"]}:
            raise BenchError(f"with {plan.devices} devices the two checkouts do not make the same chain")
        other = _find_median(others)
        pairs = [one["miner_ms_per_round"] / two["miner_ms_per_round"] for one, two in zip(own, others, strict=True)]
        size |= {"against_ms_per_round": other["miner_ms_per_round"], "to_against": statistics.median(pairs)}
    return size


def _find_median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return sorted(runs, key=lambda run: run["miner_ms_per_round"])[len(runs) // 2]


def _probe(checkout: Path, plan: Plan) -> dict[str, Any]:
    """Run the measuring script in a checkout, with its own environment if it has one."""
    python = checkout / ".venv" / "bin" / "python"
    command = [
        str(python) if python.exists() else sys.executable,
        "-c",
        RUN_PROBE,
        str(PROBE),
        str(plan.devices),
        str(plan.rounds),
    ]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    try:
        done = subprocess.run(
            command, cwd=checkout, env=environment, capture_output=True, text=True, check=True, timeout=SECONDS_MAX
        )
    except subprocess.CalledProcessError as error:
        raise BenchError(f"{checkout}: {error.stderr.strip().splitlines()[-1:] or error}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"{checkout}: {error}") from error
    result: dict[str, Any] = json.loads(done.stdout)
    if Path(result.pop("checkout")) != checkout:
        raise BenchError(f"{checkout}: another checkout was measured in its place; does it have a .venv?")
    return result


def run(arguments: Any, console: Console, plans: Sequence[Plan] | None = None) -> int:
    """What `flchain bench devices` does after its arguments are read. Raises ConfigError and BenchError."""
    against: Path | None = arguments.against
    if against is not None:
        if not (against / "flchain").is_dir():
            raise ConfigError((f"--against {against}: not a checkout of FLchain",))
        against = against.resolve()
    console.print(METHOD, style="dim")
    chosen = plans or (QUICK if arguments.quick else FULL)
    told = run_bench(chosen, against, lambda size: _tell(console, size))
    results = {"is_quick": arguments.quick, **told}
    _print_table(console, results)
    return write_output(arguments, results, RESULT_FILE, listed=results["sizes"])


def _tell(console: Console, size: dict[str, Any]) -> None:
    console.print(f"{size['devices']} devices: {size['miner_ms_per_round']:.0f} ms of a miner a round")


def _print_table(console: Console, results: dict[str, Any]) -> None:
    table = Table("devices", title="flchain bench devices", title_justify="left")
    for size in results["sizes"]:
        table.add_column(f"{size['devices']:,}", justify="right")

    def add_row(name: str, key: str, digits: int) -> None:
        table.add_row(name, *(f"{size[key]:,.{digits}f}" for size in results["sizes"]))

    add_row("CPU ms of a miner, a round", "miner_ms_per_round", 1)
    add_row("CPU ms of a miner, an update", "miner_ms_per_update", 2)
    add_row("floor: signature checks alone, ms a round", "floor_ms_per_round", 1)
    add_row("miner : floor", "floor_ratio", 1)
    if "to_against" in results["sizes"][0]:
        add_row("the other checkout, ms a round", "against_ms_per_round", 1)
        add_row("this : the other", "to_against", 2)
    console.print(table)
    console.print(format_machine(results["machine"], results["commit"]), markup=False)
