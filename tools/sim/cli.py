"""`flchain sim`: a simulated network from one seed, or many of them one after another."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence

from flchain_edge.command import EXIT_FAULT
from tools.sim.byzantine import BEHAVIOURS
from tools.sim.faults import FAULTS
from tools.sim.run import Options, Summary, run
from tools.sim.shrink import shrink

VALIDATORS_MIN, VALIDATORS_MAX = 4, 21


def _read_faults(text: str) -> frozenset[str]:
    if text in ("all", "none"):
        return frozenset(FAULTS if text == "all" else ())
    names = frozenset(text.split(","))
    if unknown := names - set(FAULTS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not one of {', '.join(FAULTS)}")
    return names


def _read_kinds(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := set(names) - set(BEHAVIOURS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not one of {', '.join(BEHAVIOURS)}")
    return names


def _read_seeds(text: str) -> range:
    first, _, last = text.partition("-")
    if not first.isdecimal() or not last.isdecimal() or int(first) >= int(last):
        raise argparse.ArgumentTypeError("two numbers, as in 0-200: from the first up to before the second")
    return range(int(first), int(last))


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flchain sim", description="Run the real machines of a network under faults; one seed decides everything."
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seed", type=int, help="run this one")
    which.add_argument("--seeds", type=_read_seeds, metavar="A-B", help="run all of A up to before B")
    parser.add_argument("--validators", type=int, default=4, help="4 to 21 (default 4)")
    parser.add_argument("--devices", type=int, default=3, help="1 to 100 (default 3)")
    parser.add_argument("--byzantine", type=int, help="how many of them lie (default: fewer than a third)")
    parser.add_argument("--kinds", type=_read_kinds, default=tuple(BEHAVIOURS), help=f"of {','.join(BEHAVIOURS)}")
    parser.add_argument("--faults", type=_read_faults, default=frozenset(FAULTS), help=f"all, none, {','.join(FAULTS)}")
    parser.add_argument("--heights", type=int, default=50, help="how long the chain gets at least (default 50)")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each run")
    return parser


def main(argv: Sequence[str]) -> int:
    """Entry point of `flchain sim`: 0 if nothing went wrong, 1 with the command that repeats what did."""
    parser = _build_parser()
    arguments = parser.parse_args(argv)
    if not VALIDATORS_MIN <= arguments.validators <= VALIDATORS_MAX:
        parser.error(f"--validators: {VALIDATORS_MIN} to {VALIDATORS_MAX}")
    if not 1 <= arguments.devices <= 100:
        parser.error("--devices: 1 to 100")
    if arguments.heights < 1:
        parser.error("--heights: at least 1")
    byzantine = (arguments.validators - 1) // 3 if arguments.byzantine is None else arguments.byzantine
    if not 0 <= byzantine < arguments.validators:
        parser.error("--byzantine: at least one validator must be honest")
    seeds = range(arguments.seed, arguments.seed + 1) if arguments.seeds is None else arguments.seeds
    for seed in seeds:
        options = Options(
            seed,
            arguments.validators,
            arguments.devices,
            byzantine,
            arguments.faults,
            arguments.heights,
            arguments.kinds,
        )
        summary = run(options)[1]
        _print_run(summary, arguments.json, is_one=arguments.seeds is None)
        if summary.violations:
            return _explain(options, summary, is_swept=arguments.seeds is not None)
        if arguments.seeds is not None:
            _show_progress(seed - seeds[0] + 1, len(seeds))
    return 0


def _print_run(summary: Summary, is_json: bool, is_one: bool) -> None:
    if is_json:
        print(json.dumps(dataclasses.asdict(summary)))
    elif is_one:
        for name, value in dataclasses.asdict(summary).items():
            text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
            text = "; ".join(value) if isinstance(value, list) else text
            print(f"{name.replace('_', ' '):<12} {text if text != '' else '-'}")


def _explain(options: Options, summary: Summary, is_swept: bool) -> int:
    print(f"\nviolation: {'; '.join(summary.violations)}\nrepeat it: {summary.command}", file=sys.stderr)
    if is_swept:
        smaller = shrink(options)
        print(f"needed   : {smaller.format_command()}", file=sys.stderr)
    return EXIT_FAULT


def _show_progress(done: int, total: int) -> None:
    end = "\n" if done == total else ""
    print(f"\r{done} of {total} seeds, no violation", end=end, file=sys.stderr, flush=True)
