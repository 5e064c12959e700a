"""The summary at the end, and the commands to type next."""

from __future__ import annotations

import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tools.demo.view import format_bars, format_bytes, format_percent, format_seconds

ROUNDS_SHOWN = 12


def print_summary(console: Console, results: dict[str, Any]) -> None:
    """Print the rounds, the model, traffic, times, memory, and the folder."""
    console.print(Text())
    console.print(_build_rounds(results))
    console.print(Text())
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    for name, text in _list_facts(results):
        facts.add_row(name, Text(text))
    console.print(facts)
    for problem in results["problems"]:
        console.print(Text(f"! {problem}", style="bold red"))
    console.print(Text())
    program = shlex.quote(sys.argv[0]) if Path(sys.argv[0]).name == "flchain" else "flchain"
    console.print(Text(f"see the plot   {results['out']}/accuracy.png"), soft_wrap=True)
    console.print(Text(f"check it       {program} audit {results['chain_dir']}"), soft_wrap=True)
    more = max(results["rounds"], results["rounds_wanted"]) + 8 if results["is_complete"] else results["rounds_wanted"]
    console.print(Text(f"add rounds     {program} demo --out {results['out']} --rounds {more}"), soft_wrap=True)


def _build_rounds(results: dict[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("round", "accuracy", "took", "training", "overhead", "up", "down"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row("start", format_percent(results["initial_accuracy"]), style="dim")
    first = max(0, results["rounds"] - ROUNDS_SHOWN)
    if first:
        table.add_row("...", style="dim")
    for index in range(first, results["rounds"]):
        table.add_row(
            str(index + 1),
            format_percent(results["test_accuracy"][index]),
            format_seconds(results["round_seconds"][index]),
            format_seconds(results["slowest_training_seconds"][index]),
            format_seconds(results["overhead_seconds"][index]),
            format_bytes(results["bytes_up_by_round"][index]),
            format_bytes(results["bytes_down_by_round"][index]),
        )
    return table


def _list_facts(results: dict[str, Any]) -> list[tuple[str, str]]:
    accuracy = (results["initial_accuracy"], *results["test_accuracy"])
    whole = results["bytes_float32"]
    up, down = results["bytes_up_per_device_round"], results["bytes_down_per_device_round"]
    memory = ", ".join(f"{role} {peak:.0f} MB" for role, peak in results["peak_memory_mb"].items())
    return [
        ("accuracy", f"{format_bars(accuracy, 60)}  {format_percent(accuracy[-1])} on held-out {results['dataset']}"),
        ("model", _describe_models(results)),
        ("chain", f"height {results['height']}, {results['restarts']} restarts"),
        *_list_mined(results),
        ("bytes up", f"{format_bytes(up)} per device and round{_compare(up, whole)}"),
        ("bytes down", f"{format_bytes(down)} per device and round{_compare(down, whole)}"),
        (
            "time",
            f"{format_seconds(results['seconds'])} in total, of which the slowest trainer of each round took "
            f"{format_seconds(results['seconds_training'])}",
        ),
        ("overhead", f"{_describe_spread(results['overhead_seconds'])}, besides training"),
        ("evaluation", f"{_describe_spread(results['evaluation_seconds'])}, by the demo, while the next round runs"),
        ("peak memory", f"{memory} (sum over the processes of a node)" if memory else "-"),
    ]


def _describe_models(results: dict[str, Any]) -> str:
    newest = {
        name: digest
        for name, digest in results["model_hash"].items()
        if results["round_by_node"][name] == results["rounds"]
    }
    hashes = set(newest.values())
    if len(hashes) == 1 and len(newest) == len(results["model_hash"]):
        return f"the same on all {len(newest)} nodes: {hashes.pop()[:32]}"
    if len(hashes) == 1:
        total = len(results["model_hash"])
        return f"the same on {len(newest)} of {total} nodes; the others are behind: {hashes.pop()[:32]}"
    return f"{len(hashes)} DIFFERENT MODELS on {len(newest)} nodes"


def _list_mined(results: dict[str, Any]) -> list[tuple[str, str]]:
    if not results["mining"]:
        return []
    mined = results["mined"]
    each = ", ".join(f"{name} {amount:,}" for name, amount in mined.items()) or "all were late or outliers"
    return [("mining", f"the scores of {results['mining']} devices earned {sum(mined.values()):,}: {each}")]


def _compare(count: float | None, whole: int) -> str:
    if not count:
        return ""
    return f"; a float32 model is {format_bytes(whole)}, {whole / count:.1f} times as much"


def _describe_spread(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "not measured"
    return f"{statistics.median(known):.2f} s per round (median), at most {max(known):.2f} s"
