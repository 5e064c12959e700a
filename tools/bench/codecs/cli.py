"""The options, tables and files of `flchain bench codecs`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from flchain.base.errors import ConfigError
from flchain.base.frozen import replace
from flchain_edge.process.command_line import add_command, read_number, read_whole_number
from tools.bench.codecs.codecs import (
    BASE,
    FILE_LEARNING_RATE,
    FILE_STEP_BITS,
    FULL,
    FULL_SEEDS,
    METHOD,
    QUICK,
    QUICK_SEEDS,
    SCHEMES,
    Scheme,
    Task,
    measure_envelope_bytes,
    measure_frame_bytes,
    run_bench,
)
from tools.bench.host import describe_machine, format_machine, read_commit
from tools.bench.output import write_output

NAME = "codecs"
RESULT_FILE, PLOT_FILE = "codecs.json", "codecs.png"
Result = dict[str, Any]
TABLE_WIDTH = 150
"""In columns; a narrower terminal wraps the lines."""


def add_parser(benchmarks: Any) -> None:
    """Add the options to those of `flchain bench`."""
    parser = add_command(benchmarks, NAME, "bytes, rounds and milliseconds of each update codec on one task")
    parser.add_argument("--dataset-file", type=Path, metavar="X.npz", help="your own data: arrays x, y, client")
    parser.add_argument("--model", metavar="NAME|FILE", help="for --dataset-file (default: the built-in one that fits)")
    parser.add_argument("--task", metavar="DATA/MODEL", help="run only this task, such as mnist/cnn")
    parser.add_argument("--codec", action="append", metavar="NAME", help="run only this one and the base; repeatable")
    parser.add_argument("--rounds", type=_read_count, metavar="N", help="of training, instead of the task's own")
    parser.add_argument(
        "--learning-rate", type=_read_rate, metavar="R", help="of the devices, instead of the task's own"
    )
    parser.add_argument(
        "--step-bits", type=int, choices=range(4, 29), metavar="E", help="adaptive, delta-entropy: step 2**E"
    )
    parser.add_argument("--seeds", type=_read_count, metavar="N", help=f"runs of each (default {FULL_SEEDS}, quick 1)")


def _read_count(text: str) -> int:
    return read_whole_number(text, 1)


def _read_rate(text: str) -> float:
    value = read_number(text)
    if not 0 < value <= 10:
        raise argparse.ArgumentTypeError(f"must be above 0, at most 10, is {text}")
    return value


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Measure, print the tables, write the files. Raises ConfigError."""
    tasks, schemes = choose_tasks(arguments), choose_schemes(arguments.codec)
    seeds = arguments.seeds or (QUICK_SEEDS if arguments.quick else FULL_SEEDS)
    console.print(METHOD, style="dim")
    before = describe_machine()
    results = list(run_bench(tasks, seeds, schemes, lambda result: _tell(console, result)))
    for task in dict.fromkeys((result["dataset"], result["model"]) for result in results):
        _print_table(console, task, [r for r in results if (r["dataset"], r["model"]) == task])
    machine = before | {"load_1min_after": describe_machine()["load_1min"]}
    _print_footer(console, machine)
    whole = {"is_quick": arguments.quick, "machine": machine, "commit": read_commit(), "results": results}

    def plot(folder: Path) -> None:
        from tools.bench.codecs.plot import write_plot  # takes a second to import

        write_plot(results, folder / PLOT_FILE)

    return write_output(arguments, whole, RESULT_FILE, plot=plot, listed=results)


def choose_tasks(arguments: argparse.Namespace) -> tuple[Task, ...]:
    """Return the tasks that the options name. Raises ConfigError."""
    rounds = arguments.rounds
    known = QUICK if arguments.quick else FULL
    if arguments.dataset_file is not None:
        name, model = arguments.dataset_file.stem, arguments.model or ""
        return (
            Task(
                name,
                model,
                rounds or known[0].rounds,
                arguments.learning_rate or FILE_LEARNING_RATE,
                FILE_STEP_BITS if arguments.step_bits is None else arguments.step_bits,
                arguments.dataset_file,
            ),
        )
    if arguments.model is not None:
        raise ConfigError(("--model: needs --dataset-file; otherwise --task names data and model",))
    named = {f"{task.dataset}/{task.model}": task for task in (*FULL, *known)}
    if arguments.task is not None and arguments.task not in named:
        raise ConfigError((f"--task: unknown name {arguments.task!r}; known: {', '.join(named)}",))
    chosen = known if arguments.task is None else (named[arguments.task],)
    return tuple(
        replace(
            task,
            rounds=rounds or task.rounds,
            learning_rate=arguments.learning_rate or task.learning_rate,
            step_bits=task.step_bits if arguments.step_bits is None else arguments.step_bits,
        )
        for task in chosen
    )


def choose_schemes(names: Sequence[str] | None) -> tuple[Scheme, ...]:
    """Return the base, and the named codecs or all of them. Raises ConfigError."""
    known = [scheme.codec for scheme in SCHEMES]
    problems = [
        f"--codec: unknown name {name!r}; known: {', '.join(known)}" for name in names or () if name not in known
    ]
    if problems:
        raise ConfigError(tuple(problems))
    return tuple(scheme for scheme in SCHEMES if names is None or scheme.codec in (BASE, *names))


def _tell(console: Console, result: Result) -> None:
    console.print(
        f"{result['dataset']}/{result['model']} seed {result['seed']} {result['codec']}: final accuracy "
        f"{result['final_accuracy']:.3f}, target in round {_show(result['rounds_to_target'])}, "
        f"{_show(result['ratio_up'])} times fewer bytes up, {_show(result['ratio_down'])} down"
    )


def _show(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}"


def summarise(results: Sequence[Result]) -> list[Result]:
    """Return one row for each codec: means over the seeds; None for a figure that a seed lacks."""
    rows = []
    for codec in dict.fromkeys(result["codec"] for result in results):
        own = [result for result in results if result["codec"] == codec]
        keys = [key for key, value in own[0].items() if isinstance(value, int | float) or value is None]
        row: Result = {"codec": codec, "levels": own[0]["levels"]}
        for key in keys:
            values = [result[key] for result in own]
            row[key] = None if None in values else float(np.mean(values))
        row["points"] = 100 * float(np.mean([r["final_accuracy"] - r["base_accuracy"] for r in own]))
        rows.append(row)
    return rows


def _print_table(console: Console, task: tuple[str, str], results: Sequence[Result]) -> None:
    rows, seeds = summarise(results), len({result["seed"] for result in results})
    title = f"{task[0]}/{task[1]}: {results[0]['parameters_count']:,} parameters, mean of {seeds} seeds"
    table = Table(Column("codec", no_wrap=True), title=title, title_justify="left")
    for heading in ("level up, down", "final, points", "rounds", "B up", "B down", "ratio up", "signed", "ratio down"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("enc", "dec", "argp"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["codec"],
            f"{row['levels'][0]}, {row['levels'][1]}",
            f"{row['final_accuracy']:.3f} {row['points']:+.1f}",
            *(_show(row[key]) for key in ("rounds_to_target", "bytes_up_to_target", "bytes_down_to_target")),
            *(_show(row[key]) for key in ("ratio_up", "ratio_up_signed", "ratio_down")),
            *(f"{row[f'{key}_ms_per_million']:.1f}" for key in ("encode", "decode", "argpartition")),
        )
    console.width = max(console.width, TABLE_WIDTH)
    console.print(table)


def _print_footer(console: Console, machine: Result) -> None:
    console.print(
        f"Ratios are float32's bytes over the codec's. A header and certificate, {measure_frame_bytes()} bytes, are in "
        f"'down'; the signed envelopes of a round, {measure_envelope_bytes()} bytes, are in 'signed' on both sides. "
        "enc, dec, argp: ms per million parameters. "
        f"{format_machine(machine, read_commit())}",
        markup=False,
    )
