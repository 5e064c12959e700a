"""`flchain sim`: simulate a network from one seed, or from each of many."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from flchain_edge.process.command_line import EXIT_FAULT, EXIT_INTERRUPTED, CommandParser
from tools.sim.faults import FAULTS
from tools.sim.run import KINDS, MINING, Options, Summary, run
from tools.sim.shrink import shrink
from tools.sim.sweep import Totals, count_liars_max, draw_validators, get_heights, sweep

VALIDATORS_MIN, VALIDATORS_MAX = 4, 21
KINDS_HELP = f"kinds of liars, with commas between (default: all): {', '.join(KINDS)}"
FAULTS_HELP = f"all, none, or kinds with commas between (default: all): {', '.join(FAULTS)}"
EXAMPLES = """\
examples:
  flchain sim --seed 7                        one network; repeats bit for bit
  flchain sim --seed 7 --faults crash,disk    the same with these faults alone
  flchain sim --seeds 0-200 --validators 4-21 a sweep, on all CPUs

Exit code: 0 nothing went wrong, 1 a violation, with the command that repeats it.
"""


def _read_faults(text: str) -> frozenset[str]:
    if text in ("all", "none"):
        return frozenset(FAULTS if text == "all" else ())
    names = frozenset(name.strip() for name in text.split(","))
    if unknown := names - set(FAULTS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not one of {', '.join(FAULTS)}")
    return names


def _read_kinds(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if unknown := set(names) - set(KINDS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not one of {', '.join(KINDS)}")
    return names


def _read_seeds(text: str) -> range:
    first, _, last = text.partition("-")
    if not first.isdecimal() or not last.isdecimal() or int(first) >= int(last):
        raise argparse.ArgumentTypeError("two numbers, as in 0-200: from the first to the one before the second")
    return range(int(first), int(last))


def _read_validators(text: str) -> range:
    first, dash, last = text.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()) or int(last or first) < int(first):
        raise argparse.ArgumentTypeError("a number, or two as in 4-21: from the first to the second")
    return range(int(first), int(last or first) + 1)


def _count_cpus() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _build_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="flchain sim",
        description="Simulate a network of the real machines under faults; the seed decides everything.",
        epilog=EXAMPLES,
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seed", type=int, metavar="N", help="run this seed")
    which.add_argument("--seeds", type=_read_seeds, metavar="A-B", help="run the seeds from A to the one before B")
    parser.add_argument(
        "--validators",
        type=_read_validators,
        default=range(4, 5),
        metavar="N|A-B",
        help="4 to 21 (default 4); from a range, each seed chooses one, small ones more often",
    )
    parser.add_argument("--devices", type=int, default=3, metavar="N", help="1 to 100 (default 3)")
    parser.add_argument(
        "--byzantine", type=int, metavar="N", help="how many validators lie (default: just under a third)"
    )
    parser.add_argument("--kinds", type=_read_kinds, default=KINDS, metavar="A,B", help=KINDS_HELP)
    help_text = "how many devices mine; if validators lie, half of these lie too (default %(default)s)"
    parser.add_argument("--mining", type=int, default=MINING, metavar="N", help=help_text)
    parser.add_argument("--faults", type=_read_faults, default=frozenset(FAULTS), metavar="A,B", help=FAULTS_HELP)
    parser.add_argument(
        "--heights",
        type=int,
        default=50,
        metavar="N",
        help="smallest length of the chain (default 50); with a range of validators, that of the smallest network",
    )
    parser.add_argument(
        "--jobs", type=int, default=_count_cpus(), metavar="N", help="processes of a sweep (default: one per CPU)"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object for each run, and for the sweep")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run `flchain sim`. Return 0 if nothing went wrong, and 1 with the command that repeats what did."""
    parser = _build_parser()
    arguments = parser.parse_args(argv)
    _check(parser, arguments)
    if arguments.seeds is None:
        options = _build_options(arguments, arguments.seed)
        summary = run(options)[1]
        _print_values(dataclasses.asdict(summary), arguments.json)
        return _explain(options, summary, is_swept=False) if summary.violations else 0
    return _sweep(arguments)


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    among = arguments.validators
    if among[0] < VALIDATORS_MIN or among[-1] > VALIDATORS_MAX:
        parser.error(f"--validators: {VALIDATORS_MIN} to {VALIDATORS_MAX}")
    if not 1 <= arguments.devices <= 100:
        parser.error("--devices: 1 to 100")
    if arguments.mining < 0:
        parser.error("--mining: at least 0")
    if arguments.heights < 1:
        parser.error("--heights: at least 1")
    if arguments.byzantine is not None and not 0 <= arguments.byzantine < among[0]:
        parser.error("--byzantine: at least one validator must be honest")
    if arguments.jobs < 1:
        parser.error("--jobs: at least 1")


def _build_options(arguments: argparse.Namespace, seed: int) -> Options:
    among = arguments.validators
    validators = draw_validators(seed, among)
    byzantine = count_liars_max(validators) if arguments.byzantine is None else arguments.byzantine
    heights = get_heights(arguments.heights, validators, among)
    named = (arguments.faults, heights, arguments.kinds, arguments.mining)
    return Options(seed, validators, arguments.devices, byzantine, *named)


def _sweep(arguments: argparse.Namespace) -> int:
    seeds, totals, started_s = arguments.seeds, Totals(), time.monotonic()
    results = sweep((_build_options(arguments, seed) for seed in seeds), min(arguments.jobs, len(seeds)))
    try:
        for options, summary in results:
            totals.add(options, summary)
            if arguments.json:
                _print_values(dataclasses.asdict(summary), True)
            if summary.violations:
                results.close()  # the seeds under way are not needed any more
                return _explain(options, summary, is_swept=True)
            _show_progress(totals.seeds, len(seeds), time.monotonic() - started_s)
    except KeyboardInterrupt:
        print(f"\nstopped; {totals.seeds} of {len(seeds)} seeds were without a violation", file=sys.stderr)
        return EXIT_INTERRUPTED
    wall_s = round(time.monotonic() - started_s, 1)
    _print_values({**totals.describe(), "wall_s": wall_s, "combined_hash": totals.combine_hashes()}, arguments.json)
    return 0


def _print_values(values: dict[str, Any], is_json: bool) -> None:
    if is_json:
        print(json.dumps(values), flush=True)
        return
    for name, value in values.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        text = "; ".join(value) if isinstance(value, list) else text
        print(f"{name.replace('_', ' '):<13} {text if text != '' else '-'}")


def _explain(options: Options, summary: Summary, is_swept: bool) -> int:
    print(f"\nviolation: {'; '.join(summary.violations)}\nrepeat it: {summary.command}", file=sys.stderr)
    if is_swept:
        smaller = shrink(options)
        print(f"needed   : {smaller.format_command()}", file=sys.stderr)
    return EXIT_FAULT


def _show_progress(done: int, total: int, elapsed_s: float) -> None:
    """Show one line that changes; in a log, a line for each tenth."""
    left_s = elapsed_s / done * (total - done)
    text = f"{done} of {total} seeds, no violation, {elapsed_s:.0f} s, about {left_s:.0f} s to go"
    if sys.stderr.isatty():
        print(f"\r{text:<75}", end="\n" if done == total else "", file=sys.stderr, flush=True)
    elif done * 10 // total > (done - 1) * 10 // total:
        print(text, file=sys.stderr, flush=True)
